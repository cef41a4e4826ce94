"""From the address in the configuration to the store."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from connector.storage.base import Store
from connector.storage.sqlite import SqliteStore


def store_at(url: str) -> Store:
    """The store at `sqlite:///path` or `redis[s]://[[user]:password@]host[:port][/db]`, not yet opened. The URL was
    checked with the rest of the settings."""
    if url.startswith("sqlite:///"):
        return SqliteStore(Path(url.removeprefix("sqlite:///")))
    # Only where it is needed: its client takes longer to import than most commands take to run.
    from connector.storage.redis import RedisStore

    return RedisStore(url)


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[Store]:
    """The same, for as long as the block lasts. Raises StoreError."""
    store = store_at(url)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
