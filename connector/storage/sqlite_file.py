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
"""Seconds to wait for another process that writes."""

R = TypeVar("R")


class _Worker:
    """One connection and the one thread that uses it."""

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
    """Work is a plain function of a connection, and runs whole in a thread of the file's own: the event loop never
    waits for a disk, two tasks cannot get into one transaction, and one that is cancelled leaves none open.

    Reads have a connection and a thread for themselves: in WAL mode they need not wait for a write, of this process or
    another, and see all that was committed when they begin."""

    def __init__(self, path: Path, migrations: Mapping[int, Sequence[str]]) -> None:
        """`migrations`: the statements that lead to each version of the schema from the one before."""
        self._path = path
        self._migrations = migrations
        self._writer = _Worker("sqlite")
        self._reader = _Worker("sqlite read")

    async def open(self) -> None:
        """Open or create the file and bring its schema up to date; a newer schema is refused."""
        try:
            await self._translated(self._writer.open(self._open_to_write))
            await self._translated(self._reader.open(self._open_to_read))
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        # The writer last: whoever closes last tidies the write-ahead log up.
        await self._reader.close()
        await self._writer.close()

    async def read(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run one SELECT, or several that need not agree with each other."""
        return await self._run(self._reader, work)

    async def write(self, work: Callable[[sqlite3.Connection], R]) -> R:
        """Run it as one transaction, alone among all processes; what it raises undoes it."""

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
        # Phone numbers are in it. SQLite gives its side files the rights of this one.
        self._path.touch(mode=0o600)
        db = sqlite3.connect(self._path, isolation_level=None, timeout=PATIENCE)
        try:
            _write_ahead(db)
            db.execute("PRAGMA synchronous = NORMAL")
            # What is deleted or written anew is overwritten: a PIN that was plain must not stay in a free page.
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
