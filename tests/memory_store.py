"""A store in memory, for tests of what stands on one: the collections, and the calls."""

from __future__ import annotations

from typing import Any

from connector.model import CallFilter, CallRecord
from connector.storage.base import EVERY_CALL, NameTaken, names_of
from connector.storage.rows import admits


class MemoryCollection:
    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}

    def _check(self, document: Any) -> None:
        for other in self.documents.values():
            taken = set(names_of(other)) & set(names_of(document))
            if other.id != document.id and taken:
                raise NameTaken(min(taken))

    async def insert(self, document: Any) -> None:
        if document.id in self.documents:
            raise NameTaken(document.id)
        self._check(document)
        self.documents[document.id] = document

    async def replace(self, document: Any) -> bool:
        if document.id not in self.documents:
            return False
        self._check(document)
        self.documents[document.id] = document
        return True

    async def delete(self, document_id: str) -> bool:
        return self.documents.pop(document_id, None) is not None

    async def get(self, document_id: str) -> Any:
        return self.documents.get(document_id)

    async def find(self, name: str) -> Any:
        return next((each for each in self.documents.values() if name in names_of(each)), None)

    async def list(self) -> list[Any]:
        return sorted(self.documents.values(), key=lambda document: -document.created_at)


class MemoryStore:
    """As much of `connector.storage.base.Store` as the REST API and the webhooks of carriers use."""

    def __init__(self) -> None:
        self.connectors = MemoryCollection()
        self.rules = MemoryCollection()
        self.waiting = MemoryCollection()
        self.calls: dict[str, CallRecord] = {}

    async def save_call(self, record: CallRecord) -> None:
        self.calls[record.call_id] = record

    async def get_call(self, call_id: str) -> CallRecord | None:
        return self.calls.get(call_id)

    async def list_calls(self, limit: int = 50, where: CallFilter = EVERY_CALL) -> list[CallRecord]:
        found = [record for record in self.calls.values() if admits(where, record)]
        return sorted(found, key=lambda record: (-record.created_at, record.call_id))[:limit]
