"""Carriers' signatures on the requests that reach us, checked against the origins that carriers know us by."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from connector.api.origins import Origins
from connector.carriers.signatures import plivo_signature_valid, telnyx_signature_valid, twilio_signature_valid
from connector.errors import SignatureInvalid
from connector.model import Provider

Form = Sequence[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class CarrierSecrets:
    """What carriers sign with; empty or None where it is not configured, and then nothing is checked."""

    twilio_auth_token: str = ""
    telnyx_public_key: Ed25519PublicKey | None = None
    plivo_auth_token: str = ""


class SignatureCheck:
    """Never from a request's own host: a proxy changes host, scheme and port, and an attacker may. A carrier may have
    been given any of the configured origins, so each is tried."""

    def __init__(self, origins: Origins, secrets: CarrierSecrets) -> None:
        self._origins = origins
        self._secrets = secrets

    def signs(self, provider: Provider) -> bool:
        """Whether this carrier's requests are checked."""
        secrets = self._secrets
        return bool(
            {
                Provider.TWILIO: secrets.twilio_auth_token,
                Provider.TELNYX: secrets.telnyx_public_key,
                Provider.PLIVO: secrets.plivo_auth_token,
            }[provider]
        )

    def require(self, provider: Provider, request: web.Request, body: bytes = b"", form: Form = ()) -> None:
        """A request over http(s), with its body and the form in it. SignatureInvalid unless the carrier signed it."""
        if self.signs(provider) and not self._valid(provider, request, self._origins.every, body, form):
            raise SignatureInvalid(_MISSING[provider])

    def require_handshake(self, provider: Provider, request: web.Request) -> None:
        """The same for a WebSocket's handshake. Telnyx is not known to sign one: there the token alone counts."""
        origins = [f"ws{origin.removeprefix('http')}" for origin in self._origins.every]
        if provider is not Provider.TELNYX and self.signs(provider) and not self._valid(provider, request, origins):
            raise SignatureInvalid(_MISSING[provider])

    def _valid(
        self, provider: Provider, request: web.Request, origins: Sequence[str], body: bytes = b"", form: Form = ()
    ) -> bool:
        headers, secrets = request.headers, self._secrets
        signature = headers.get(_HEADERS[provider])
        urls = [origin + request.rel_url.raw_path_qs for origin in origins]
        match provider:
            case Provider.TWILIO:
                return any(twilio_signature_valid(secrets.twilio_auth_token, url, form, signature) for url in urls)
            case Provider.TELNYX:
                assert secrets.telnyx_public_key is not None
                timestamp = headers.get("telnyx-timestamp")
                return telnyx_signature_valid(secrets.telnyx_public_key, timestamp, body, signature, time.time())
            case Provider.PLIVO:
                nonce = headers.get("X-Plivo-Signature-V3-Nonce")
                token, method = secrets.plivo_auth_token, request.method
                signature = f"{signature or ''},{headers.get(_OF_MAIN_ACCOUNT, '')}"
                return any(plivo_signature_valid(token, method, url, form, nonce, signature) for url in urls)


SETTINGS = {
    Provider.TWILIO: "TWILIO_AUTH_TOKEN",
    Provider.TELNYX: "TELNYX_PUBLIC_KEY",
    Provider.PLIVO: "PLIVO_AUTH_TOKEN",
}
"""What has to be configured for a carrier's requests to be checked."""
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
