"""The webhook queue and its log, in the SQLite file."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection as Several
from collections.abc import Sequence
from typing import Any

from connector.model.webhook import Attempt, Delivery, LifecycleEvent
from connector.storage.sqlite_file import SqliteFile

_DELIVERY = "id, endpoint_id, call_id, event, body, created_at, due_at, attempts"
_ATTEMPT = "delivery_id, endpoint_id, call_id, event, number, at, seconds, status, error"

_NOT_BUSY = "endpoint_id NOT IN (SELECT value FROM json_each(?))"


class SqliteDeliveries:
    """See `connector.storage.base.DeliveryQueue`. A line is the deliveries that wait for one endpoint and one call;
    only the first one has a due time."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file

    async def put(self, deliveries: Sequence[Delivery]) -> None:
        def work(db: sqlite3.Connection) -> None:
            for delivery in deliveries:
                queued = db.execute(
                    f"INSERT OR IGNORE INTO deliveries ({_DELIVERY}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)", _row(delivery)
                )
                if queued.rowcount:
                    _let_first_go(db, delivery.endpoint_id, delivery.call_id)

        await self._file.write(work)

    async def take(self, now: float, leased_until: float, limit: int, busy: Several[str] = ()) -> list[Delivery]:
        def work(db: sqlite3.Connection) -> list[Any]:
            rows = db.execute(
                f"SELECT {_DELIVERY} FROM deliveries WHERE takeable_at <= ? AND {_NOT_BUSY} "
                "ORDER BY takeable_at, id LIMIT ?",
                (now, _listed(busy), limit),
            ).fetchall()
            db.executemany(
                "UPDATE deliveries SET takeable_at = ? WHERE id = ?", [(leased_until, row[0]) for row in rows]
            )
            return rows

        return [_delivery(row) for row in await self._file.write(work)]

    async def settle(self, attempt: Attempt, retry_at: float | None) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute(f"INSERT INTO attempts ({_ATTEMPT}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", _log_row(attempt))
            if retry_at is None:
                db.execute("DELETE FROM deliveries WHERE id = ?", (attempt.delivery_id,))
                _let_first_go(db, attempt.endpoint_id, attempt.call_id)
            else:
                db.execute(
                    "UPDATE deliveries SET due_at = ?, takeable_at = ?, attempts = max(attempts, ?) WHERE id = ?",
                    (retry_at, retry_at, attempt.number, attempt.delivery_id),
                )

        await self._file.write(work)

    async def next_due(self, busy: Several[str] = ()) -> float | None:
        query = f"SELECT min(takeable_at) FROM deliveries WHERE takeable_at IS NOT NULL AND {_NOT_BUSY}"
        due: float | None = await self._file.read(lambda db: db.execute(query, (_listed(busy),)).fetchone()[0])
        return due

    async def pending(self) -> int:
        return await self._file.read(lambda db: int(db.execute("SELECT count(*) FROM deliveries").fetchone()[0]))

    async def drop_endpoint(self, endpoint_id: str) -> int:
        query = "DELETE FROM deliveries WHERE endpoint_id = ?"
        return await self._file.write(lambda db: db.execute(query, (endpoint_id,)).rowcount)

    async def attempts(self, limit: int = 50, endpoint_id: str = "", call_id: str = "") -> list[Attempt]:
        wanted = [(name, value) for name, value in (("endpoint_id", endpoint_id), ("call_id", call_id)) if value]
        conditions = " AND ".join(["TRUE", *(f"{name} = ?" for name, _ in wanted)])
        query = f"SELECT {_ATTEMPT} FROM attempts WHERE {conditions} ORDER BY at DESC, sequence DESC LIMIT ?"
        values = (*(value for _, value in wanted), limit)
        return [_attempt(row) for row in await self._file.read(lambda db: db.execute(query, values).fetchall())]

    async def forget_before(self, at: float) -> int:
        return await self._file.write(lambda db: db.execute("DELETE FROM attempts WHERE at < ?", (at,)).rowcount)


def _let_first_go(db: sqlite3.Connection, endpoint_id: str, call_id: str) -> None:
    """Sets the due time of the first in a line, unless it already has one: a lease or a retry must not change."""
    db.execute(
        "UPDATE deliveries SET takeable_at = due_at WHERE takeable_at IS NULL AND sequence = "
        "(SELECT min(sequence) FROM deliveries WHERE endpoint_id = ? AND call_id = ?)",
        (endpoint_id, call_id),
    )


def _listed(ids: Several[str]) -> str:
    return json.dumps(list(ids))


def _row(delivery: Delivery) -> tuple[Any, ...]:
    return (
        delivery.id,
        delivery.endpoint_id,
        delivery.call_id,
        delivery.event.value,
        delivery.body,
        delivery.created_at,
        delivery.due_at,
        delivery.attempts,
    )


def _delivery(row: Any) -> Delivery:
    delivery_id, endpoint_id, call_id, event, *rest = row
    return Delivery(delivery_id, endpoint_id, call_id, LifecycleEvent(event), *rest)


def _log_row(attempt: Attempt) -> tuple[Any, ...]:
    return (
        attempt.delivery_id,
        attempt.endpoint_id,
        attempt.call_id,
        attempt.event.value,
        attempt.number,
        attempt.at,
        attempt.seconds,
        attempt.status,
        attempt.error,
    )


def _attempt(row: Any) -> Attempt:
    delivery_id, endpoint_id, call_id, event, *rest = row
    return Attempt(delivery_id, endpoint_id, call_id, LifecycleEvent(event), *rest)
