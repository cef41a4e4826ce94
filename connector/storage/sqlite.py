"""Call records in one SQLite file (WAL), for a single machine."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite

from connector.model import CallFilter, CallRecord, CallState, Direction, EndReason, Provider
from connector.storage.base import EVERY_CALL, StoreError

PATIENCE = 3.0
"""Seconds to wait for another process that writes."""
SCHEMA_VERSION = 1
_MIGRATIONS: dict[int, Sequence[str]] = {
    1: (
        """CREATE TABLE calls (
            call_id TEXT PRIMARY KEY, provider TEXT NOT NULL, direction TEXT NOT NULL, room TEXT NOT NULL,
            identity TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL, created_at REAL NOT NULL,
            carrier_call_id TEXT NOT NULL, from_number TEXT NOT NULL, to_number TEXT NOT NULL,
            started_at REAL NOT NULL, ended_at REAL NOT NULL, end_reason TEXT, end_detail TEXT NOT NULL,
            carrier_status TEXT NOT NULL)""",
        "CREATE INDEX calls_created ON calls (created_at)",
        "CREATE INDEX calls_open ON calls (owner) WHERE end_reason IS NULL",
    ),
}
_COLUMNS = (
    "call_id, provider, direction, room, identity, state, owner, created_at, carrier_call_id, from_number, "
    "to_number, started_at, ended_at, end_reason, end_detail, carrier_status"
)


class SqliteStore:
    """See `connector.storage.base.Store`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._db: aiosqlite.Connection | None = None

    async def open(self) -> None:
        """Open or create the file and bring its schema up to date; a newer schema is refused."""
        async with self._translated():
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Phone numbers are in it. SQLite gives its side files the rights of this one.
            self._path.touch(mode=0o600)
            # Where that fails, aiosqlite leaves a thread behind: so it is tried without.
            sqlite3.connect(self._path).close()
            db = self._db = await aiosqlite.connect(self._path, isolation_level=None)
            try:
                await db.execute(f"PRAGMA busy_timeout = {round(PATIENCE * 1000)}")
                await _write_ahead(db)
                await db.execute("PRAGMA synchronous = NORMAL")
                await self._migrate(db)
            except BaseException:
                await self.close()
                raise

    async def _migrate(self, db: aiosqlite.Connection) -> None:
        await db.execute("BEGIN IMMEDIATE")
        try:
            async with db.execute("PRAGMA user_version") as cursor:
                row = await cursor.fetchone()
            version = int(row[0]) if row else 0
            if version > SCHEMA_VERSION:
                raise StoreError(
                    f"{self._path} has schema {version}, this connector knows {SCHEMA_VERSION}; use a newer connector"
                )
            for step in range(version + 1, SCHEMA_VERSION + 1):
                for statement in _MIGRATIONS[step]:
                    await db.execute(statement)
            await db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        except BaseException:
            await db.execute("ROLLBACK")
            raise
        await db.execute("COMMIT")

    async def close(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            await db.close()

    async def save_call(self, record: CallRecord) -> None:
        names = [name.strip() for name in _COLUMNS.split(",")]
        updates = ", ".join(f"{name} = excluded.{name}" for name in names[1:])
        async with self._database() as db:
            await db.execute(
                f"INSERT INTO calls ({_COLUMNS}) VALUES ({', '.join('?' * len(names))}) "
                f"ON CONFLICT (call_id) DO UPDATE SET {updates} "
                "WHERE calls.end_reason IS NULL OR excluded.end_reason IS NOT NULL",
                _to_row(record),
            )

    async def get_call(self, call_id: str) -> CallRecord | None:
        async with (
            self._database() as db,
            db.execute(f"SELECT {_COLUMNS} FROM calls WHERE call_id = ?", (call_id,)) as cursor,
        ):
            row = await cursor.fetchone()
        return _from_row(row) if row else None

    async def list_calls(self, limit: int = 50, where: CallFilter = EVERY_CALL) -> list[CallRecord]:
        conditions, values = _conditions(where)
        query = f"SELECT {_COLUMNS} FROM calls WHERE {conditions} ORDER BY created_at DESC, call_id LIMIT ?"
        async with self._database() as db, db.execute(query, (*values, limit)) as cursor:
            return [_from_row(row) for row in await cursor.fetchall()]

    async def end_orphans(self, owner: str, now: float) -> int:
        async with self._database() as db:
            cursor = await db.execute(
                "UPDATE calls SET state = ?, ended_at = ?, end_reason = ?, end_detail = ? "
                "WHERE owner = ? AND end_reason IS NULL",
                (
                    CallState.ENDED,
                    now,
                    EndReason.INTERRUPTED,
                    "the process that held the call stopped",
                    owner,
                ),
            )
            return cursor.rowcount

    async def forget_before(self, created_before: float) -> int:
        async with self._database() as db:
            cursor = await db.execute(
                "DELETE FROM calls WHERE created_at < ? AND end_reason IS NOT NULL", (created_before,)
            )
            return cursor.rowcount

    @asynccontextmanager
    async def _database(self) -> AsyncIterator[aiosqlite.Connection]:
        if self._db is None:
            raise StoreError(f"the store {self._path} is not open")
        async with self._translated():
            yield self._db

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError, ValueError) as error:
            raise StoreError(f"the store {self._path} failed: {error}") from error


async def _write_ahead(db: aiosqlite.Connection) -> None:
    """Turn the write-ahead log on. It is the one statement for which SQLite does not wait for its turn by itself:
    processes that make a new store at once would fail."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            await db.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            return


def _conditions(where: CallFilter) -> tuple[str, list[Any]]:
    parts: list[tuple[str, tuple[Any, ...]]] = [("created_at >= ?", (where.created_from,))]
    if where.room:
        parts.append(("room = ?", (where.room,)))
    if where.state is not None:
        parts.append(("state = ?", (where.state.value,)))
    if where.provider is not None:
        parts.append(("provider = ?", (where.provider.value,)))
    if where.created_before is not None:
        parts.append(("created_at < ?", (where.created_before,)))
    if where.after is not None:
        parts.append(("(created_at < ? OR (created_at = ? AND call_id > ?))", (where.after[0], *where.after)))
    return " AND ".join(text for text, _ in parts), [value for _, values in parts for value in values]


def _to_row(record: CallRecord) -> tuple[Any, ...]:
    return (
        record.call_id,
        record.provider.value,
        record.direction.value,
        record.room,
        record.identity,
        record.state.value,
        record.owner,
        record.created_at,
        record.carrier_call_id,
        record.from_number,
        record.to_number,
        record.started_at,
        record.ended_at,
        record.end_reason.value if record.end_reason else None,
        record.end_detail,
        record.carrier_status,
    )


def _from_row(row: Any) -> CallRecord:
    return CallRecord(
        call_id=row[0],
        provider=Provider(row[1]),
        direction=Direction(row[2]),
        room=row[3],
        identity=row[4],
        state=CallState(row[5]),
        owner=row[6],
        created_at=row[7],
        carrier_call_id=row[8],
        from_number=row[9],
        to_number=row[10],
        started_at=row[11],
        ended_at=row[12],
        end_reason=EndReason(row[13]) if row[13] else None,
        end_detail=row[14],
        carrier_status=row[15],
    )
