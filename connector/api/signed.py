"""Carriers' signatures on the requests that reach us, checked against the origins that carriers know us by and with
the secrets of the account that the request names."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence

import structlog
from aiohttp import web

from connector.accounts import MAPS, SIGNING_SETTINGS, TITLES, CarrierAccounts
from connector.api.origins import Origins
from connector.carriers.facts import call_facts
from connector.carriers.signatures import (
    plivo_signature_valid,
    telnyx_public_key,
    telnyx_signature_valid,
    twilio_signature_valid,
)
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
        self, origins: Origins, accounts: Mapping[Provider, CarrierAccounts], *, allow_unsigned: bool = False
    ) -> None:
        self._origins = origins
        self._accounts = {provider: accounts.get(provider, CarrierAccounts(provider)) for provider in Provider}
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
            raise FailedPrecondition(f"a connector for {TITLES[provider]} needs {_needed(provider)}")

    def require(self, provider: Provider, request: web.Request, body: bytes = b"", form: Form = ()) -> None:
        """A request over http(s), with its body and the form in it. SignatureInvalid unless the carrier signed it, or
        the carrier's requests cannot be checked: a single-use token is in the URL then."""
        if self.signs(provider):
            self._check(provider, request, self._origins.every, body, form)

    def require_webhook(self, provider: Provider, request: web.Request, body: bytes = b"", form: Form = ()) -> None:
        """The same for a URL that lives long: SignatureInvalid too where the carrier's requests cannot be checked."""
        if not self.signs(provider):
            if not self._allow_unsigned:
                raise SignatureInvalid(f"webhooks of {TITLES[provider]} need {_needed(provider)}")
            if provider not in self._noted:
                self._noted.add(provider)
                missing = SIGNING_SETTINGS[provider]
                log.warning("webhooks of this carrier are not checked for its signature", set=missing)
        self.require(provider, request, body, form)

    def require_handshake(self, provider: Provider, request: web.Request) -> None:
        """The same for a WebSocket's handshake. Telnyx is not known to sign one: there the token alone counts."""
        origins = [f"ws{origin.removeprefix('http')}" for origin in self._origins.every]
        if provider is not Provider.TELNYX and self.signs(provider):
            self._check(provider, request, origins, b"", ())

    def _check(self, provider: Provider, request: web.Request, origins: Sequence[str], body: bytes, form: Form) -> None:
        account = call_facts(provider, dict(form) or dict(request.query)).account_id
        secrets = self._accounts[provider].signing(account)
        shown = account if _ACCOUNT.fullmatch(account) else "with a name that is none"
        if not secrets:
            title, setting = TITLES[provider], MAPS[provider]
            raise SignatureInvalid(f"the request is of {title} account {shown}, which is not configured: see {setting}")
        urls = [origin + request.rel_url.raw_path_qs for origin in origins]
        if not any(_valid(provider, secret, request, urls, body, form) for secret in secrets):
            of = f"; the request is of account {shown}" if account else ": with no secret of any configured account"
            raise SignatureInvalid(_MISSING[provider] + of)


def _valid(provider: Provider, secret: str, request: web.Request, urls: Sequence[str], body: bytes, form: Form) -> bool:
    headers = request.headers
    signature = headers.get(_HEADERS[provider])
    match provider:
        case Provider.TWILIO:
            return any(twilio_signature_valid(secret, url, form, signature) for url in urls)
        case Provider.TELNYX:
            timestamp = headers.get("telnyx-timestamp")
            return telnyx_signature_valid(telnyx_public_key(secret), timestamp, body, signature, time.time())
        case Provider.PLIVO:
            nonce = headers.get("X-Plivo-Signature-V3-Nonce")
            signature = f"{signature or ''},{headers.get(_OF_MAIN_ACCOUNT, '')}"
            return any(plivo_signature_valid(secret, request.method, url, form, nonce, signature) for url in urls)


def _needed(provider: Provider) -> str:
    return (
        f"{SIGNING_SETTINGS[provider]} (or {MAPS[provider]}): without it the signatures of its requests cannot be "
        f"checked; for development only, {ALLOW_UNSIGNED}=true"
    )


_ACCOUNT = re.compile(r"[A-Za-z0-9_-]{1,64}")
_HEADERS = {
    Provider.TWILIO: "X-Twilio-Signature",
    Provider.TELNYX: "telnyx-signature-ed25519",
    Provider.PLIVO: "X-Plivo-Signature-V3",
}
_OF_MAIN_ACCOUNT = "X-Plivo-Signature-Ma-V3"
"""Plivo signs a subaccount's requests with the token of either account, each in a header of its own."""
_MISSING = {
    Provider.TWILIO: "X-Twilio-Signature is missing or does not match",
    Provider.TELNYX: "telnyx-signature-ed25519 is missing, does not match, or is older than five minutes",
    Provider.PLIVO: "X-Plivo-Signature-V3 is missing or does not match",
}
