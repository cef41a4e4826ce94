"""Changes a stored document by optimistic locking: if two people edit it at the same time, no change is lost."""

from __future__ import annotations

from collections.abc import Callable

from connector.errors import Aborted, ConnectorError
from connector.storage.base import Collection, T

TRIES = 10
"""Attempts, each after a concurrent change by somebody else; a person's edit meets at most one."""


async def edited(kept: Collection[T], document_id: str, change: Callable[[T], T], unknown: ConnectorError) -> T:
    """Replaces a document by the result of `change`. Raises `unknown` if it does not exist, Aborted after too many
    concurrent changes, NameTaken, and the errors of `change`."""
    for _ in range(TRIES):
        present = await kept.get(document_id)
        if present is None:
            raise unknown
        changed = change(present)
        if await kept.replace(changed, present):
            return changed
    raise Aborted("it was changed by another request at the same time; read it again and retry")
