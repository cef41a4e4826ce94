"""Documents with unique names, in the SQLite file."""

from __future__ import annotations

import builtins
import sqlite3
from typing import Any, Generic

from connector.storage.base import (
    EVERY_DOCUMENT,
    DocumentFilter,
    NameTaken,
    Page,
    T,
    index_text,
    names_of,
    part_of_index,
)
from connector.storage.json_form import Form
from connector.storage.sqlite_file import SqliteFile
from connector.storage.vault import Vault

_WRITTEN = "(collection, id, created_at, body, indexed) VALUES (?, ?, ?, ?, ?)"
_ORDER = "ORDER BY created_at DESC, id"


class SqliteCollection(Generic[T]):
    """See `connector.storage.base.Collection`."""

    def __init__(self, file: SqliteFile, name: str, kind: type[T], vault: Vault | None = None) -> None:
        self._file = file
        self._name = name
        self._form = Form(kind, vault)

    async def insert(self, document: T) -> None:
        row = self._row(document)

        def work(db: sqlite3.Connection) -> None:
            if self._body(db, document.id) is not None:
                raise NameTaken(document.id)
            self._take_names(db, document)
            db.execute(f"INSERT INTO documents {_WRITTEN}", row)

        await self._file.write(work)

    async def replace(self, document: T, expected: T | None = None) -> bool:
        row = self._row(document)

        def work(db: sqlite3.Connection) -> bool:
            present = self._body(db, document.id)
            if present is None or (expected is not None and self._form.read(present) != expected):
                return False
            self._drop_names(db, document.id)
            self._take_names(db, document)
            db.execute(f"REPLACE INTO documents {_WRITTEN}", row)
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
        return [self._form.read(body) for body in await self._bodies()]

    async def reseal(self) -> int:
        stale = [self._form.read(body) for body in await self._bodies() if not self._form.is_current(body)]
        return sum([await self.replace(document, document) for document in stale])

    async def _bodies(self) -> builtins.list[str]:
        query = "SELECT body FROM documents WHERE collection = ? ORDER BY created_at DESC, id"
        rows = await self._file.read(lambda db: db.execute(query, (self._name,)).fetchall())
        return [body for (body,) in rows]

    async def page(self, offset: int, limit: int, where: DocumentFilter = EVERY_DOCUMENT) -> Page[T]:
        await self._complete()
        conditions, values = self._conditions(where)
        # The inner SELECT reads only the index, even if the page is far from the beginning.
        page = f"SELECT id FROM documents WHERE {conditions} {_ORDER} LIMIT ? OFFSET ?"
        query = f"SELECT body FROM documents WHERE collection = ? AND id IN ({page}) {_ORDER}"

        def work(db: sqlite3.Connection) -> tuple[builtins.list[Any], int]:
            total = db.execute(f"SELECT count(*) FROM documents WHERE {conditions}", values).fetchone()[0]
            return db.execute(query, (self._name, *values, limit, offset)).fetchall(), total

        rows, total = await self._file.read(work)
        return Page([self._form.read(body) for (body,) in rows], total)

    def _conditions(self, where: DocumentFilter) -> tuple[str, builtins.list[str]]:
        parts, values = ["collection = ?"], [self._name]
        for group in where.labels:
            parts.append(f"({' OR '.join('instr(indexed, ?)' for _ in group) or 'FALSE'})")
            values += [part_of_index(label) for label in group]
        if where.texts:
            text = "substr(indexed, instr(indexed, char(10, 10)) + 2)"
            parts.append(f"({' OR '.join(f'instr({text}, ?)' for _ in where.texts)})")
            values += [part.lower() for part in where.texts]
        return " AND ".join(parts), values

    async def _complete(self) -> None:
        """Indexes documents that an earlier version wrote, before the upgrade or in parallel with this version."""
        # Without the name of the index, SQLite may read all documents of the collection.
        unindexed = "documents INDEXED BY documents_unindexed"
        query = f"SELECT id, body FROM {unindexed} WHERE collection = ? AND indexed IS NULL"
        if not await self._file.read(lambda db: db.execute(f"{query} LIMIT 1", (self._name,)).fetchone()):
            return

        def work(db: sqlite3.Connection) -> None:
            found = [
                (index_text(self._form.read(body)), self._name, document_id)
                for document_id, body in db.execute(query, (self._name,)).fetchall()
            ]
            db.executemany("UPDATE documents SET indexed = ? WHERE collection = ? AND id = ?", found)

        await self._file.write(work)

    def _row(self, document: T) -> tuple[str, str, float, str, str]:
        return (self._name, document.id, document.created_at, self._form.write(document), index_text(document))

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
