"""Seals the secrets in documents before they are written: the private keys that sign webhooks, and PINs.

Older documents contain them as plain text and can still be read; `reseal` of a collection seals them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from connector.model.rule import RoutingRule
from connector.model.webhook import SigningKey
from connector.seal import MARK, Seal, SealBroken, several

T = TypeVar("T")
_PURPOSE = "connector store secrets v1"


class Vault:
    """Seals and opens documents. Without a secret it does neither."""

    def __init__(self, secrets: str | Sequence[str] = ()) -> None:
        self._seal = Seal(several(secrets), _PURPOSE) if secrets else None

    def sealed(self, document: T) -> T:
        """Returns the document with its secret sealed, for writing."""
        secret = _secret_of(document)
        if self._seal is None or not secret or secret.startswith(MARK):
            return document
        return _with_secret(document, MARK + self._seal.close(secret))

    def opened(self, document: T) -> T:
        """Returns the document with its secret opened. If it cannot be opened, it stays sealed and is not a valid PIN
        or key, but the rest of the document can be read and changed."""
        secret = _secret_of(document)
        if self._seal is None or not secret.startswith(MARK):
            return document
        try:
            return _with_secret(document, self._seal.open(secret.removeprefix(MARK)))
        except SealBroken:
            return document

    def is_current(self, document: object) -> bool:
        """Whether the stored document is sealed with the newest secret or cannot be sealed again."""
        secret = _secret_of(document)
        if self._seal is None or not secret:
            return True
        if not secret.startswith(MARK):
            return False
        # A secret that this process cannot open cannot be sealed again.
        return self._seal.is_current(secret.removeprefix(MARK)) or _secret_of(self.opened(document)) == secret


def _secret_of(document: object) -> str:
    match document:
        case SigningKey():
            return document.private_pem
        case RoutingRule(room=room) if room is not None:
            return room.pin
        case _:
            return ""


def _with_secret(document: T, secret: str) -> T:
    changed: Any
    match document:
        case SigningKey():
            changed = replace(document, private_pem=secret)
        case RoutingRule(room=room) if room is not None:
            changed = replace(document, room=replace(room, pin=secret))
        case _:
            changed = document
    return cast(T, changed)
