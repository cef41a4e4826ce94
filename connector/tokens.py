"""The secret part of a connect_url (a token that names its call, expires, and cannot be forged) and of a webhook URL.

A token is URL-safe base64 without padding, of

    ========  =======================================================
    1 byte    version, 1
    8 bytes   when it expires: Unix seconds, big-endian double
    1-128     the call id, UTF-8
    32 bytes  HMAC-SHA256 of all that, with a key derived from the secret
    ========  =======================================================

That it works only once is not in the token; the store of the calls sees to it.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import string
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode

from connector.errors import TokenExpired, TokenInvalid
from connector.model import ConnectorEntry

_PURPOSE = "connector connect_url token v1"
DIAL_PURPOSE = "connector dial url token v1"
"""Of an address whose document dials the number that its token names."""
SAY_PURPOSE = "connector say url token v1"
"""Of an address whose document reads out the sentence that its token holds, and hangs up."""
_KEY_PURPOSE = b"connector webhook key v1"
_KEY_PREFIX = "whk_"
_KEY_LENGTH = 32
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_HEAD = struct.Struct(">Bd")
_VERSION = 1
_DIGEST_SIZE = 32
_LONGEST_CALL_ID = 128


class TokenSigner:
    """Mints and verifies tokens; all processes with the same secret accept each other's."""

    def __init__(self, secret: str, purpose: str = _PURPOSE, longest: int = _LONGEST_CALL_ID) -> None:
        """`purpose` sets the key apart from any other use of the same secret: tokens of one are foreign to others.
        `longest`: bytes of what a token can name."""
        if not secret:
            raise ValueError("a token signer needs a secret")
        self._longest = longest
        self._longest_token = 4 * -(-(_HEAD.size + longest + _DIGEST_SIZE) // 3)
        self._key = hmac.digest(secret.encode(), purpose.encode(), "sha256")

    def mint(self, call_id: str, expires_at: float) -> str:
        """A token of `[A-Za-z0-9_-]` for a call id of 1 to 128 bytes; `expires_at` is in Unix seconds."""
        name = call_id.encode()
        if not 1 <= len(name) <= self._longest:
            raise ValueError(f"a call id has 1 to {self._longest} bytes")
        if not math.isfinite(expires_at):
            raise ValueError("a token must expire at some time")
        body = _HEAD.pack(_VERSION, expires_at) + name
        return _encode(body + self._digest(body))

    def verify(self, token: str, now: float, extended_until: float | None = None) -> str:
        """The call id of a token that is genuine and not expired; `extended_until` may only prolong its life.

        TokenInvalid when it is malformed, altered or foreign; TokenExpired from the second of its expiry on.
        """
        call_id, expires_at = self.peek(token)
        if extended_until is not None:
            expires_at = max(expires_at, extended_until)
        if now >= expires_at:
            raise TokenExpired("this connect_url has expired")
        return call_id

    def peek(self, token: str) -> tuple[str, float]:
        """The call id and expiry of a genuine token, expired or not. TokenInvalid otherwise."""
        if len(token) > self._longest_token:
            raise _invalid()
        sealed = _decode(token)
        body, digest = sealed[:-_DIGEST_SIZE], sealed[-_DIGEST_SIZE:]
        if not hmac.compare_digest(self._digest(body), digest) or len(body) <= _HEAD.size:
            raise _invalid()
        version, expires_at = _HEAD.unpack_from(body)
        if version != _VERSION:
            raise _invalid()
        return body[_HEAD.size :].decode(), expires_at

    def _digest(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")


class WebhookKeys:
    """The secret in a connector's webhook URL: `whk_` and 32 characters, derived and never stored.

    What is stored is a nonce, from which only who has the API secret gets the key again (so that the URL can be
    shown), and the key's hash, by which a request's connector is found. A new nonce is a new key.
    """

    def __init__(self, secret: str) -> None:
        if not secret:
            raise ValueError("webhook keys need a secret")
        self._key = hmac.digest(secret.encode(), _KEY_PURPOSE, "sha256")

    def derive(self, connector_id: str, nonce: str) -> str:
        """The key of a connector: base62, 190 bits."""
        digest = hmac.digest(self._key, f"{connector_id}|{nonce}".encode(), "sha256")
        number, characters = int.from_bytes(digest, "big"), []
        for _ in range(_KEY_LENGTH):
            number, index = divmod(number, len(_BASE62))
            characters.append(_BASE62[index])
        return _KEY_PREFIX + "".join(characters)

    def fits(self, connector: ConnectorEntry, key: str) -> bool:
        """Whether this is the connector's key. One that was derived with another API secret is not, though its hash
        is still kept: who knows the old secret must not get in."""
        mine = self.derive(connector.id, connector.key_nonce)
        return hmac.compare_digest(mine.encode(), key.encode("utf-8", "surrogatepass"))

    def call_id(self, connector_id: str, carrier_call_id: str) -> str:
        """The id of the call that a carrier announces to a connector: the same however often it does, on every
        process, and nobody else can guess it."""
        name = f"call|{connector_id}|{carrier_call_id}".encode("utf-8", "surrogatepass")
        return "call_" + hmac.digest(self._key, name, "sha256").hex()[:24]

    @staticmethod
    def hash(key: str) -> str:
        """SHA-256, hexadecimal. Keys are long and random: nothing slower is needed to keep them from being guessed."""
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(token: str) -> bytes:
    try:
        data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        raise _invalid() from None
    # The decoder skips foreign characters, and the last one has bits that carry nothing: only one spelling is good.
    if _encode(data) != token:
        raise _invalid()
    return data


def _invalid() -> TokenInvalid:
    return TokenInvalid("this connect_url is not one of ours")
