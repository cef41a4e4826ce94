"""Calls whose process died: ended by its successor, of the same name, and told of like any other end."""

from __future__ import annotations

import structlog

from connector.call.chronicle import Chronicle
from connector.call.records import end_of, write_end
from connector.call.terms import Parts
from connector.logs import bind_call
from connector.model import HOLDING, LIVE_STATES, REST_SETTINGS, CallFilter, CallRecord, CarrierCall, EndReason

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
                    # First: a process that dies in between comes here again, as long as the record is not ended.
                    await _hang_up_held(parts, record)
                    end = end_of(record, EndReason.INTERRUPTED, INTERRUPTED_DETAIL)
                    if await write_end(parts, chronicle, end, record):
                        orphans.append(record)
    await chronicle.told()
    return orphans


async def _hang_up_held(parts: Parts, record: CallRecord) -> None:
    """Have the phone hung up if its carrier holds it though the stream broke with the process: nobody else will."""
    control = parts.control.get(record.provider)
    if not record.carrier_call_id or (control is not None and control.ends_with_stream):
        return
    if control is not None:
        call = CarrierCall(record.carrier_call_id, record.account_id)
        await parts.hang_ups.keep(record.call_id, record.provider, call)
    elif record.provider in HOLDING:
        log.warning("the phone is not hung up: a setting is missing", set=REST_SETTINGS[record.provider])
