"""Calls whose process died: ended at its last sign of life, told of like any other end, and tidied up after. Of several
processes that try, one does it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from connector.call.dependencies import STEP_TIMEOUT, CallDependencies
from connector.call.record.changes import end_of, write_end
from connector.call.record.event_dispatcher import EventDispatcher
from connector.errors import ConnectorError, FailedPrecondition, Internal
from connector.logs import bind_call
from connector.model import LIVE_STATES, CallFilter, CallRecord, CallState, CarrierCall, EndReason

log = structlog.get_logger()

MOST = 1000
"""Open calls of one state that are looked at; a process holds far fewer."""
INTERRUPTED_DETAIL = "the process that held the call stopped"
AT_ONCE = 8
"""Callers that are taken out of their rooms at once."""
SIGNING = 2.0
"""Seconds in which a process that has taken a call over has signed its record."""
KEEP_TRYING = 120.0
"""Seconds for which LiveKit is asked: it takes a participant that says nothing out by itself after some 20 s, once it
is up."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 10.0


async def open_calls(parts: CallDependencies, owner: str = "", created_before: float | None = None) -> list[CallRecord]:
    """The calls that are not over by their records. StoreError.

    A call that still waits for its stream is none of them: whichever process the stream reaches has it, and when its
    time is over, `CallManager.sweep` ends it.
    """
    waiting = {call.id for call in await parts.store.waiting.list()}
    found: list[CallRecord] = []
    for state in LIVE_STATES:
        where = CallFilter(state=state, owner=owner, created_before=created_before)
        found += [call for call in await parts.store.list_calls(MOST, where) if call.call_id not in waiting]
    return found


async def end_calls(parts: CallDependencies, calls: Sequence[CallRecord], seen_alive: float | None) -> list[CallRecord]:
    """End calls whose process is gone, at the Unix time at which it was last seen. Those that this process has ended,
    as they were before; StoreError."""
    dispatcher = EventDispatcher(parts.lifecycle)
    ended: list[CallRecord] = []
    for record in await _not_taken_over(parts, calls):
        at = min(time.time(), max(seen_alive or 0.0, _last_moment(record)))
        end = end_of(record, EndReason.INTERRUPTED, INTERRUPTED_DETAIL, at)
        with bind_call(record.call_id):
            # First: a process that dies in between comes here again, as long as the record is not ended.
            await _hang_up_held(parts, record)
            if await write_end(parts, dispatcher, end, record):
                ended.append(record)
    await dispatcher.told()
    return ended


async def _not_taken_over(parts: CallDependencies, calls: Sequence[CallRecord]) -> list[CallRecord]:
    """Without those that another process takes over at this moment: it has taken the call from `store.waiting`, and is
    about to sign the record. Only a call that has waited can be one."""
    if any(map(_has_waited, calls)):
        await asyncio.sleep(SIGNING)
    return [
        record for record in calls if not _has_waited(record) or await parts.store.get_call(record.call_id) == record
    ]


def _has_waited(record: CallRecord) -> bool:
    return record.state is not CallState.ACTIVE or bool(record.transfer_to)


async def remove_ghosts(parts: CallDependencies, ended: Sequence[CallRecord]) -> None:
    """Take the callers of dead processes out of their rooms, where the others would take them for present."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def remove(record: CallRecord) -> None:
        with bind_call(record.call_id):
            async with turns:
                away = await _tried(lambda: parts.admin.remove_call(record.room, record.identity, record.call_id))
            if away:
                log.warning("the caller of an interrupted call may still be seen in its room", error=away)

    await asyncio.gather(*(remove(record) for record in ended))


async def _hang_up_held(parts: CallDependencies, record: CallRecord) -> None:
    """Have the phone hung up if its carrier holds it though the stream broke with the process: nobody else will."""
    control = parts.control.get(record.provider)
    if not record.carrier_call_id or (control is not None and control.ends_with_stream):
        return
    if control is not None:
        call = CarrierCall(record.carrier_call_id, record.account_id)
        await parts.hang_ups.keep(record.call_id, record.provider, call)
    elif parts.carriers[record.provider].holds_calls:
        setting = parts.carriers[record.provider].rest_settings
        log.warning("the phone is not hung up: a setting is missing", set=setting)


async def _tried(step: Callable[[], Awaitable[None]]) -> str:
    """Do a step at LiveKit, again while it is away; why it was given up, or nothing."""
    loop = asyncio.get_running_loop()
    until, delay = loop.time() + KEEP_TRYING, FIRST_DELAY
    while True:
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                await step()
        except (FailedPrecondition, Internal) as error:
            return error.message
        except (ConnectorError, TimeoutError) as error:
            if loop.time() + delay > until:
                return str(error) or "no answer in time"
        except Exception as error:
            log.exception("the caller of an interrupted call could not be removed")
            return repr(error)
        else:
            return ""
        await asyncio.sleep(delay)
        delay = min(2 * delay, LONGEST_DELAY)


def _last_moment(record: CallRecord) -> float:
    """The last that its record tells of it."""
    return max(record.created_at, record.started_at, *(at for _, at in record.timelog), 0.0)
