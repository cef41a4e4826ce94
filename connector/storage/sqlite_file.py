"""One SQLite file (WAL), its schema, and the two threads that use it: one writes, one reads."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from connector.storage.base import StoreError, StoreTooNew
from connector.storage.rows import folded

PATIENCE = 3.0
"""Seconds to wait for a write of another process."""

R = TypeVar("R")


class _Worker:
    """One connection and the single thread that uses it."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: ThreadPoolExecutor | None = None
        self._db: sqlite3.Connection | None = None

    @property
    def is_open(self) -> bool:
        return self._thread is not None

    async def open(self, connect: Callable[[], sqlite3.Connection]) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=self._name)
        self._db = await asyncio.get_running_loop().run_in_executor(self._thread, connect)

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._disconnect)
            thread.shutdown(wait=False)

    def _disconnect(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()

    async def run(self, work: Callable[[sqlite3.Connection], R]) -> R:
        assert self._thread is not None
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._work, work)

    def _work(self, work: Callable[[sqlite3.Connection], R]) -> R:
        assert self._db is not None
        return work(self._db)


class SqliteFile:
    """Runs plain functions of a connection in its own threads. So the event loop never waits for the disk, two tasks
    cannot share a transaction, and a cancelled task leaves no transaction open.

    Reads have a separate connection and thread: in WAL mode they do not wait for writes of this or another process,
    and they see everything that was committed before they begin."""

    def __init__(self, path: Path, migrations: Mapping[int, Sequence[str]]) -> None:
        """`migrations`: version of the schema -> statements that upgrade from the previous version."""
        self._path = path
        self._migrations = migrations
        self._writer = _Worker("sqlite")
        self._reader = _Worker("sqlite read")

    async def open(self) -> None:
        """Opens or creates the file and upgrades its schema; a newer schema is refused."""
        try:
            await self._translated(self._writer.open(self._open_to_write))
            await self._translated(self._reader.open(self._open_to_read))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        # The writer last: the last connection to close cleans up the write-ahead log.
        await self._reader.close()
        await self._writer.close()

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Runs one SELECT, or several that need not be consistent with each other."""
        return await self._run(self._reader, work)

    async def write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Runs it as one transaction, with the write lock for all processes; an exception rolls it back."""

        def transaction(db: sqlite3.Connection) -> R:
            with _transaction(db):
                return work(db)

        return await self._run(self._writer, transaction)

    async def _run(self, worker: _Worker, work: Callable[[sqlite3.Connection], R]) -> R:
        if not worker.is_open:
            raise StoreError(f"the store {self._path} is not open")
        return await self._translated(worker.run(work))

    async def _translated(self, step: Awaitable[R]) -> R:
        try:
            return await step
        except (sqlite3.Error, OSError, ValueError, KeyError) as error:
            raise StoreError(f"the store {self._path} failed: {error}") from error

    def _open_to_write(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # The file contains phone numbers. SQLite creates its side files with the same permissions.
        self._path.touch(mode=0o600)
        db = sqlite3.connect(self._path, isolation_level=None, timeout=PATIENCE)
        try:
            _write_ahead(db)
            db.execute("PRAGMA synchronous = NORMAL")
            # Deleted data is overwritten: a PIN from before the encryption must not remain in a free page.
            db.execute("PRAGMA secure_delete = ON")
            db.create_function("folded", 3, folded, deterministic=True)
            self._migrate(db)
        except BaseException:
            db.close()
            raise
        return db

    def _open_to_read(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, timeout=PATIENCE)
        db.execute("PRAGMA query_only = ON")
        return db

    def _migrate(self, db: sqlite3.Connection) -> None:
        newest = max(self._migrations)
        with _transaction(db):
            version = int(db.execute("PRAGMA user_version").fetchone()[0])
            if version > newest:
                raise StoreTooNew(
                    f"{self._path} has schema {version}, this connector knows {newest}; use a newer connector"
                )
            for step in range(version + 1, newest + 1):
                for statement in self._migrations[step]:
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {newest}")


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        # After some errors (a full disk), SQLite has already rolled back.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _write_ahead(db: sqlite3.Connection) -> None:
    """Turns the write-ahead log on. SQLite's own timeout for locks does not apply to this statement; without the retry,
    processes that create a new store at the same time would fail."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
        else:
            return
