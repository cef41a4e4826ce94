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
from collections.abc import Sequence
from dataclasses import replace

from connector.errors import TokenExpired, TokenInvalid
from connector.model import ConnectorEntry
from connector.seal import MARK, Seal, SealBroken, several

_PURPOSE = "connector connect_url token v1"
SAY_PURPOSE = "connector say url token v1"
"""Of an address whose document reads out the sentence that its token holds, and hangs up."""
TRANSFER_PURPOSE = "connector transfer url token v1"
"""Of the addresses at which a carrier tells what became of a transfer."""
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
    """Mints and verifies tokens; all processes with the same secret accept each other's."""

    def __init__(self, secret: str | Sequence[str], purpose: str = _PURPOSE, longest: int = _LONGEST_CALL_ID) -> None:
        """Of several secrets the first mints, and any verifies: the others are being rotated. `purpose` sets the keys
        apart from any other use of the same secrets: tokens of one are foreign to others. `longest`: bytes of what a
        token can name."""
        secrets = several(secret)
        if not secrets or not all(secrets):
            raise ValueError("a token signer needs a secret")
        self._longest = longest
        self._longest_token = 4 * -(-(_HEAD.size + longest + _DIGEST_SIZE) // 3)
        self._keys = [hmac.digest(each.encode(), purpose.encode(), "sha256") for each in secrets]

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
        """Stands for a text that is not to be kept as it is: the same one in every process."""
        return hmac.digest(self._keys[0], b"fingerprint|" + text.encode("utf-8", "replace"), "sha256").hex()[:32]


def stream_name(call_id: str, stream: int) -> str:
    """What the token of one of a call's streams says: the first is the call's own id."""
    return call_id if stream == 1 else f"{call_id}:{stream}"


def stream_named(name: str) -> tuple[str, int]:
    """The call and the number of the stream. TokenInvalid when it names none."""
    call_id, _, number = name.partition(":")
    if not number:
        return call_id, 1
    if not (number.isascii() and number.isdigit() and int(number) > 1):
        raise _invalid()
    return call_id, int(number)


class WebhookKeys:
    """The secret in a connector's webhook URL: `whk_` and 32 characters.

    It is derived from the service's secret, the connector's id and a nonce. What is stored is the nonce, from which
    only who has the secret gets the key again (so that the URL can be shown), and the key's hash, by which a request's
    connector is found. A new nonce is a new key.

    When the service's secret is rotated, the URL stays: what stands in the nonce's place is then the key itself, sealed
    with the new secret.
    """

    def __init__(self, secret: str | Sequence[str]) -> None:
        """The newest secret first; those behind it are being rotated."""
        secrets = several(secret)
        if not secrets or not all(secrets):
            raise ValueError("webhook keys need a secret")
        self._keys = [hmac.digest(each.encode(), _KEY_PURPOSE, "sha256") for each in secrets]
        self._seal = Seal(secrets, _KEY_SEAL_PURPOSE)

    def derive(self, connector_id: str, nonce: str) -> str:
        """The key of a connector: base62, 190 bits."""
        return _derived(self._keys[0], connector_id, nonce)

    def key_of(self, connector: ConnectorEntry) -> str | None:
        """The connector's key; None when it was made with a secret that is not configured (any more)."""
        if connector.key_nonce.startswith(MARK):
            try:
                return self._seal.open(connector.key_nonce.removeprefix(MARK))
            except SealBroken:
                return None
        derived = (_derived(key, connector.id, connector.key_nonce) for key in self._keys)
        return next((key for key in derived if self.hash(key) == connector.key_hash), None)

    def fits(self, connector: ConnectorEntry, key: str) -> bool:
        """Whether this is the connector's key. One that was made with another secret than the configured ones is not,
        though its hash is still kept: who knows that secret must not get in."""
        mine = self.key_of(connector) or ""
        return bool(mine) and hmac.compare_digest(mine.encode(), key.encode("utf-8", "surrogatepass"))

    def resealed(self, connector: ConnectorEntry) -> ConnectorEntry | None:
        """The connector with the same key under the newest secret; None when it is so already, or nobody can say what
        its key is."""
        key, kept = self.key_of(connector), connector.key_nonce
        if key is None:
            return None
        if kept.startswith(MARK):
            current = self._seal.is_current(kept.removeprefix(MARK))
        else:
            current = self.derive(connector.id, kept) == key
        return None if current else replace(connector, key_nonce=MARK + self._seal.close(key))

    def call_ids(self, connector_id: str, carrier_call_id: str) -> list[str]:
        """The id of the call that a carrier announces to a connector: the same however often it does, on every
        process, and nobody else can guess it. Behind it the ids that processes with the secrets before give it."""
        name = f"call|{connector_id}|{carrier_call_id}".encode("utf-8", "surrogatepass")
        return ["call_" + hmac.digest(key, name, "sha256").hex()[:24] for key in self._keys]

    def call_id(self, connector_id: str, carrier_call_id: str) -> str:
        """The first of `call_ids`."""
        return self.call_ids(connector_id, carrier_call_id)[0]

    @staticmethod
    def hash(key: str) -> str:
        """SHA-256, hexadecimal. Keys are long and random: nothing slower is needed to keep them from being guessed."""
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
    # The decoder skips foreign characters, and the last one has bits that carry nothing: only one spelling is good.
    if _encode(data) != token:
        raise _invalid()
    return data


def _invalid() -> TokenInvalid:
    return TokenInvalid("this connect_url is not one of ours")
