"""What of a document is a secret, and is sealed before it is written: the private keys that sign webhooks, and PINs.

Documents from before are plain, and are read as they are; `reseal` of a collection writes them anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

from connector.model import RoutingRule, SigningKey
from connector.seal import MARK, Seal, SealBroken, several

T = TypeVar("T")
_PURPOSE = "connector store secrets v1"


class Vault:
    """Without a secret it seals nothing, and leaves what is sealed as it is."""

    def __init__(self, secrets: str | Sequence[str] = ()) -> None:
        self._seal = Seal(several(secrets), _PURPOSE) if secrets else None

    def sealed(self, document: T) -> T:
        """As it is written."""
        secret = _secret_of(document)
        if self._seal is None or not secret or secret.startswith(MARK):
            return document
        return _with_secret(document, MARK + self._seal.close(secret))

    def opened(self, document: T) -> T:
        """As it was before it was written. A secret that cannot be opened stays sealed, which fits no PIN and is no
        key: the rest of the document can still be read, and changed."""
        secret = _secret_of(document)
        if self._seal is None or not secret.startswith(MARK):
            return document
        try:
            return _with_secret(document, self._seal.open(secret.removeprefix(MARK)))
        except SealBroken:
            return document

    def is_current(self, document: object) -> bool:
        """Whether this, as it was written, need not be written anew."""
        secret = _secret_of(document)
        if self._seal is None or not secret:
            return True
        if not secret.startswith(MARK):
            return False
        # What nobody here can open cannot be written otherwise either.
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
