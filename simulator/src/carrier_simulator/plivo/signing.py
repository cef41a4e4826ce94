"""Signs as Plivo does: HMAC-SHA256 over the URL, the form and a nonce, version 3.

https://www.plivo.com/docs/voice/concepts/signature-validation
"""

from __future__ import annotations

import hmac
import secrets
from base64 import b64encode
from collections.abc import Mapping, Sequence
from urllib.parse import parse_qsl, urlsplit

SIGNATURE = "X-Plivo-Signature-V3"
NONCE = "X-Plivo-Signature-V3-Nonce"


def sign(auth_token: str, url: str, form: Sequence[tuple[str, str]], nonce: str) -> str:
    """A GET and a WebSocket handshake have no form."""
    parts = urlsplit(url)
    query = "&".join(f"{name}={value}" for name, value in sorted(parse_qsl(parts.query, keep_blank_values=True)))
    signed = f"{parts.scheme}://{parts.netloc}{parts.path}"
    if query or form:
        signed += f"?{query}"
    if form:
        # A point parts the form from the query, where there is one.
        signed += ("." if query else "") + "".join(f"{name}{value}" for name, value in sorted(form))
    return b64encode(hmac.digest(auth_token.encode(), f"{signed}.{nonce}".encode(), "sha256")).decode()


class PlivoSigner:
    def request(
        self, secret: str, method: str, url: str, form: Sequence[tuple[str, str]], body: bytes
    ) -> Mapping[str, str]:
        nonce = secrets.token_hex(10)
        # Several, as when an account has more than one token: any that fits is good.
        signatures = (sign(secrets.token_hex(8), url, form, nonce), sign(secret, url, form, nonce))
        return {SIGNATURE: ",".join(signatures), NONCE: nonce}

    def handshake(self, secret: str, url: str) -> Mapping[str, str]:
        return self.request(secret, "GET", url, (), b"")
