"""The last record of calls that ended while the store was away: saved as soon as it is back, for an hour at most."""

from __future__ import annotations

import asyncio
import contextvars

import structlog

from connector.call.ports import CallStore
from connector.call.terms import STEP_TIMEOUT
from connector.errors import ConnectorError
from connector.model import CallRecord

log = structlog.get_logger()

FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0
KEEP_FOR = 3600.0
"""Seconds for which a record is tried: by then its call has ended long ago, and somebody has to look at the store."""
MOST = 10_000
"""Records in memory; past that, the newest are lost and said to be."""


class LateRecords:
    """`keep` never waits. One task saves what is kept, and ends when nothing is left."""

    def __init__(self, store: CallStore) -> None:
        self._store = store
        self._late: dict[str, tuple[CallRecord, float]] = {}
        """By call id: the record, and until when it is tried, by the event loop's clock."""
        self._saving: asyncio.Task[None] | None = None

    def keep(self, record: CallRecord) -> None:
        """Have the record of an ended call saved, which the store has not taken."""
        if len(self._late) >= MOST:
            log.error("a call's last record is lost: the store has failed for too long", call=record.call_id)
            return
        self._late[record.call_id] = (record, asyncio.get_running_loop().time() + KEEP_FOR)
        if self._saving is None or self._saving.done():
            # Not in the call's own context: it logs of others too.
            context = contextvars.Context()
            self._saving = asyncio.create_task(self._save_again(), name="save late records", context=context)

    def get(self, call_id: str) -> CallRecord | None:
        """What the store is yet to learn of a call."""
        kept = self._late.get(call_id)
        return kept[0] if kept else None

    async def close(self) -> None:
        """Try each once more, as long as the store takes them; say which are lost."""
        if self._saving is not None:
            self._saving.cancel()
            await asyncio.wait([self._saving])
        await self._save_all()
        for call_id in self._late:
            log.error("a call's last record is lost: the store fails", call=call_id)
        self._late.clear()

    async def _save_again(self) -> None:
        delay = FIRST_DELAY
        while self._late:
            await asyncio.sleep(delay)
            await self._save_all()
            delay = min(2 * delay, LONGEST_DELAY)

    async def _save_all(self) -> None:
        """Until the store fails."""
        for call_id, (record, until) in list(self._late.items()):
            try:
                async with asyncio.timeout(STEP_TIMEOUT):
                    await self._store.save_call(record)
            except (ConnectorError, TimeoutError) as error:
                if asyncio.get_running_loop().time() < until:
                    log.warning("last records of calls wait for the store", calls=len(self._late), error=str(error))
                    return
                log.error("a call's last record is lost: the store has failed for too long", call=call_id)
            except Exception:
                log.exception("a call's last record is lost", call=call_id)
            else:
                log.info("a call's last record is saved, late", call=call_id)
            del self._late[call_id]
