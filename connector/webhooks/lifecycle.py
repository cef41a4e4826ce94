"""Turns call events into deliveries in the store: one for each endpoint that subscribed to the event."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import structlog

from connector.errors import ConnectorError
from connector.model.call import CallRecord
from connector.model.webhook import Delivery, LifecycleEvent
from connector.webhooks import payload
from connector.webhooks.payload import Describe
from connector.webhooks.protocols import Endpoints, Queue

log = structlog.get_logger()

MAX_UNSAVED = 10_000
"""Maximum number of events kept in memory while the store fails; further events are lost, and logged as lost."""
SAVE_AGAIN = 1.0


@dataclass(frozen=True, slots=True)
class _Happened:
    id: str
    event: LifecycleEvent
    record: CallRecord
    details: Mapping[str, str]
    at: float


class LifecycleWebhooks:
    """See `Lifecycle` of `connector.call.ports`. The event is in the store when `happened` returns. While the store
    fails, events wait in memory, and later ones queue behind them: the order of a call's events is kept."""

    def __init__(
        self,
        endpoints: Endpoints,
        queue: Queue,
        describe: Describe,
        wake: Callable[[], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._endpoints = endpoints
        self._queue = queue
        self._describe = describe
        self._wake = wake
        self._clock = clock
        self._unsaved: deque[_Happened] = deque()
        self._saving: asyncio.Task[None] | None = None

    async def happened(self, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> None:
        """Save an event for delivery. Raises nothing: a webhook failure must not end a call."""
        moment = _Happened(secrets.token_hex(8), event, record, dict(details), _when(event, record) or self._clock())
        if self._unsaved:
            self._keep(moment)
            return
        try:
            await self._save(moment)
        except ConnectorError as error:
            log.error("a webhook could not be saved; trying again", webhook=event.value, error=error.message)
            self._keep(moment)
        except asyncio.CancelledError:
            # The caller waits no longer. The event may have been saved; saving it twice does no harm (see `_delivery`).
            self._keep(moment)
            raise

    def _keep(self, moment: _Happened) -> None:
        if len(self._unsaved) >= MAX_UNSAVED:
            log.error("a webhook is lost: the store has failed for too long", webhook=moment.event.value)
            return
        self._unsaved.append(moment)
        if self._saving is None or self._saving.done():
            self._saving = asyncio.create_task(self._save_again())

    async def close(self) -> None:
        """Try once to save the waiting events; log those that are lost."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.wait([self._saving])
        try:
            await self._save_all()
        except ConnectorError as error:
            log.error("webhooks are lost: the store fails", webhooks=len(self._unsaved), error=error.message)

    async def _save_again(self) -> None:
        while self._unsaved:
            await asyncio.sleep(SAVE_AGAIN)
            try:
                await self._save_all()
            except ConnectorError as error:
                log.warning("webhooks wait for the store", webhooks=len(self._unsaved), error=error.message)
            except Exception:
                # Not a failure of the store, so it would fail again: drop it, the others must not wait behind it.
                log.exception("a webhook is lost", webhook=self._unsaved.popleft().event.value)

    async def _save_all(self) -> None:
        while self._unsaved:
            await self._save(self._unsaved[0])
            self._unsaved.popleft()

    async def _save(self, moment: _Happened) -> None:
        wanting = [endpoint for endpoint in await self._endpoints.list() if moment.event in endpoint.events]
        if not wanting:
            return
        now = self._clock()
        await self._queue.put([self._delivery(endpoint.id, moment, now) for endpoint in wanting])
        self._wake()

    def _delivery(self, endpoint_id: str, moment: _Happened, now: float) -> Delivery:
        """The same event and endpoint give the same id, so a `put` without a known result can be repeated."""
        delivery_id = "whd_" + hashlib.sha256(f"{moment.id} {endpoint_id}".encode()).hexdigest()[:24]
        return Delivery(
            id=delivery_id,
            endpoint_id=endpoint_id,
            call_id=moment.record.call_id,
            event=moment.event,
            body=payload.body(delivery_id, moment.event, moment.record, moment.details, moment.at, self._describe),
            created_at=now,
            due_at=now,
        )


def _when(event: LifecycleEvent, record: CallRecord) -> float:
    """The time of `event` in the call's own log, if it is the last entry there; else 0.0."""
    if record.timelog and record.timelog[-1][0] == event.value:
        return record.timelog[-1][1]
    return 0.0
