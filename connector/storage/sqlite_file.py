"""One SQLite file (WAL), its schema, and the one thread that uses it."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from connector.storage.base import StoreError, StoreTooNew
from connector.storage.rows import contains

PATIENCE = 3.0
"""Seconds to wait for another process that writes."""

R = TypeVar("R")


class SqliteFile:
    """Work is a plain function of the connection, and runs whole in the file's own thread: the event loop never
    waits for a disk, two tasks cannot get into one transaction, and one that is cancelled leaves none open."""

    def __init__(self, path: Path, migrations: Mapping[int, Sequence[str]]) -> None:
        """`migrations`: the statements that lead to each version of the schema from the one before."""
        self._path = path
        self._migrations = migrations
        self._db: sqlite3.Connection | None = None
        self._thread: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        """Open or create the file and bring its schema up to date; a newer schema is refused."""
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="sqlite")
        try:
            await self._in_thread(self._open)
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        thread, self._thread = self._thread, None
        if thread is not None:
            await asyncio.get_running_loop().run_in_executor(thread, self._close)
            thread.shutdown(wait=False)

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run one SELECT, or several that need not agree with each other."""
        return await self._in_thread(lambda: work(self._connection()))

    async def write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run it as one transaction, alone among all processes; what it raises undoes it."""

        def transaction() -> R:
            with _transaction(self._connection()) as db:
                return work(db)

        return await self._in_thread(transaction)

    def _connection(self) -> sqlite3.Connection:
        assert self._db is not None
        return self._db

    async def _in_thread(self, work: Callable[[], R]) -> R:
        if self._thread is None:
            raise StoreError(f"the store {self._path} is not open")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except (sqlite3.Error, OSError, ValueError, KeyError) as error:
            raise StoreError(f"the store {self._path} failed: {error}") from error

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Phone numbers are in it. SQLite gives its side files the rights of this one.
        self._path.touch(mode=0o600)
        db = self._db = sqlite3.connect(self._path, isolation_level=None, timeout=PATIENCE)
        _write_ahead(db)
        db.execute("PRAGMA synchronous = NORMAL")
        db.create_function("contains", 2, contains, deterministic=True)
        self._migrate(db)

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

    def _close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            db.close()


@contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield db
        db.execute("COMMIT")
    except BaseException:
        # Some errors (a full disk) have rolled back already.
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _write_ahead(db: sqlite3.Connection) -> None:
    """Turn the write-ahead log on. It is the one statement for which SQLite does not wait for its turn by itself:
    processes that make a new store at once would fail."""
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
