"""The store in one SQLite file, for a single machine."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from connector.model.call import LIVE_STATES, CallFilter, CallRecord, WaitingCall
from connector.model.connector import ConnectorEntry, SipNumber
from connector.model.rule import PinLock, RoutingRule
from connector.model.webhook import SigningKey, WebhookEndpoint
from connector.storage.base import EVERY_CALL, Page
from connector.storage.rows import COLUMNS, folded, from_row, searched, to_row
from connector.storage.sqlite_deliveries import SqliteDeliveries
from connector.storage.sqlite_documents import SqliteCollection
from connector.storage.sqlite_file import SqliteFile
from connector.storage.sqlite_hang_ups import SqliteHangUps
from connector.storage.sqlite_schema import MIGRATIONS
from connector.storage.vault import Vault

_WRITTEN = (*COLUMNS, "searched")
_SAVE = (
    f"INSERT INTO calls ({', '.join(_WRITTEN)}) VALUES ({', '.join(f':{name}' for name in _WRITTEN)}) "
    f"ON CONFLICT (call_id) DO UPDATE SET {', '.join(f'{name} = excluded.{name}' for name in _WRITTEN[1:])} "
    "WHERE calls.end_reason IS NULL OR excluded.end_reason IS NOT NULL"
)
_ORDER = "ORDER BY created_at DESC, call_id"
_SELECT = f"SELECT {', '.join(COLUMNS)} FROM calls"


class SqliteStore:
    """See `connector.storage.base.Store`."""

    def __init__(self, path: Path, vault: Vault | None = None) -> None:
        self._file = SqliteFile(path, MIGRATIONS)
        self.connectors = SqliteCollection(self._file, "connectors", ConnectorEntry)
        self.rules = SqliteCollection(self._file, "rules", RoutingRule, vault)
        self.endpoints = SqliteCollection(self._file, "endpoints", WebhookEndpoint)
        self.keys = SqliteCollection(self._file, "keys", SigningKey, vault)
        self.waiting = SqliteCollection(self._file, "waiting", WaitingCall)
        self.pin_locks = SqliteCollection(self._file, "pin_locks", PinLock)
        self.sip_numbers = SqliteCollection(self._file, "sip_numbers", SipNumber)
        self.deliveries = SqliteDeliveries(self._file)
        self.hang_ups = SqliteHangUps(self._file)

    async def open(self) -> None:
        await self._file.open()

    async def close(self) -> None:
        await self._file.close()

    async def reseal(self) -> int:
        written = await self.rules.reseal() + await self.keys.reseal()
        if written:
            # The write-ahead log still contains the old, unsealed values until it is truncated.
            await self._file.read(lambda db: db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall())
        return written

    async def save_call(self, record: CallRecord) -> None:
        row = _row(record)
        await self._file.write(lambda db: db.execute(_SAVE, row))

    async def change_call(self, before: CallRecord | None, after: CallRecord) -> bool:
        row = _row(after)

        def work(db: sqlite3.Connection) -> bool:
            if _one(db, after.call_id) != before:
                return False
            db.execute(_SAVE, row)
            return True

        return await self._file.write(work)

    async def end_call(self, record: CallRecord, expected: CallRecord | None = None) -> bool:
        row = _row(record)

        def work(db: sqlite3.Connection) -> bool:
            present = _one(db, record.call_id)
            if present is not None and present.end_reason is not None:
                return bool(record.end_id) and present.end_id == record.end_id
            if expected is not None and present != expected:
                return False
            db.execute(_SAVE, row)
            return True

        return await self._file.write(work)

    async def get_call(self, call_id: str) -> CallRecord | None:
        return await self._file.read(lambda db: _one(db, call_id))

    async def list_calls(self, limit: int = 50, where: CallFilter = EVERY_CALL) -> list[CallRecord]:
        conditions, values = _conditions(where)
        query = f"{_SELECT} WHERE {conditions} {_ORDER} LIMIT ?"
        await self._complete()
        return await self._file.read(lambda db: _select(db, query, (*values, limit)))

    async def page_calls(self, offset: int, limit: int, where: CallFilter = EVERY_CALL) -> Page[CallRecord]:
        conditions, values = _conditions(where)
        # The inner SELECT reads only the index, even if the page is far from the beginning.
        page = f"SELECT call_id FROM calls WHERE {conditions} {_ORDER} LIMIT ? OFFSET ?"
        query = f"{_SELECT} WHERE call_id IN ({page}) {_ORDER}"

        def work(db: sqlite3.Connection) -> Page[CallRecord]:
            found = _select(db, query, (*values, limit, offset))
            if 0 < len(found) < limit or (not found and not offset):
                return Page(found, offset + len(found))
            return Page(found, db.execute(f"SELECT count(*) FROM calls WHERE {conditions}", values).fetchone()[0])

        await self._complete()
        return await self._file.read(work)

    async def _complete(self) -> None:
        """Fills the `searched` column: an earlier version that still runs during an upgrade does not write it."""
        # Without the name of the index, SQLite reads all of a larger one: 3 ms among 20,000 records.
        query = "SELECT 1 FROM calls INDEXED BY calls_unsearched WHERE searched IS NULL LIMIT 1"
        if await self._file.read(lambda db: db.execute(query).fetchone()):
            update = "UPDATE calls SET searched = folded(room, from_number, to_number) WHERE searched IS NULL"
            await self._file.write(lambda db: db.execute(update))

    async def renew_lease(self, owner: str, at: float, address: str = "", draining: bool = False) -> None:
        query = "REPLACE INTO leases (owner, renewed_at, address, draining) VALUES (?, ?, ?, ?)"
        await self._file.write(lambda db: db.execute(query, (owner, at, address, int(draining))))

    async def leases(self) -> dict[str, float]:
        return dict(await self._file.read(lambda db: db.execute("SELECT owner, renewed_at FROM leases").fetchall()))

    async def draining(self) -> set[str]:
        query = "SELECT owner FROM leases WHERE draining"
        return {owner for (owner,) in await self._file.read(lambda db: db.execute(query).fetchall())}

    async def address_of(self, owner: str) -> str:
        query = "SELECT address FROM leases WHERE owner = ?"
        row = await self._file.read(lambda db: db.execute(query, (owner,)).fetchone())
        return str(row[0]) if row else ""

    async def drop_lease(self, owner: str, renewed_at: float | None = None) -> bool:
        query = "DELETE FROM leases WHERE owner = ? AND renewed_at = coalesce(?, renewed_at)"
        return await self._file.write(lambda db: db.execute(query, (owner, renewed_at)).rowcount == 1)

    async def weaknesses(self) -> list[tuple[str, str]]:
        return []

    async def forget_before(self, created_before: float) -> int:
        query = "DELETE FROM calls WHERE created_at < ? AND end_reason IS NOT NULL"
        return await self._file.write(lambda db: db.execute(query, (created_before,)).rowcount)


def _row(record: CallRecord) -> dict[str, str | float | None]:
    return to_row(record) | {"searched": folded(*searched(record))}


def _one(db: sqlite3.Connection, call_id: str) -> CallRecord | None:
    records = _select(db, f"{_SELECT} WHERE call_id = ?", (call_id,))
    return records[0] if records else None


def _select(db: sqlite3.Connection, query: str, values: tuple[Any, ...]) -> list[CallRecord]:
    return [from_row(dict(zip(COLUMNS, row, strict=True))) for row in db.execute(query, values)]


def _conditions(where: CallFilter) -> tuple[str, list[Any]]:
    """`connector.storage.rows.admits` in SQL."""
    parts: list[tuple[str, tuple[Any, ...]]] = []
    if where.created_from:
        parts.append(("created_at >= ?", (where.created_from,)))
    for column, wanted in (
        ("call_id", where.id),
        ("room", where.room),
        ("rule_id", where.rule_id),
        ("connector_id", where.connector_id),
        ("owner", where.owner),
        ("state", where.state),
        ("provider", where.provider),
        ("direction", where.direction),
    ):
        if wanted:
            parts.append((f"{column} = ?", (str(wanted),)))
    if where.state in LIVE_STATES:
        parts.append(("end_reason IS NULL", ()))
    if where.text:
        parts.append(("(instr(lower(call_id), ?) OR instr(searched, ?))", (where.text.lower(),) * 2))
    if where.search:
        parts.append(("instr(searched, ?)", (where.search.lower(),)))
    if where.created_before is not None:
        parts.append(("created_at < ?", (where.created_before,)))
    if where.after is not None:
        parts.append(("(created_at < ? OR (created_at = ? AND call_id > ?))", (where.after[0], *where.after)))
    return " AND ".join(("TRUE", *(text for text, _ in parts))), [value for _, values in parts for value in values]
