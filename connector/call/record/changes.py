"""The states of a call, and its first and last record.

Three writers use this module: the process that carries the call, a process that cleans up after a dead one, and the
handler of carrier reports for calls that no process holds.

The states of a call, and all transitions. A transition that is not in the table is a bug and raises an error.

=========  =================  =======  ==============================================================
from       trigger            to       when
=========  =================  =======  ==============================================================
pending    JOINED_HIDDEN      ringing  outbound: the hidden participant is in the room
pending    STREAM_STARTED     active   inbound: the carrier's stream started
ringing    STREAM_STARTED     active   outbound: the callee answered and the stream started
pending    END                ended    any reason
ringing    END                ended    any reason
active     END                ended    any reason
=========  =================  =======  ==============================================================

`ended` has no transition, not even END: the first end reason is kept.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import Enum, auto

import structlog

from connector.call.dependencies import CallDependencies
from connector.call.record.event_dispatcher import EventDispatcher
from connector.metrics import Metrics
from connector.model.call import LIVE_STATES, CallRecord, CallRequest, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.webhook import LifecycleEvent

log = structlog.get_logger()


class Trigger(Enum):
    JOINED_HIDDEN = auto()
    STREAM_STARTED = auto()
    END = auto()


class IllegalTransition(RuntimeError):
    """A bug in this program: the state does not allow this trigger."""


_EDGES: dict[tuple[Direction, CallState, Trigger], CallState] = {
    (Direction.OUTBOUND, CallState.PENDING, Trigger.JOINED_HIDDEN): CallState.RINGING,
    (Direction.OUTBOUND, CallState.RINGING, Trigger.STREAM_STARTED): CallState.ACTIVE,
    (Direction.INBOUND, CallState.PENDING, Trigger.STREAM_STARTED): CallState.ACTIVE,
} | {(direction, state, Trigger.END): CallState.ENDED for direction in Direction for state in LIVE_STATES}


def next_state(direction: Direction, state: CallState, trigger: Trigger) -> CallState:
    """The state after `trigger`. Raises IllegalTransition if the table has no such transition."""
    try:
        return _EDGES[direction, state, trigger]
    except KeyError:
        raise IllegalTransition(f"{direction} call: {trigger.name} in state {state}") from None


def new_record(request: CallRequest, owner: str) -> CallRecord:
    """The record of a call that begins now. `request` must not contain a hidden number; see
    `connector.call.record.privacy`."""
    return CallRecord(
        call_id=request.call_id,
        provider=request.provider,
        direction=request.direction,
        room=request.room,
        identity=request.participant.identity,
        state=CallState.PENDING,
        owner=owner,
        created_at=time.time(),
        carrier_call_id=request.carrier_call_id,
        from_number=request.from_number,
        to_number=request.to_number,
        rule_id=request.rule_id,
        connector_id=request.connector_id,
        region=request.region,
        account_id=request.account_id,
        delivery=request.delivery,
    )


@dataclass(frozen=True, slots=True)
class CallEnd:
    """The end of a call as seen by one process. Several processes may see the same call end, with different reasons.
    The store accepts the first end; only that one is reported and counted."""

    record: CallRecord
    """The finished record; its timelog ends with the event."""
    event: LifecycleEvent | None
    """None if no event of the call was ever reported, because the call could not be opened."""
    frames: Mapping[str, int] = field(default_factory=dict)
    """Counts of audio frames, for the log line at the end of the call."""


def end_of(record: CallRecord, reason: EndReason, detail: str, at: float | None = None) -> CallEnd:
    """Build the end of the call in `record`. `at`: Unix time of the end, default now. Raises IllegalTransition if the
    call has already ended."""
    at = time.time() if at is None else at
    event = None
    timelog = record.timelog
    if timelog:
        event = LifecycleEvent.HANGUP if record.state is CallState.ACTIVE else LifecycleEvent.MISSED
        timelog = (*timelog, (event.value, at))
    over = replace(
        record,
        state=next_state(record.direction, record.state, Trigger.END),
        ended_at=at,
        end_reason=reason,
        end_detail=detail,
        timelog=timelog,
        end_id=secrets.token_hex(8),
    )
    return CallEnd(over, event)


async def write_end(
    parts: CallDependencies, dispatcher: EventDispatcher, end: CallEnd, expected: CallRecord | None = None
) -> bool:
    """Write an end to the store; if the store accepts it, report and count it, and return True. Returns False if the
    store has another end, or the record differs from `expected`; see `Store.end_call`. Raises StoreError; a retry is
    safe."""
    if not await parts.store.end_call(end.record, expected):
        return False
    if end.event is not None:
        dispatcher.tell(end.event, end.record, {"reason": end.record.end_reason or ""})
    _count(parts.metrics, end)
    return True


def _count(metrics: Metrics, end: CallEnd) -> None:
    """Update the metrics and write the log line at the end of the call. Called once for each call."""
    record = end.record
    reason = record.end_reason.value if record.end_reason else ""
    metrics.calls.labels(record.provider.value, record.direction.value, reason).inc()
    seconds = record.ended_at - record.started_at if record.started_at else 0.0
    if record.started_at:
        metrics.duration.labels(record.direction.value).observe(seconds)
    log.info(
        "call ended",
        call_id=record.call_id,
        reason=reason,
        detail=record.end_detail or None,
        seconds=round(seconds, 3),
        **end.frames,
    )
