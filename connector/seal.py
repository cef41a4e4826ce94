"""Secrets that are kept where others may read: sealed (AES-CBC and HMAC-SHA256, Fernet) with a key derived from the
service's own secret. While that is rotated, what the secret before has sealed can still be opened."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from connector.errors import Internal

MARK = "sealed:"
"""Before a sealed text, where there may be a plain one too."""


class SealBroken(Internal):
    """The text was sealed with a secret that is not configured (any more)."""


class Seal:
    """`secrets`: the newest first. What it seals can be opened by every process with one of them."""

    def __init__(self, secrets: Sequence[str], purpose: str) -> None:
        """`purpose` sets the keys apart from any other use of the same secrets."""
        if not secrets or not all(secrets):
            raise ValueError("a seal needs a secret")
        boxes = [Fernet(_key(secret, purpose)) for secret in secrets]
        self._newest = boxes[0]
        self._any = MultiFernet(boxes)

    def close(self, text: str) -> str:
        """The text, sealed with the newest secret; each time another one."""
        return self._newest.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        try:
            return self._any.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise SealBroken("it was sealed with a secret that is not configured") from None

    def is_current(self, sealed: str) -> bool:
        """Whether the newest secret alone opens it."""
        try:
            self._newest.decrypt(sealed.encode())
        except InvalidToken:
            return False
        return True


def is_sealed(secret: str) -> bool:
    """Of a secret of a document that the store gave: nobody here can open it."""
    return secret.startswith(MARK)


def several(secret: str | Sequence[str]) -> tuple[str, ...]:
    """One secret, or several with the newest first."""
    return (secret,) if isinstance(secret, str) else tuple(secret)


def _key(secret: str, purpose: str) -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), purpose.encode(), "sha256"))
