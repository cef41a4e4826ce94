"""What a store must do, whatever it is made of."""

from __future__ import annotations

from typing import Protocol

from connector.errors import ConnectorError
from connector.model import CallFilter, CallRecord

EVERY_CALL = CallFilter()


class StoreError(ConnectorError):
    """The store cannot be opened or used; the message says which and why."""

    twirp_code = "unavailable"
    grpc_code = "UNAVAILABLE"
    http_status = 503


class Store(Protocol):
    """Call records. Every method raises StoreError when the store fails."""

    async def open(self) -> None: ...
    async def close(self) -> None: ...
    async def save_call(self, record: CallRecord) -> None:
        """Insert or replace. A record that has ended is never replaced by one that has not."""
        ...

    async def get_call(self, call_id: str) -> CallRecord | None: ...
    async def list_calls(self, limit: int = 50, where: CallFilter = EVERY_CALL) -> list[CallRecord]:
        """Newest first, at most `limit`."""
        ...

    async def end_orphans(self, owner: str, now: float) -> int:
        """Mark calls that `owner` left open when it died as `interrupted`; the number of them."""
        ...

    async def forget_before(self, created_before: float) -> int:
        """Delete ended calls created before this Unix time; the number of them."""
        ...
