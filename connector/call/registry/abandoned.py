"""Ends calls of dead processes: end time is the process's last sign of life, events are sent as for any other end, and
the callers are removed from their rooms. If several processes try, one succeeds."""

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
from connector.model.call import LIVE_STATES, CallFilter, CallRecord, CallState, CarrierCall
from connector.model.end_reason import EndReason

log = structlog.get_logger()

MOST = 1000
"""Maximum number of open calls read per state; a process holds far fewer."""
INTERRUPTED_DETAIL = "the process that held the call stopped"
AT_ONCE = 8
"""Number of callers that are removed from their rooms at the same time."""
SIGNING = 2.0
"""Seconds in which a process that takes a call over has written its name into the record."""
KEEP_TRYING = 120.0
"""Seconds for which requests to LiveKit are retried. Once LiveKit is up, it removes a silent participant by itself
after about 20 s."""
FIRST_DELAY, LONGEST_DELAY = 1.0, 10.0


async def open_calls(parts: CallDependencies, owner: str = "", created_before: float | None = None) -> list[CallRecord]:
    """The calls that have not ended according to their records. Raises StoreError.

    Calls that still wait for their stream are left out: the process that the stream reaches will own such a call, and
    when its time is over, `TakeOvers.sweep` ends it.
    """
    waiting = {call.id for call in await parts.store.waiting.list()}
    found: list[CallRecord] = []
    for state in LIVE_STATES:
        where = CallFilter(state=state, owner=owner, created_before=created_before)
        found += [call for call in await parts.store.list_calls(MOST, where) if call.call_id not in waiting]
    return found


async def end_calls(
    parts: CallDependencies,
    calls: Sequence[CallRecord],
    seen_alive: float | None,
    reason: EndReason = EndReason.INTERRUPTED,
    detail: str = INTERRUPTED_DETAIL,
) -> list[CallRecord]:
    """End calls of a dead process. `seen_alive`: Unix time of its last sign of life, used as the end time. Return the
    calls that this process ended, as they were before. Raises StoreError."""
    dispatcher = EventDispatcher(parts.lifecycle)
    ended: list[CallRecord] = []
    for record in await _not_taken_over(parts, calls):
        at = min(time.time(), max(seen_alive or 0.0, _last_moment(record)))
        end = end_of(record, reason, detail, at)
        with bind_call(record.call_id):
            # The hang-up comes first: if this process dies in between, the record is still open and the next process
            # repeats both steps.
            if reason is not EndReason.CARRIER_HANGUP:
                await _hang_up_held(parts, record)
            if await write_end(parts, dispatcher, end, record):
                ended.append(record)
    await dispatcher.told()
    return ended


async def _not_taken_over(parts: CallDependencies, calls: Sequence[CallRecord]) -> list[CallRecord]:
    """Leave out calls that another process takes over at this moment: it has removed the call from `store.waiting`, and
    is about to write its name into the record. Only a call that has waited can be in this state."""
    if any(map(_has_waited, calls)):
        await asyncio.sleep(SIGNING)
    return [
        record for record in calls if not _has_waited(record) or await parts.store.get_call(record.call_id) == record
    ]


def _has_waited(record: CallRecord) -> bool:
    return record.state is not CallState.ACTIVE or bool(record.transfer_to)


async def remove_ghosts(parts: CallDependencies, ended: Sequence[CallRecord]) -> None:
    """Remove the callers of dead processes from their rooms, where they would still seem to be present."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def remove(record: CallRecord) -> None:
        with bind_call(record.call_id):
            async with turns:
                away = await _tried(lambda: parts.admin.remove_call(record.room, record.identity, record.call_id))
            if away:
                log.warning("the caller of an interrupted call may still be seen in its room", error=away)

    await asyncio.gather(*(remove(record) for record in ended))


async def _hang_up_held(parts: CallDependencies, record: CallRecord) -> None:
    """Hang up the phone if its carrier keeps it on the line after the stream: no other process will do it."""
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
    """Run a request to LiveKit, with retries while LiveKit is unavailable. Return the error if given up, otherwise an
    empty string."""
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
    """The latest Unix time in the record."""
    return max(record.created_at, record.started_at, *(at for _, at in record.timelog), 0.0)
