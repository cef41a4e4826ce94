"""Calls whose process died: ended by its successor, of the same name, and told of like any other end."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import structlog

from connector.call.chronicle import Chronicle
from connector.call.records import end_of, write_end
from connector.call.terms import STEP_TIMEOUT, Parts
from connector.errors import ConnectorError
from connector.logs import bind_call
from connector.model import LIVE_STATES, CallFilter, CallRecord, CarrierCall, EndReason

log = structlog.get_logger()

MOST = 1000
"""Open calls of one state that are looked at; a process holds far fewer."""
INTERRUPTED_DETAIL = "the process that held the call stopped"


async def end_orphans(parts: Parts) -> list[CallRecord]:
    """At the start, before any call: mark them as interrupted, and tell so. Their records as they were; StoreError.

    A call that still waits for its stream is none of them: whichever process the stream reaches has it, and when its
    time is over, `CallManager.sweep` ends it.
    """
    waiting = {call.id for call in await parts.store.waiting.list()}
    chronicle = Chronicle(parts.lifecycle)
    orphans: list[CallRecord] = []
    for state in LIVE_STATES:
        for record in await parts.store.list_calls(MOST, CallFilter(state=state, owner=parts.owner)):
            if record.call_id not in waiting:
                with bind_call(record.call_id):
                    end = end_of(record, EndReason.INTERRUPTED, INTERRUPTED_DETAIL)
                    if await write_end(parts, chronicle, end, record):
                        orphans.append(record)
    await chronicle.told()
    return orphans


async def hang_up_held(parts: Parts, orphans: Sequence[CallRecord]) -> None:
    """End the phones that their carrier holds though the stream broke with the process: nobody else will."""
    for record in orphans:
        control = parts.control.get(record.provider)
        if control is None or control.ends_with_stream or not record.carrier_call_id:
            continue
        with bind_call(record.call_id):
            try:
                async with asyncio.timeout(STEP_TIMEOUT):
                    await control.hang_up(CarrierCall(record.carrier_call_id, record.account_id))
            except (ConnectorError, TimeoutError) as error:
                log.warning("the phone of an interrupted call could not be hung up", error=str(error))
