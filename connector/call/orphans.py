"""Calls whose process died: ended in the store by its successor, and told of like any other end."""

from __future__ import annotations

from dataclasses import replace

from connector.call.ports import Lifecycle
from connector.model import CallFilter, CallRecord, CallState, LifecycleEvent
from connector.storage.base import Store

MOST = 10_000
"""Calls of one state that are looked at; one process holds far fewer."""


async def end_orphans(store: Store, lifecycle: Lifecycle, owner: str, now: float) -> int:
    """End what `owner` left open when it died; the number of them. Raises StoreError."""
    left: list[CallRecord] = []
    for state in (CallState.PENDING, CallState.RINGING, CallState.ACTIVE):
        found = await store.list_calls(MOST, CallFilter(state=state))
        left += [record for record in found if record.owner == owner]
    orphans = await store.end_orphans(owner, now)
    for record in left:
        ended = await store.get_call(record.call_id)
        # A call of which nobody was told has nobody who waits for its end.
        if ended is not None and ended.end_reason is not None and ended.timelog:
            await _tell(store, lifecycle, ended)
    return orphans


async def _tell(store: Store, lifecycle: Lifecycle, record: CallRecord) -> None:
    assert record.end_reason is not None
    event = LifecycleEvent.HANGUP if record.started_at else LifecycleEvent.MISSED
    told = replace(record, timelog=(*record.timelog, (event.value, record.ended_at)))
    await store.save_call(told)
    await lifecycle.happened(event, told, {"reason": record.end_reason.value})
