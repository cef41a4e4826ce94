"""A change of what is stored, made to the newest version: of two people who edit at once, neither loses a field."""

from __future__ import annotations

from collections.abc import Callable

from connector.errors import Aborted, ConnectorError
from connector.storage.base import Collection, T

TRIES = 10
"""Each time somebody else was quicker; a person who edits meets one such at most."""


async def edited(kept: Collection[T], document_id: str, change: Callable[[T], T], unknown: ConnectorError) -> T:
    """Replace a document by what `change` makes of it. Raises `unknown` when there is none, Aborted when it was
    changed by others again and again, NameTaken, and what `change` raises."""
    for _ in range(TRIES):
        present = await kept.get(document_id)
        if present is None:
            raise unknown
        changed = change(present)
        if await kept.replace(changed, present):
            return changed
    raise Aborted("others changed it at the same time; read it and try again")
