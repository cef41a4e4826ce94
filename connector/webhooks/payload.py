"""The body of a delivery: `{"webhookType": …, "id": …, "createdAt": …, "data": {…}}`.

VideoSDK documents the envelope and the event names, but not the content of `data`. So `data` is the call as the REST
API shows it, plus the fields that only an event has. docs/webhooks.md shows each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import orjson
from pydantic.alias_generators import to_camel

from connector.model.call import CallRecord
from connector.model.webhook import LifecycleEvent
from connector.times import iso_utc

Describe = Callable[[CallRecord], Mapping[str, object]]
"""Returns the call as `GET /v2/sip/call/{callId}` shows it, in JSON types."""


def body(
    delivery_id: str,
    event: LifecycleEvent,
    record: CallRecord,
    details: Mapping[str, str],
    happened_at: float,
    describe: Describe,
) -> str:
    """The JSON text of a delivery. `details`: facts of the event itself, such as the target of a transfer."""
    # Without updates: a long call may have thousands, and each body would contain all earlier ones.
    moments = tuple((name, at) for name, at in record.timelog if name != LifecycleEvent.UPDATE)
    document = {
        "webhookType": event.value,
        "id": delivery_id,
        "createdAt": iso_utc(happened_at),
        "data": {
            **describe(replace(record, timelog=moments)),
            **_status(event, details),
            "providerCallId": record.carrier_call_id or None,
            "answeredAt": _iso(record.started_at),
            "durationSeconds": _seconds(record),
            "additionalDetails": {to_camel(name): value for name, value in details.items()},
        },
    }
    return orjson.dumps(document).decode()


def _status(event: LifecycleEvent, details: Mapping[str, str]) -> Mapping[str, str]:
    """The status, if the event says more than the call's state; values of `SipCallStatus` in VideoSDK's SDK."""
    if event is LifecycleEvent.TRANSFERRED:
        return {"status": "transferred"}
    if event is LifecycleEvent.UPDATE and details.get("change") == "room":
        return {"status": "switch-room-completed"}
    return {}


def _iso(at: float) -> str | None:
    """ISO time of Unix seconds; None for 0.0, which means not yet."""
    return iso_utc(at) if at else None


def _seconds(record: CallRecord) -> float | None:
    if not record.started_at or not record.ended_at:
        return None
    return round(record.ended_at - record.started_at, 3)
