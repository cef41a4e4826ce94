"""Telnyx, as a call sees it: ids, form fields, TeXML, the stream's messages."""

from __future__ import annotations

import secrets
import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from hashlib import sha256

from carrier_simulator.api import E164
from carrier_simulator.faults import CarrierError, Fault
from carrier_simulator.record import CallRecord
from carrier_simulator.telnyx.messages import Ids, TelnyxWire
from carrier_simulator.telnyx.texml import parse_texml
from carrier_simulator.terms import FINAL, CallStatus
from carrier_simulator.verbs import Stream, Verb
from carrier_simulator.web import Form
from carrier_simulator.wire import Wire

_STREAM_EVENTS = {
    "started": "stream-started",
    "stopped": "stream-stopped",
    "lost": "stream-stopped",
    "error": "stream-error",
}


def call_control_id(call_sid: str) -> str:
    """Telnyx's id of a call everywhere except in TeXML's forms, which do not have it."""
    return "v3:" + sha256(call_sid.encode()).hexdigest()[:48]


class TelnyxDialect:
    name = "Telnyx"

    def __init__(self, account_sid: str, connection_id: str) -> None:
        self.account_id = account_sid
        self._connection_id = connection_id
        self.call_codec: tuple[str, int] | None = None
        """A codec that Telnyx does not convert, and its rate: calls in it are streamed in it, whatever is asked for."""

    def call_id(self) -> str:
        return "v3:" + secrets.token_urlsafe(40)

    def form(self, call: CallRecord) -> Form:
        return [
            ("AccountSid", self.account_id),
            ("ApiVersion", "v2/texml"),
            ("CallSid", call.sid),
            ("CallSidLegacy", call.sid),
            ("CallStatus", call.status.value),
            ("ConnectionId", self._connection_id),
            ("Direction", call.direction),
            ("From", call.from_),
            ("To", call.to),
        ]

    def gathered(self, digits: str) -> Form:
        return [("Digits", digits)]

    def dialled(self, leg_id: str, status: CallStatus, seconds: int) -> Form:
        return [("DialCallStatus", status.value), ("DialCallSid", leg_id), ("DialCallDuration", str(seconds))]

    def leg_notice(self, call: CallRecord, leg_id: str, address: str, status: CallStatus) -> Form:
        return [
            ("AccountSid", self.account_id),
            ("CallSid", leg_id),
            ("ParentCallSid", call.sid),
            ("From", call.from_),
            ("To", address),
            ("CallStatus", status.value),
            ("CallbackSource", "call-progress-events"),
            ("Timestamp", datetime.now(UTC).isoformat()),
        ]

    def hung_up(self) -> dict[str, str]:
        return {"CallStatus": CallStatus.COMPLETED.value}

    def caller_id_fault(self, call: CallRecord, caller_id: str) -> CarrierError | None:
        """https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/dial"""
        if not caller_id or E164.fullmatch(caller_id):
            return None
        return CarrierError(Fault.CALLER_ID, f"callerId {caller_id!r} is not in E.164 format")

    def streamed(self, stream_id: str) -> Form:
        return [("StreamSid", stream_id)]

    def stream_notice(self, call: CallRecord, stream_id: str, event: str) -> Form:
        return [
            ("AccountSid", self.account_id),
            ("CallSid", call.sid),
            ("StreamSid", stream_id),
            ("StreamEvent", _STREAM_EVENTS[event]),
            ("Timestamp", datetime.now(UTC).isoformat()),
        ]

    def notice(self, call: CallRecord, sequence: int) -> Form:
        form = [*self.form(call), ("CallbackSource", "call-progress-events"), ("SequenceNumber", str(sequence))]
        if call.status in FINAL:
            form.append(("CallDuration", str(call.duration or 0)))
        return [*form, ("Timestamp", datetime.now(UTC).isoformat())]

    def parse(self, body: bytes, content_type: str) -> Sequence[Verb]:
        return parse_texml(body, content_type)

    def wire(self, call: CallRecord, stream: Stream) -> Wire:
        ids = Ids(
            str(uuid.uuid4()).upper(),
            self.account_id,
            call_control_id(call.sid),
            str(uuid.uuid5(uuid.NAMESPACE_URL, call.sid)),
            call.from_,
            call.to,
        )
        return TelnyxWire(ids, stream, time.monotonic, self.call_codec)
