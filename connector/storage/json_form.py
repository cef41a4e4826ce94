"""Converts documents to JSON text and back."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError

from connector.storage.base import StoreError
from connector.storage.vault import Vault

T = TypeVar("T")


_adapters: dict[type[Any], TypeAdapter[Any]] = {}
"""Made once per process: each takes some milliseconds."""


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    if kind not in _adapters:
        _adapters[kind] = TypeAdapter(kind)
    return _adapters[kind]


class Form(Generic[T]):
    """The JSON form of one frozen dataclass of `connector.model`."""

    def __init__(self, kind: type[T], vault: Vault | None = None) -> None:
        self._name = kind.__name__
        self._vault = vault or Vault()
        self._adapter: TypeAdapter[T] = _adapter(kind)

    def write(self, document: T) -> str:
        """Raises StoreError for text that cannot be encoded (half of a surrogate pair)."""
        try:
            return self._adapter.dump_json(self._vault.sealed(document)).decode()
        except PydanticSerializationError as error:
            raise StoreError(f"this {self._name} cannot be stored: its text cannot be encoded") from error

    def read(self, text: str) -> T:
        """Raises StoreError if this version cannot read the text. The message names the field but not its value, which
        may be a phone number or a key."""
        return self._vault.opened(self._parsed(text))

    def is_current(self, text: str) -> bool:
        """See `Vault.is_current`. Raises StoreError as above."""
        return self._vault.is_current(self._parsed(text))

    def _parsed(self, text: str) -> T:
        try:
            return self._adapter.validate_json(text)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False, include_input=False)
            where = ", ".join(sorted({".".join(str(part) for part in problem["loc"]) for problem in problems}))
            raise StoreError(f"a stored {self._name} cannot be read: {where or 'it is not a JSON object'}") from None
