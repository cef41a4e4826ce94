"""How a call's record begins and ends, whoever writes it: the process that carries the call, one that tidies up after
another, or the carrier's reports of a call that no process holds."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from connector.call.state import Trigger, next_state
from connector.metrics import Metrics
from connector.model import CallRecord, CallRequest, CallState, EndReason, LifecycleEvent

log = structlog.get_logger()


def new_record(request: CallRequest, owner: str) -> CallRecord:
    """Of a call that begins now. `request` must show what may be kept; see `connector.call.privacy`."""
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
    )


def ended(record: CallRecord, reason: EndReason, detail: str) -> CallRecord:
    """The record of a call that ends now. IllegalTransition when it has ended already."""
    state = next_state(record.direction, record.state, Trigger.END)
    return replace(record, state=state, ended_at=time.time(), end_reason=reason, end_detail=detail)


def event_of_end(record: CallRecord) -> LifecycleEvent:
    """What customers are told when a call that is where this one is now ends."""
    return LifecycleEvent.HANGUP if record.state is CallState.ACTIVE else LifecycleEvent.MISSED


def count_end(metrics: Metrics, ended: CallRecord, **frames: int) -> None:
    """Once for each call: the metrics, and the line that sums it up."""
    reason = ended.end_reason.value if ended.end_reason else ""
    metrics.calls.labels(ended.provider.value, ended.direction.value, reason).inc()
    seconds = ended.ended_at - ended.started_at if ended.started_at else 0.0
    if ended.started_at:
        metrics.duration.labels(ended.direction.value).observe(seconds)
    log.info("call ended", reason=reason, detail=ended.end_detail or None, seconds=round(seconds, 3), **frames)
