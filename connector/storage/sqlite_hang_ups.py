"""The queue of phones to hang up, in the SQLite file."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import Any

from connector.model.call import HangUp
from connector.storage.json_form import Form
from connector.storage.sqlite_file import SqliteFile


class SqliteHangUps:
    """See `connector.storage.base.HangUpQueue`."""

    def __init__(self, file: SqliteFile) -> None:
        self._file = file
        self._form = Form(HangUp)

    async def put(self, hang_up: HangUp, leased_until: float) -> bool:
        row = (hang_up.id, self._form.write(hang_up), leased_until, hang_up.attempts)
        query = (
            "INSERT OR IGNORE INTO hang_ups (id, body, takeable_at, attempts) SELECT ?1, ?2, ?3, ?4"
            " WHERE NOT EXISTS (SELECT 1 FROM hang_ups_withdrawn WHERE id = ?1)"
        )
        return await self._file.write(lambda db: db.execute(query, row).rowcount > 0)

    async def withdraw(self, hang_up_id: str, now: float, until: float) -> None:
        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM hang_ups_withdrawn WHERE until < ?", (now,))
            db.execute("INSERT OR REPLACE INTO hang_ups_withdrawn (id, until) VALUES (?, ?)", (hang_up_id, until))
            db.execute("DELETE FROM hang_ups WHERE id = ?", (hang_up_id,))

        await self._file.write(work)

    async def allow(self, hang_up_id: str) -> None:
        query = "DELETE FROM hang_ups_withdrawn WHERE id = ?"
        await self._file.write(lambda db: db.execute(query, (hang_up_id,)))

    async def take(self, now: float, leased_until: float, limit: int) -> list[HangUp]:
        def work(db: sqlite3.Connection) -> list[Any]:
            rows = db.execute(
                "SELECT id, body, attempts FROM hang_ups WHERE takeable_at <= ? ORDER BY takeable_at, id LIMIT ?",
                (now, limit),
            ).fetchall()
            db.executemany("UPDATE hang_ups SET takeable_at = ? WHERE id = ?", [(leased_until, row[0]) for row in rows])
            return rows

        return [replace(self._form.read(body), attempts=tries) for _, body, tries in await self._file.write(work)]

    async def retry(self, hang_up_id: str, at: float, attempts: int) -> None:
        query = "UPDATE hang_ups SET takeable_at = ?, attempts = max(attempts, ?) WHERE id = ?"
        await self._file.write(lambda db: db.execute(query, (at, attempts, hang_up_id)))

    async def settle(self, hang_up_id: str) -> None:
        await self._file.write(lambda db: db.execute("DELETE FROM hang_ups WHERE id = ?", (hang_up_id,)))

    async def next_due(self) -> float | None:
        query = "SELECT min(takeable_at) FROM hang_ups"
        due: float | None = await self._file.read(lambda db: db.execute(query).fetchone()[0])
        return due

    async def pending(self) -> int:
        return await self._file.read(lambda db: int(db.execute("SELECT count(*) FROM hang_ups").fetchone()[0]))
