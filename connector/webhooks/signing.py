"""The RSA keys that sign deliveries: created on first start, kept in the store, rotated with an overlap.

A signature is RSASSA-PKCS1-v1_5 with SHA-256 over the raw body, in base64, as in VideoSDK's webhooks and as
`webhooks.verify` of npm `@videosdk.live/server-sdk` checks it.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import ParamSpec, Protocol, TypeVar

import structlog
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from connector.errors import ConnectorError, Internal
from connector.model.webhook import SigningKey
from connector.seal import is_sealed
from connector.webhooks.protocols import Keys

log = structlog.get_logger()

P = ParamSpec("P")
R = TypeVar("R")

SIGNATURE = "videosdk-signature"
RETIRED_SIGNATURE = "videosdk-signature-retired"
"""Header with the signature by the previous key, during the overlap."""
OVERLAP = 7 * 86400.0
"""Seconds for which a retired key still signs beside the new one."""
KEY_BITS = 2048
_CANNOT_OPEN = (
    "it was sealed with another secret; set CONNECTOR_SECRET_PREVIOUS to that one, or make a new key with "
    "`connector webhooks revoke-key`"
)


class Away(Protocol):
    """Runs a function outside the event loop; see `asyncio.to_thread`."""

    def __call__(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Awaitable[R]: ...


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key as consumers see it. Times are Unix seconds; the key in use has `retired_at` 0.0."""

    id: str
    pem: str
    created_at: float
    retired_at: float


class KeyRing:
    """The signing keys. All processes that share the store sign with the same key. Each reads it from the store every
    time, so a rotation by one process takes effect in all of them immediately."""

    def __init__(self, keys: Keys, clock: Callable[[], float] = time.time, away: Away = asyncio.to_thread) -> None:
        """`away`: runs signing and key parsing outside the event loop, which carries audio."""
        self._keys = keys
        self._clock = clock
        self._away = away
        self._loaded: dict[str, rsa.RSAPrivateKey] = {}
        self._signed_with = ""
        self._turn = asyncio.Lock()

    async def open(self) -> None:
        """Create the first key if there is none. If several processes try, the key of one is kept."""
        for key in await self._signing():
            if is_sealed(key.private_pem):
                log.warning("the webhook signing key cannot be opened: deliveries wait", key=key.id, why=_CANNOT_OPEN)

    async def headers(self, body: bytes) -> dict[str, str]:
        """The signature headers of a delivery."""
        signing = await self._signing()
        if self._signed_with not in ("", signing[0].id):
            log.warning("webhooks are signed with another key from now on", key=signing[0].id)
        self._signed_with = signing[0].id
        signed = {}
        for header, key in zip((SIGNATURE, RETIRED_SIGNATURE), signing, strict=False):
            # A millisecond each: concurrent signatures take turns.
            async with self._turn:
                signed[header] = await self._away(self._sign, key, body)
        return signed

    async def published(self) -> list[PublicKey]:
        """The keys that sign: the one in use, then the one retired last if the overlap still lasts."""
        return [await self._public(key) for key in await self._signing()]

    async def rotate(self) -> PublicKey:
        """Sign with a new key from now on, and with the present one beside it until the overlap is over."""
        present = (await self._signing())[0]
        # Created before the present key is retired, to keep the time without a key short.
        fresh = await asyncio.to_thread(_new_key, self._clock())
        await self._keys.replace(replace(present, retired_at=self._clock()))
        return await self._put_in_use(fresh)

    async def revoke(self) -> PublicKey:
        """Delete all keys and sign with a new key only: for a key that may be compromised."""
        fresh = await asyncio.to_thread(_new_key, self._clock())
        for key in await self._keys.list():
            await self._keys.delete(key.id)
        return await self._put_in_use(fresh)

    async def forget_retired(self) -> int:
        """Delete the keys that no longer sign; returns their number."""
        signing = {key.id for key in await self._signing()}
        gone = [key for key in await self._keys.list() if key.retired_at and key.id not in signing]
        return sum([await self._keys.delete(key.id) for key in gone])

    async def _put_in_use(self, fresh: SigningKey) -> PublicKey:
        signing = await self._signing(fresh)
        return await self._public(signing[0])

    async def _signing(self, fresh: SigningKey | None = None) -> list[SigningKey]:
        """One or two keys, the one in use first. If none is in use, `fresh` or a new one is stored."""
        keys = await self._keys.list()
        if all(key.retired_at for key in keys):
            if fresh is None:
                fresh = await asyncio.to_thread(_new_key, self._clock())
            try:
                await self._keys.insert(fresh)
            except ConnectorError:
                keys = await self._keys.list()
                if all(key.retired_at for key in keys):
                    raise
                # Another process was first: use its key.
            else:
                keys = [fresh, *keys]
        in_use = next(key for key in keys if not key.retired_at)
        retired = max((key for key in keys if key.retired_at), key=lambda key: key.retired_at, default=None)
        if retired is None or retired.retired_at + OVERLAP <= self._clock():
            return [in_use]
        return [in_use, retired]

    async def _public(self, key: SigningKey) -> PublicKey:
        async with self._turn:
            pem = await self._away(lambda: _public_pem(self._load(key)))
        return PublicKey(key.id, pem, key.created_at, key.retired_at)

    def _sign(self, key: SigningKey, body: bytes) -> str:
        signature = self._load(key).sign(body, padding.PKCS1v15(), hashes.SHA256())
        return base64.b64encode(signature).decode()

    def _load(self, key: SigningKey) -> rsa.RSAPrivateKey:
        loaded = self._loaded.get(key.id)
        if loaded is None:
            if is_sealed(key.private_pem):
                raise Internal(f"the webhook signing key cannot be opened: {_CANNOT_OPEN}")
            parsed = serialization.load_pem_private_key(key.private_pem.encode(), password=None)
            assert isinstance(parsed, rsa.RSAPrivateKey)
            # Keep only the latest other key: keys deleted from the store are not needed again.
            self._loaded = dict(list(self._loaded.items())[-1:])
            loaded = self._loaded[key.id] = parsed
        return loaded


def _new_key(now: float) -> SigningKey:
    """Takes 100 ms or more: must not run on the event loop."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return SigningKey(id="key_" + secrets.token_hex(8), private_pem=pem.decode(), created_at=now)


def _public_pem(private: rsa.RSAPrivateKey) -> str:
    return (
        private.public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
