"""An empty store of SQLite, for as long as a test lasts."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from connector.storage.sqlite import SqliteStore


@asynccontextmanager
async def empty_store() -> AsyncIterator[SqliteStore]:
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "connector.db")
        await store.open()
        try:
            yield store
        finally:
            await store.close()
