"""Twilio, as a call sees it: ids, form fields, TwiML, the stream's messages."""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import format_datetime

from carrier_simulator.api import E164
from carrier_simulator.faults import CarrierError, Fault
from carrier_simulator.record import CallRecord
from carrier_simulator.terms import FINAL, CallStatus
from carrier_simulator.twilio.messages import TwilioWire
from carrier_simulator.twilio.twiml import parse_twiml
from carrier_simulator.verbs import Stream, Verb
from carrier_simulator.web import Form
from carrier_simulator.wire import Wire

API_VERSION = "2010-04-01"
_STREAM_EVENTS = {
    "started": "stream-started",
    "stopped": "stream-stopped",
    "lost": "stream-stopped",
    "error": "stream-error",
}
DIRECTIONS = {"inbound": "inbound", "outbound": "outbound-api"}


class TwilioDialect:
    name = "Twilio"

    def __init__(self, account_sid: str) -> None:
        self.account_id = account_sid

    def call_id(self) -> str:
        return "CA" + secrets.token_hex(16)

    def form(self, call: CallRecord) -> Form:
        fields = [
            ("CallSid", call.sid),
            ("AccountSid", self.account_id),
            ("From", call.from_),
            ("To", call.to),
            ("Caller", call.from_),
            ("Called", call.to),
            ("CallStatus", call.status.value),
            ("ApiVersion", API_VERSION),
            ("Direction", DIRECTIONS[call.direction]),
        ]
        if call.direction == "inbound":
            fields += [("FromCountry", "US"), ("ToCountry", "US")]
        return fields

    def gathered(self, digits: str) -> Form:
        return [("Digits", digits)]

    def dialled(self, leg_id: str, status: CallStatus, seconds: int) -> Form:
        return [("DialCallStatus", status.value), ("DialCallSid", leg_id), ("DialCallDuration", str(seconds))]

    def leg_notice(self, call: CallRecord, leg_id: str, address: str, status: CallStatus) -> Form:
        form = dict(self.form(call)) | {
            "CallSid": leg_id,
            "ParentCallSid": call.sid,
            "To": address,
            "Called": address,
            "CallStatus": status.value,
            "Direction": "outbound-dial",
            "CallbackSource": "call-progress-events",
        }
        return list(form.items())

    def hung_up(self) -> dict[str, str]:
        return {"CallStatus": CallStatus.COMPLETED.value}

    def caller_id_fault(self, call: CallRecord, caller_id: str) -> CarrierError | None:
        """https://www.twilio.com/docs/api/errors/13214"""
        number = caller_id or call.from_
        if E164.fullmatch(number):
            return None
        return CarrierError(Fault.CALLER_ID, f"Dial: Invalid callerId value {number!r}")

    def streamed(self, stream_id: str) -> Form:
        return [("StreamSid", stream_id)]

    def stream_notice(self, call: CallRecord, stream_id: str, event: str) -> Form:
        return [
            ("AccountSid", self.account_id),
            ("CallSid", call.sid),
            ("StreamSid", stream_id),
            ("StreamName", stream_id),
            ("StreamEvent", _STREAM_EVENTS[event]),
            ("Timestamp", datetime.now(UTC).isoformat()),
        ]

    def notice(self, call: CallRecord, sequence: int) -> Form:
        form = [*self.form(call), ("CallbackSource", "call-progress-events")]
        if call.status in FINAL:
            seconds = call.duration or 0
            form += [("CallDuration", str(seconds)), ("Duration", str(math.ceil(seconds / 60)))]
        return [*form, ("Timestamp", format_datetime(datetime.now(UTC))), ("SequenceNumber", str(sequence))]

    def parse(self, body: bytes, content_type: str) -> Sequence[Verb]:
        return parse_twiml(body, content_type)

    def wire(self, call: CallRecord, stream: Stream) -> Wire:
        return TwilioWire(self.account_id, call.sid, "MZ" + secrets.token_hex(16), stream.parameters)
