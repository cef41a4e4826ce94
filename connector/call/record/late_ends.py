"""Retries ends of calls that could not be written while the store failed, for an hour at most."""

from __future__ import annotations

import asyncio
import contextvars

import structlog

from connector.call.dependencies import STEP_TIMEOUT, CallDependencies
from connector.call.record.changes import CallEnd, write_end
from connector.call.record.event_dispatcher import EventDispatcher
from connector.errors import ConnectorError
from connector.logs import bind_call
from connector.model.call import CallRecord

log = structlog.get_logger()

FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
KEEP_FOR = 3600.0
"""Seconds for which a record is retried. If the store still fails then, an operator has to look at it."""
MOST = 10_000
"""Maximum number of records in memory. Further ones are lost, each with an error in the log."""


class LateEnds:
    """A retry queue for ends of calls. `keep` never blocks; one task retries with back-off until the queue is empty."""

    def __init__(self, parts: CallDependencies) -> None:
        self._parts = parts
        self._dispatcher = EventDispatcher(parts.lifecycle)
        self._late: dict[str, tuple[CallEnd, float]] = {}
        """By call id: the end, and the time until which it is retried, by the event loop's clock."""
        self._saving: asyncio.Task[None] | None = None

    def keep(self, end: CallEnd) -> None:
        """Queue an end that the store has not yet accepted or rejected."""
        call_id = end.record.call_id
        if len(self._late) >= MOST:
            log.error("a call's last record is lost: the store has failed for too long", call_id=call_id)
            return
        self._late[call_id] = (end, asyncio.get_running_loop().time() + KEEP_FOR)
        if self._saving is None or self._saving.done():
            # An empty context, because the task also logs about other calls than this one.
            context = contextvars.Context()
            self._saving = asyncio.create_task(self._save_again(), name="save late records", context=context)

    def get(self, call_id: str) -> CallRecord | None:
        """The queued record of a call, which the store does not have yet; None if there is none."""
        kept = self._late.get(call_id)
        return kept[0].record if kept else None

    async def close(self) -> None:
        """Try every end once more until the store fails, log the lost ones, and wait until the events are delivered."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.wait([self._saving])
        await self._save_all()
        for call_id in self._late:
            log.error("a call's last record is lost: the store fails", call_id=call_id)
        self._late.clear()
        await self._dispatcher.told()

    async def _save_again(self) -> None:
        delay = FIRST_DELAY
        while self._late:
            await asyncio.sleep(delay)
            await self._save_all()
            await self._dispatcher.told()
            delay = min(2 * delay, LONGEST_DELAY)

    async def _save_all(self) -> None:
        """Write the queued ends. Stops at the first failure of an end that may still be retried."""
        for call_id, (end, until) in list(self._late.items()):
            try:
                async with asyncio.timeout(STEP_TIMEOUT):
                    with bind_call(call_id):
                        stands = await self._write(end)
            except (ConnectorError, TimeoutError) as error:
                if asyncio.get_running_loop().time() < until:
                    log.warning("last records of calls wait for the store", calls=len(self._late), error=str(error))
                    return
                log.error("a call's last record is lost: the store has failed for too long", call_id=call_id)
            except Exception:
                log.exception("a call's last record is lost", call_id=call_id)
            else:
                done = "is saved after a delay" if stands else "is discarded: another process has ended the call"
                log.info(f"a call's last record {done}", call_id=call_id)
            del self._late[call_id]

    async def _write(self, end: CallEnd) -> bool:
        """See `write_end`; False, too, if another process has taken the call over while the store failed here."""
        stored = await self._parts.store.get_call(end.record.call_id)
        if stored is not None and stored.owner != end.record.owner:
            return False
        return await write_end(self._parts, self._dispatcher, end)
