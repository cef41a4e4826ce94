"""The body of a delivery: `{"webhookType": …, "id": …, "createdAt": …, "data": {…}}`.

VideoSDK documents the envelope and the names of the events, not what is in `data`. So `data` has the fields of a call
as `GET /v2/sip/call/{callId}` names them (`SipCall` of npm `@videosdk.live/server-sdk`), under `callId` instead of
`id`, and beside them what only we can tell. docs/webhooks.md shows each event.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import orjson
from pydantic.alias_generators import to_camel

from connector.model import CallRecord, CallState, Direction, EndReason, LifecycleEvent

_NOT_REACHED = frozenset({EndReason.NO_ANSWER, EndReason.BUSY})
_FAILED = frozenset(
    {
        EndReason.CARRIER_FAILED,
        EndReason.LIVEKIT_UNAVAILABLE,
        EndReason.INTERNAL_ERROR,
        EndReason.PROTOCOL_ERROR,
        EndReason.CALL_MISMATCH,
    }
)


def body(
    delivery_id: str, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str], happened_at: float
) -> str:
    """`details` are what the event itself has to say, such as where a call was transferred to."""
    document = {
        "webhookType": event.value,
        "id": delivery_id,
        "createdAt": iso(happened_at),
        "data": {
            "callId": record.call_id,
            "type": record.direction.value,
            "provider": record.provider.value,
            "connectorId": record.connector_id or None,
            "ruleId": record.rule_id or None,
            "roomId": record.room,
            "participantId": record.identity,
            "from": record.from_number or None,
            "to": record.to_number or None,
            "status": status_of(event, record, details),
            "region": record.region or None,
            "providerCallId": record.carrier_call_id or None,
            "createdAt": iso(record.created_at),
            "start": iso(record.started_at),
            "end": iso(record.ended_at),
            "durationSeconds": _seconds(record),
            "endReason": record.end_reason.value if record.end_reason else None,
            # Without updates, of which a long call may have thousands: each body would hold all before it.
            "timelog": [{"event": name, "at": iso(at)} for name, at in record.timelog if name != LifecycleEvent.UPDATE],
            "additionalDetails": {to_camel(name): value for name, value in details.items()},
        },
    }
    return orjson.dumps(document).decode()


def status_of(event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> str:
    """One of `SipCallStatus` of npm `@videosdk.live/server-sdk`."""
    match event:
        case LifecycleEvent.STARTED:
            return "incoming" if record.direction is Direction.INBOUND else "initiated"
        case LifecycleEvent.RINGING:
            return "ringing"
        case LifecycleEvent.ANSWERED:
            return "answered"
        case LifecycleEvent.TRANSFERRED:
            return "transferred"
        case LifecycleEvent.MISSED:
            return _missed(record)
        case LifecycleEvent.HANGUP:
            return "ended" if record.started_at else _missed(record)
        case LifecycleEvent.UPDATE if details.get("change") == "room":
            return "switch-room-completed"
        case _:
            return _at_present(record)


def _missed(record: CallRecord) -> str:
    if record.end_reason in _FAILED:
        return "failed"
    return "not-answered" if record.end_reason in _NOT_REACHED else "missed"


def _at_present(record: CallRecord) -> str:
    match record.state:
        case CallState.PENDING:
            return "incoming" if record.direction is Direction.INBOUND else "initiated"
        case CallState.RINGING:
            return "ringing"
        case CallState.ACTIVE:
            return "answered"
        case CallState.ENDED:
            return "ended"


def iso(at: float) -> str | None:
    """Unix seconds as VideoSDK writes times, `2026-01-31T12:00:00.000Z`; None for 0.0, which has not come."""
    if not at:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _seconds(record: CallRecord) -> float | None:
    if not record.started_at or not record.ended_at:
        return None
    return round(record.ended_at - record.started_at, 3)
