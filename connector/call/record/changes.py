"""How a call's record begins and ends, whoever writes it: the process that carries the call, one that tidies up after
another, or the carrier's reports of a call that no process holds."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import structlog

from connector.call.dependencies import CallDependencies
from connector.call.record.event_dispatcher import EventDispatcher
from connector.call.record.state import Trigger, next_state
from connector.metrics import Metrics
from connector.model import CallRecord, CallRequest, CallState, EndReason, LifecycleEvent

log = structlog.get_logger()


def new_record(request: CallRequest, owner: str) -> CallRecord:
    """Of a call that begins now. `request` must show what may be kept; see `connector.call.record.privacy`."""
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
    """The end of a call as one process noticed it. Several may notice the end of one call, each in its own way: the
    first that the store takes stands, and is told and counted."""

    record: CallRecord
    """The finished record; its timelog ends with the event."""
    event: LifecycleEvent | None
    """None where nobody has heard of the call: it could not even be opened."""
    frames: Mapping[str, int] = field(default_factory=dict)
    """Counts of audio frames, for the line that sums the call up."""


def end_of(record: CallRecord, reason: EndReason, detail: str, at: float | None = None) -> CallEnd:
    """The end, now or at a Unix time, of a call that stands as `record` says. IllegalTransition when it has ended."""
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
    """Have an end stand, told and counted, unless another one does; see `Store.end_call`. Raises StoreError: then it
    may be tried again."""
    if not await parts.store.end_call(end.record, expected):
        return False
    if end.event is not None:
        dispatcher.tell(end.event, end.record, {"reason": end.record.end_reason or ""})
    _count(parts.metrics, end)
    return True


def _count(metrics: Metrics, end: CallEnd) -> None:
    """Once for each call: the metrics, and the line that sums it up."""
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
