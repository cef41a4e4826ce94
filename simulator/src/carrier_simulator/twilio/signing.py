"""Signs as Twilio does: `X-Twilio-Signature`.

https://www.twilio.com/docs/usage/security#validating-requests
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence

HEADER = "X-Twilio-Signature"


def sign(auth_token: str, url: str, params: Sequence[tuple[str, str]] = ()) -> str:
    """The header's value for a request to `url` with these form parameters.

    A GET and a WebSocket handshake have none: there the query, as part of the URL, is what is signed.
    """
    # Names in alphabetical order, each value once and after its name, nothing between them.
    signed = url + "".join(name + value for name, value in sorted(set(params)))
    return b64encode(hmac.digest(auth_token.encode(), signed.encode(), "sha1")).decode()


def signed_headers(auth_token: str | None, url: str, params: Sequence[tuple[str, str]] = ()) -> dict[str, str]:
    """No token, no header: a carrier that does not sign."""
    return {} if auth_token is None else {HEADER: sign(auth_token, url, params)}


class TwilioSigner:
    def request(
        self, secret: str, method: str, url: str, form: Sequence[tuple[str, str]], body: bytes
    ) -> Mapping[str, str]:
        return signed_headers(secret, url, form)

    def handshake(self, secret: str, url: str) -> Mapping[str, str]:
        return signed_headers(secret, url)
