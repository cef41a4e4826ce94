"""Encryption of secrets in a store that others may read: Fernet (AES-CBC and HMAC-SHA256) with a key derived from the
service's own secret. During rotation, texts sealed with the previous secret can still be opened."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence

from cryptography.fernet import Fernet, InvalidToken, MultiFernet

from connector.errors import Internal

MARK = "sealed:"
"""Prefix of a sealed text in places where plain text is possible too."""


class SealBroken(Internal):
    """The text was sealed with a secret that is not, or no longer, configured."""


class Seal:
    """Seals with the newest of `secrets` (the first). Every process that has this secret can open the text."""

    def __init__(self, secrets: Sequence[str], purpose: str) -> None:
        """`purpose` makes the keys differ from those for other uses of the same secrets."""
        if not secrets or not all(secrets):
            raise ValueError("a seal needs a secret")
        boxes = [Fernet(_key(secret, purpose)) for secret in secrets]
        self._newest = boxes[0]
        self._any = MultiFernet(boxes)

    def close(self, text: str) -> str:
        """Seals `text` with the newest secret; the result differs each time."""
        return self._newest.encrypt(text.encode()).decode()

    def open(self, sealed: str) -> str:
        try:
            return self._any.decrypt(sealed.encode()).decode()
        except InvalidToken:
            raise SealBroken("it was sealed with a secret that is not configured") from None

    def is_current(self, sealed: str) -> bool:
        """Whether the text was sealed with the newest secret."""
        try:
            self._newest.decrypt(sealed.encode())
        except InvalidToken:
            return False
        return True


def is_sealed(secret: str) -> bool:
    """Whether a secret read from the store is still sealed, i.e. this process could not open it."""
    return secret.startswith(MARK)


def several(secret: str | Sequence[str]) -> tuple[str, ...]:
    """Returns one or several secrets as a tuple; the newest is the first."""
    return (secret,) if isinstance(secret, str) else tuple(secret)


def _key(secret: str, purpose: str) -> bytes:
    return base64.urlsafe_b64encode(hmac.digest(secret.encode(), purpose.encode(), "sha256"))
