"""Documents with unique names, in the SQLite file."""

from __future__ import annotations

import builtins
import sqlite3
from typing import Generic

from connector.storage.base import NameTaken, T, names_of
from connector.storage.forms import Form
from connector.storage.sqlite_file import SqliteFile


class SqliteCollection(Generic[T]):
    """See `connector.storage.base.Collection`."""

    def __init__(self, file: SqliteFile, name: str, kind: type[T]) -> None:
        self._file = file
        self._name = name
        self._form = Form(kind)

    async def insert(self, document: T) -> None:
        row = self._row(document)

        def work(db: sqlite3.Connection) -> None:
            if self._body(db, document.id) is not None:
                raise NameTaken(document.id)
            self._take_names(db, document)
            db.execute("INSERT INTO documents (collection, id, created_at, body) VALUES (?, ?, ?, ?)", row)

        await self._file.write(work)

    async def replace(self, document: T, expected: T | None = None) -> bool:
        row = self._row(document)

        def work(db: sqlite3.Connection) -> bool:
            present = self._body(db, document.id)
            if present is None or (expected is not None and self._form.read(present) != expected):
                return False
            self._drop_names(db, document.id)
            self._take_names(db, document)
            db.execute("REPLACE INTO documents (collection, id, created_at, body) VALUES (?, ?, ?, ?)", row)
            return True

        return await self._file.write(work)

    async def delete(self, document_id: str) -> bool:
        def work(db: sqlite3.Connection) -> bool:
            deleted = db.execute("DELETE FROM documents WHERE collection = ? AND id = ?", (self._name, document_id))
            self._drop_names(db, document_id)
            return deleted.rowcount == 1

        return await self._file.write(work)

    async def take(self, document_id: str) -> T | None:
        def work(db: sqlite3.Connection) -> str | None:
            body = self._body(db, document_id)
            db.execute("DELETE FROM documents WHERE collection = ? AND id = ?", (self._name, document_id))
            self._drop_names(db, document_id)
            return body

        return self._read(await self._file.write(work))

    async def get(self, document_id: str) -> T | None:
        return self._read(await self._file.read(lambda db: self._body(db, document_id)))

    async def find(self, name: str) -> T | None:
        query = (
            "SELECT body FROM names JOIN documents USING (collection, id) WHERE names.collection = ? AND names.name = ?"
        )
        rows = await self._file.read(lambda db: db.execute(query, (self._name, name)).fetchall())
        return self._read(rows[0][0] if rows else None)

    async def list(self) -> builtins.list[T]:
        query = "SELECT body FROM documents WHERE collection = ? ORDER BY created_at DESC, id"
        rows = await self._file.read(lambda db: db.execute(query, (self._name,)).fetchall())
        return [self._form.read(body) for (body,) in rows]

    def _row(self, document: T) -> tuple[str, str, float, str]:
        return (self._name, document.id, document.created_at, self._form.write(document))

    def _read(self, body: str | None) -> T | None:
        return self._form.read(body) if body is not None else None

    def _body(self, db: sqlite3.Connection, document_id: str) -> str | None:
        query = "SELECT body FROM documents WHERE collection = ? AND id = ?"
        row = db.execute(query, (self._name, document_id)).fetchone()
        return row[0] if row else None

    def _take_names(self, db: sqlite3.Connection, document: T) -> None:
        for name in dict.fromkeys(names_of(document)):
            query = "INSERT OR IGNORE INTO names (collection, name, id) VALUES (?, ?, ?)"
            if db.execute(query, (self._name, name, document.id)).rowcount == 0:
                raise NameTaken(name)

    def _drop_names(self, db: sqlite3.Connection, document_id: str) -> None:
        db.execute("DELETE FROM names WHERE collection = ? AND id = ?", (self._name, document_id))
