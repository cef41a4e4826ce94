"""Delivers the events of one call to a listener, in order, without delaying the call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping

import structlog

from connector.call.ports import Lifecycle
from connector.errors import ConnectorError
from connector.model.call import CallRecord
from connector.model.webhook import LifecycleEvent

log = structlog.get_logger()

PATIENCE = 2.0
"""Seconds after which the delivery of one event is cancelled."""


class EventDispatcher:
    """A queue of events. `tell` never blocks; one task delivers them in order and ends when the queue is empty."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._waiting: deque[tuple[LifecycleEvent, CallRecord, Mapping[str, str]]] = deque()
        self._telling: asyncio.Task[None] | None = None

    def tell(self, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> None:
        self._waiting.append((event, record, details))
        if self._telling is None or self._telling.done():
            self._telling = asyncio.create_task(self._tell(), name=f"tell {record.call_id}")

    async def _tell(self) -> None:
        while self._waiting:
            event, record, details = self._waiting.popleft()
            try:
                async with asyncio.timeout(PATIENCE):
                    await self._lifecycle.happened(event, record, details)
            except (ConnectorError, TimeoutError) as error:
                log.warning(
                    "lifecycle event could not be dispatched",
                    lifecycle=event.value,
                    error=str(error) or "no answer in time",
                )
            except Exception:
                log.exception("lifecycle event could not be dispatched", lifecycle=event.value)

    async def told(self) -> None:
        """Wait until every event has been delivered or has failed. If cancelled, the remaining events are dropped."""
        if self._telling is None or self._telling.done():
            return
        try:
            await asyncio.wait([self._telling])
        except asyncio.CancelledError:
            log.warning("lifecycle events dropped: the dispatch takes too long", events=len(self._waiting))
            self._waiting.clear()
            self._telling.cancel()
            raise
