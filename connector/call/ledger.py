"""The record of one call while it lives: what is known of it, its state, and what the room is told of it."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from connector.call.bridge import Bridge
from connector.call.state import Trigger, next_state
from connector.call.terms import End, Parts
from connector.errors import ConnectorError
from connector.model import CallRecord, CallRequest, CallState

log = structlog.get_logger()

MAX_ATTRIBUTES = 63 * 1024
"""Bytes of keys and values; livekit-server's own limit is 64 KiB, the rest is for `callStatus`."""


class Ledger:
    """The only writer of a call's record."""

    def __init__(self, request: CallRequest, parts: Parts) -> None:
        self._request = request
        self._parts = parts
        self.record = CallRecord(
            call_id=request.call_id,
            provider=request.provider,
            direction=request.direction,
            room=request.room,
            identity=request.participant.identity,
            state=CallState.PENDING,
            owner=parts.owner,
            created_at=time.time(),
        )

    def learn(
        self, *, carrier_call_id: str = "", from_number: str = "", to_number: str = "", carrier_status: str = ""
    ) -> None:
        """What the carrier tells; an empty string teaches nothing."""
        old = self.record
        self.record = replace(
            old,
            carrier_call_id=carrier_call_id or old.carrier_call_id,
            from_number=from_number or old.from_number,
            to_number=to_number or old.to_number,
            carrier_status=carrier_status or old.carrier_status,
        )

    def advance(self, trigger: Trigger) -> None:
        """IllegalTransition when the state has no such edge."""
        self.record = replace(self.record, state=next_state(self._request.direction, self.record.state, trigger))

    def start(self) -> None:
        self.advance(Trigger.STREAM_STARTED)
        self.record = replace(self.record, started_at=time.time())

    def finish(self, end: End) -> None:
        self.advance(Trigger.END)
        self.record = replace(self.record, ended_at=time.time(), end_reason=end.reason, end_detail=end.detail)

    def attributes(self, status: str) -> dict[str, str]:
        """The request's attributes and ours; see docs/attributes.md."""
        ours = {
            "connector.callId": self._request.call_id,
            "connector.provider": self._request.provider.value,
            "connector.direction": self._request.direction.value,
            "connector.callStatus": status,
        }
        if self.record.from_number:
            ours["phone.from"] = self.record.from_number
        if self.record.to_number:
            ours["phone.to"] = self.record.to_number
        return self._request.participant.attributes | ours

    async def save(self) -> None:
        """For a moment of a live call: a store that fails must not end it."""
        try:
            await self._parts.store.save_call(self.record)
        except ConnectorError as error:
            log.warning("the call record could not be saved", error=error.message)

    def observe(self, step: str, started: float) -> None:
        """A step of the set-up took from `started`, monotonic, until now."""
        self._parts.metrics.setup.labels(step, self._request.direction.value).observe(time.monotonic() - started)

    def count(self, end: End, bridge: Bridge) -> None:
        """Once, when the record is finished: metrics and the line that sums the call up."""
        metrics, record = self._parts.metrics, self.record
        metrics.calls.labels(record.provider.value, record.direction.value, end.reason.value).inc()
        seconds = record.ended_at - record.started_at if record.started_at else 0.0
        if record.started_at:
            metrics.duration.labels(record.direction.value).observe(seconds)
        log.info(
            "call ended",
            reason=end.reason.value,
            detail=end.detail or None,
            seconds=round(seconds, 3),
            heard_frames=bridge.heard_frames,
            sent_frames=bridge.sent_frames,
            dropped_frames=bridge.dropped_frames,
        )


def that_fit(more: dict[str, str], kept: dict[str, str]) -> dict[str, str]:
    """Stream parameters are the carrier's to fill; those past LiveKit's limit must not keep the caller out."""
    left = MAX_ATTRIBUTES - sum(len(key.encode()) + len(value.encode()) for key, value in kept.items())
    fitting = {}
    for key, value in more.items():
        left -= len(key.encode()) + len(value.encode())
        if left < 0:
            log.warning("stream parameters left out: together they pass LiveKit's limit", first=key)
            break
        fitting[key] = value
    return fitting
