"""Carriers' signatures on the requests that reach us, checked against the origins that carriers know us by and with
the secrets of the account that the request names."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

import structlog
from aiohttp import web

from connector.accounts import CarrierAccounts
from connector.api.origins import Origins
from connector.carriers.carrier import Carrier, Carriers
from connector.carriers.signatures import SignedRequest
from connector.errors import FailedPrecondition, SignatureInvalid
from connector.model import Provider

log = structlog.get_logger()

Form = Sequence[tuple[str, str]]
ALLOW_UNSIGNED = "CONNECTOR_ALLOW_UNSIGNED_WEBHOOKS"
"""The setting, for development alone, with which connectors work for carriers whose requests cannot be checked."""


class SignatureCheck:
    """Never from a request's own host: a proxy changes host, scheme and port, and an attacker may. A carrier may have
    been given any of the configured origins, so each is tried."""

    def __init__(
        self,
        origins: Origins,
        carriers: Carriers,
        accounts: Mapping[Provider, CarrierAccounts],
        *,
        allow_unsigned: bool = False,
    ) -> None:
        self._origins = origins
        self._carriers = carriers
        self._accounts = {
            name: accounts.get(name, CarrierAccounts(carrier.account_rules)) for name, carrier in carriers.items()
        }
        self._allow_unsigned = allow_unsigned
        self._noted: set[Provider] = set()
        """Carriers of which it has been told that their webhooks are not checked."""

    def signs(self, provider: Provider) -> bool:
        """Whether this carrier's requests are checked."""
        return self._accounts[provider].signs

    def require_checkable(self, provider: Provider) -> None:
        """FailedPrecondition for a carrier that may not have a connector: the URL of one lives long and can leak, and
        nothing would tell the carrier from a stranger who knows it."""
        if not self.signs(provider) and not self._allow_unsigned:
            carrier = self._carriers[provider]
            raise FailedPrecondition(f"a connector for {carrier.title} needs {_needed(carrier)}")

    def require(self, provider: Provider, request: web.Request, body: bytes = b"", form: Form = ()) -> None:
        """A request over http(s), with its body and the form in it. SignatureInvalid unless the carrier signed it, or
        the carrier's requests cannot be checked: a single-use token is in the URL then."""
        if self.signs(provider):
            self._check(provider, request, self._origins.every, body, form)

    def require_webhook(self, provider: Provider, request: web.Request, body: bytes = b"", form: Form = ()) -> None:
        """The same for a URL that lives long: SignatureInvalid too where the carrier's requests cannot be checked."""
        if not self.signs(provider):
            carrier = self._carriers[provider]
            if not self._allow_unsigned:
                raise SignatureInvalid(f"webhooks of {carrier.title} need {_needed(carrier)}")
            if provider not in self._noted:
                self._noted.add(provider)
                missing = carrier.signing_setting
                log.warning("webhooks of this carrier are not checked for its signature", set=missing)
        self.require(provider, request, body, form)

    def require_handshake(self, provider: Provider, request: web.Request) -> None:
        """The same for a WebSocket's handshake. Where the carrier does not sign one, the token alone counts."""
        origins = [f"ws{origin.removeprefix('http')}" for origin in self._origins.every]
        if self._carriers[provider].signs_handshakes and self.signs(provider):
            self._check(provider, request, origins, b"", ())

    def _check(self, provider: Provider, request: web.Request, origins: Sequence[str], body: bytes, form: Form) -> None:
        carrier = self._carriers[provider]
        account = carrier.call_facts(dict(form) or dict(request.query)).account_id
        secrets = self._accounts[provider].signing(account)
        shown = account if _ACCOUNT.fullmatch(account) else "with a name that is none"
        if not secrets:
            title, setting = carrier.title, carrier.account_rules.setting
            raise SignatureInvalid(f"the request is of {title} account {shown}, which is not configured: see {setting}")
        urls = [origin + request.rel_url.raw_path_qs for origin in origins]
        signed = SignedRequest(request.method, urls, request.headers, form, body, time.time())
        if not any(carrier.has_signed(secret, signed) for secret in secrets):
            of = f"; the request is of account {shown}" if account else ": with no secret of any configured account"
            raise SignatureInvalid(carrier.unsigned + of)


def _needed(carrier: Carrier) -> str:
    return (
        f"{carrier.signing_setting} (or {carrier.account_rules.setting}): without it the signatures of its requests "
        f"cannot be checked; for development only, {ALLOW_UNSIGNED}=true"
    )


_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,64}")
