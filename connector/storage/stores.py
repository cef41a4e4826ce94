"""Makes the store for the URL in the configuration."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from connector.config import Settings
from connector.storage.base import DEFAULT_PREFIX, Store
from connector.storage.sqlite import SqliteStore
from connector.storage.vault import Vault


def store_of(settings: Settings) -> Store:
    """The configured store, not yet opened."""
    return store_at(settings.store, Vault(settings.own_secrets), settings.redis_prefix)


def store_at(url: str, vault: Vault | None = None, redis_prefix: str = DEFAULT_PREFIX) -> Store:
    """The store at `sqlite:///path` or `redis[s]://[[user]:password@]host[:port][/db]`, not yet opened. The URL was
    checked with the rest of the settings."""
    if url.startswith("sqlite:///"):
        return SqliteStore(Path(url.removeprefix("sqlite:///")), vault)
    # Imported only if needed: importing the Redis client takes longer than most commands.
    from connector.storage.redis import RedisStore

    return RedisStore(url, vault, redis_prefix)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Store]:
    """The same, for as long as the block lasts. Raises StoreError."""
    store = store_of(settings)
    try:
        await store.open()
        yield store
    finally:
        await store.close()
