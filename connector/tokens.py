"""The secret part of a connect_url (an expiring, signed token with the call id) and of a webhook URL.

A token is URL-safe base64 without padding, of

    ========  =======================================================
    1 byte    version, 1
    8 bytes   expiry: Unix seconds, big-endian double
    1-128     the call id, UTF-8
    32 bytes  HMAC-SHA256 of the above, with a key derived from the secret
    ========  =======================================================

The store of the calls, not the token, ensures that a token is used only once.
"""

from __future__ import annotations

import hashlib
import hmac
import math
import string
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import replace

from connector.errors import TokenExpired, TokenInvalid
from connector.model.connector import ConnectorEntry
from connector.seal import MARK, Seal, SealBroken, several

_PURPOSE = "connector connect_url token v1"
SAY_PURPOSE = "connector say url token v1"
"""For the URL of a document that reads out the sentence in the token and hangs up."""
TRANSFER_PURPOSE = "connector transfer url token v1"
"""For the callback URLs of a transfer."""
_KEY_PURPOSE = b"connector webhook key v1"
_KEY_SEAL_PURPOSE = "connector webhook key seal v1"
_KEY_PREFIX = "whk_"
_KEY_LENGTH = 32
_BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
_HEAD = struct.Struct(">Bd")
_VERSION = 1
_DIGEST_SIZE = 32
_LONGEST_CALL_ID = 128


class TokenSigner:
    """Mints and verifies tokens; processes with the same secret accept each other's tokens."""

    def __init__(self, secret: str | Sequence[str], purpose: str = _PURPOSE, longest: int = _LONGEST_CALL_ID) -> None:
        """`secret`: one, or several during a rotation; the first one mints, all verify. `purpose`: makes the keys
        different from those for other uses of the same secrets, so a token is valid for one purpose only. `longest`:
        maximum bytes of the name in a token."""
        secrets = several(secret)
        if not secrets or not all(secrets):
            raise ValueError("a token signer needs a secret")
        self._longest = longest
        self._longest_token = 4 * -(-(_HEAD.size + longest + _DIGEST_SIZE) // 3)
        self._keys = [hmac.digest(each.encode(), purpose.encode(), "sha256") for each in secrets]

    def mint(self, call_id: str, expires_at: float) -> str:
        """Makes a token of `[A-Za-z0-9_-]` for a call id of 1 to 128 bytes; `expires_at` is in Unix seconds."""
        name = call_id.encode()
        if not 1 <= len(name) <= self._longest:
            raise ValueError(f"a call id has 1 to {self._longest} bytes")
        if not math.isfinite(expires_at):
            raise ValueError("a token must expire at some time")
        body = _HEAD.pack(_VERSION, expires_at) + name
        return _encode(body + self._digest(body))

    def verify(self, token: str, now: float, extended_until: float | None = None) -> str:
        """Returns the call id of a valid token. `extended_until` can only extend its lifetime.

        Raises TokenInvalid if it is malformed, altered or foreign; TokenExpired at and after its expiry.
        """
        call_id, expires_at = self.peek(token)
        if extended_until is not None:
            expires_at = max(expires_at, extended_until)
        if now >= expires_at:
            raise TokenExpired("this connect_url has expired")
        return call_id

    def peek(self, token: str) -> tuple[str, float]:
        """Returns the call id and expiry of a genuine token, expired or not; else raises TokenInvalid."""
        if len(token) > self._longest_token:
            raise _invalid()
        sealed = _decode(token)
        body, digest = sealed[:-_DIGEST_SIZE], sealed[-_DIGEST_SIZE:]
        known = [hmac.compare_digest(hmac.digest(key, body, "sha256"), digest) for key in self._keys]
        if not any(known) or len(body) <= _HEAD.size:
            raise _invalid()
        version, expires_at = _HEAD.unpack_from(body)
        if version != _VERSION:
            raise _invalid()
        return body[_HEAD.size :].decode(), expires_at

    def _digest(self, body: bytes) -> bytes:
        return hmac.digest(self._keys[0], body, "sha256")

    def fingerprint(self, text: str) -> str:
        """Returns a keyed hash of a text that must not be stored itself; it is equal in all processes."""
        return hmac.digest(self._keys[0], b"fingerprint|" + text.encode("utf-8", "replace"), "sha256").hex()[:32]


def stream_name(call_id: str, stream: int) -> str:
    """Returns the name in the token of a call's stream; for the first stream it is the call id."""
    return call_id if stream == 1 else f"{call_id}:{stream}"


def stream_named(name: str) -> tuple[str, int]:
    """Returns the call id and the number of the stream. Raises TokenInvalid for any other name."""
    call_id, _, number = name.partition(":")
    if not number:
        return call_id, 1
    if not (number.isascii() and number.isdigit() and int(number) > 1):
        raise _invalid()
    return call_id, int(number)


class WebhookKeys:
    """The secret in a connector's webhook URL: `whk_` and 32 characters.

    It is derived from the service's secret, the connector's id and a nonce. The store has the nonce and the key's hash.
    With the secret, the key can be derived again from the nonce, to show the URL. The hash is the index to find the
    connector of a request. A new nonce gives a new key.

    When the service's secret is rotated, the URL stays the same: the nonce is replaced by the key itself, sealed with
    the new secret.
    """

    def __init__(self, secret: str | Sequence[str]) -> None:
        """The newest secret first; older ones are still accepted during a rotation."""
        secrets = several(secret)
        if not secrets or not all(secrets):
            raise ValueError("webhook keys need a secret")
        self._keys = [hmac.digest(each.encode(), _KEY_PURPOSE, "sha256") for each in secrets]
        self._seal = Seal(secrets, _KEY_SEAL_PURPOSE)

    def derive(self, connector_id: str, nonce: str) -> str:
        """Derives the key of a connector: base62, 190 bits."""
        return _derived(self._keys[0], connector_id, nonce)

    def key_of(self, connector: ConnectorEntry) -> str | None:
        """Returns the connector's key; None if it was made with a secret that is not configured (any more)."""
        if connector.key_nonce.startswith(MARK):
            try:
                return self._seal.open(connector.key_nonce.removeprefix(MARK))
            except SealBroken:
                return None
        derived = (_derived(key, connector.id, connector.key_nonce) for key in self._keys)
        return next((key for key in derived if self.hash(key) == connector.key_hash), None)

    def fits(self, connector: ConnectorEntry, key: str) -> bool:
        """Whether this is the connector's key. A key from a secret that is no longer configured is refused, although
        its hash is still stored: somebody who knows the old secret must not get access."""
        mine = self.key_of(connector) or ""
        return bool(mine) and hmac.compare_digest(mine.encode(), key.encode("utf-8", "surrogatepass"))

    def resealed(self, connector: ConnectorEntry) -> ConnectorEntry | None:
        """Returns the connector with the same key, sealed with the newest secret; None if nothing has to change or the
        key cannot be recovered."""
        key, kept = self.key_of(connector), connector.key_nonce
        if key is None:
            return None
        if kept.startswith(MARK):
            current = self._seal.is_current(kept.removeprefix(MARK))
        else:
            current = self.derive(connector.id, kept) == key
        return None if current else replace(connector, key_nonce=MARK + self._seal.close(key))

    def call_ids(self, connector_id: str, carrier_call_id: str) -> list[str]:
        """Returns our call ids for a carrier's call. The first id is equal for repeated webhooks and in all processes,
        and cannot be guessed. The others are the ids in processes that still use the older secrets."""
        name = f"call|{connector_id}|{carrier_call_id}".encode("utf-8", "surrogatepass")
        return ["call_" + hmac.digest(key, name, "sha256").hex()[:24] for key in self._keys]

    def call_id(self, connector_id: str, carrier_call_id: str) -> str:
        """The first of `call_ids`."""
        return self.call_ids(connector_id, carrier_call_id)[0]

    @staticmethod
    def hash(key: str) -> str:
        """SHA-256, hexadecimal. Keys are long and random, so a slow password hash is not needed."""
        return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()


def _derived(secret: bytes, connector_id: str, nonce: str) -> str:
    digest = hmac.digest(secret, f"{connector_id}|{nonce}".encode(), "sha256")
    number, characters = int.from_bytes(digest, "big"), []
    for _ in range(_KEY_LENGTH):
        number, index = divmod(number, len(_BASE62))
        characters.append(_BASE62[index])
    return _KEY_PREFIX + "".join(characters)


def _encode(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _decode(token: str) -> bytes:
    try:
        data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
    except ValueError:
        raise _invalid() from None
    # The decoder skips foreign characters and ignores unused bits of the last one: accept only the canonical encoding.
    if _encode(data) != token:
        raise _invalid()
    return data


def _invalid() -> TokenInvalid:
    return TokenInvalid("this connect_url was not issued by this connector")
