"""Checks the carriers' signatures on incoming requests, with all public origins of this service and with the secrets
of the account in the request."""

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
from connector.model.provider import Provider

log = structlog.get_logger()

Form = Sequence[tuple[str, str]]
ALLOW_UNSIGNED = "CONNECTOR_ALLOW_UNSIGNED_WEBHOOKS"
"""Development only: this setting allows connectors for carriers without a key to verify their requests."""


class SignatureCheck:
    """Checks signatures against the configured origins, never against the request's Host header: a proxy changes host,
    scheme and port, and an attacker can. Each origin is tried, because a carrier may use any of them."""

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
        """Carriers for which the log already says that their webhooks are not checked."""

    def signs(self, provider: Provider) -> bool:
        """Whether we can check this carrier's signatures."""
        return self._accounts[provider].signs

    def require_checkable(self, provider: Provider) -> None:
        """Raises FailedPrecondition if this carrier may not have a connector. A connector's URL is long-lived and can
        leak; without signatures, anybody who knows it could pretend to be the carrier."""
        if not self.signs(provider) and not self._allow_unsigned:
            carrier = self._carriers[provider]
            raise FailedPrecondition(f"a connector for {carrier.title} needs {_needed(carrier)}")

    def require(self, provider: Provider, request: web.Request, body: bytes = b"", form: Form = ()) -> None:
        """Checks an HTTP request, its body and its form. Raises SignatureInvalid if the signature is wrong. Requests of
        a carrier that we cannot check are accepted: their URL has a single-use token."""
        if self.signs(provider):
            self._check(provider, request, self._origins.every, body, form)

    def require_webhook(self, provider: Provider, request: web.Request, body: bytes = b"", form: Form = ()) -> None:
        """As `require`, for a long-lived URL: also raises SignatureInvalid if we cannot check this carrier."""
        if not self.signs(provider):
            carrier = self._carriers[provider]
            if not self._allow_unsigned:
                raise SignatureInvalid(f"webhooks of {carrier.title} need {_needed(carrier)}")
            if provider not in self._noted:
                self._noted.add(provider)
                missing = carrier.signing_setting
                log.warning("the signatures of this carrier's webhooks are not checked", set=missing)
        self.require(provider, request, body, form)

    def require_handshake(self, provider: Provider, request: web.Request) -> None:
        """As `require`, for a WebSocket handshake. If the carrier does not sign handshakes, only the token counts."""
        origins = [f"ws{origin.removeprefix('http')}" for origin in self._origins.every]
        if self._carriers[provider].signs_handshakes and self.signs(provider):
            self._check(provider, request, origins, b"", ())

    def _check(self, provider: Provider, request: web.Request, origins: Sequence[str], body: bytes, form: Form) -> None:
        carrier = self._carriers[provider]
        account = carrier.call_facts(dict(form) or dict(request.query)).account_id
        secrets = self._accounts[provider].signing(account)
        shown = account if _ACCOUNT.fullmatch(account) else "(invalid account id)"
        if not secrets:
            title, setting = carrier.title, carrier.account_rules.setting
            raise SignatureInvalid(
                f"the request is from {title} account {shown}, which is not configured: see {setting}"
            )
        urls = [origin + request.rel_url.raw_path_qs for origin in origins]
        signed = SignedRequest(request.method, urls, request.headers, form, body, time.time())
        if not any(carrier.has_signed(secret, signed) for secret in secrets):
            of = (
                f"; the request is from account {shown}"
                if account
                else ": it matches no secret of a configured account"
            )
            raise SignatureInvalid(carrier.unsigned + of)


def _needed(carrier: Carrier) -> str:
    return (
        f"{carrier.signing_setting} (or {carrier.account_rules.setting}): without it the signatures of its requests "
        f"cannot be checked; for development only, {ALLOW_UNSIGNED}=true"
    )


_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,64}")
