"""Plivo, as a call sees it: ids, form fields, XML, the stream's messages."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence

from carrier_simulator.api import E164
from carrier_simulator.faults import CarrierError, Fault
from carrier_simulator.plivo.documents import parse_plivo_xml
from carrier_simulator.plivo.messages import Ids, PlivoWire
from carrier_simulator.record import CallRecord
from carrier_simulator.terms import FINAL, CallStatus
from carrier_simulator.verbs import Stream, Verb
from carrier_simulator.web import Form
from carrier_simulator.wire import Wire

_STATUSES = {CallStatus.CANCELED: "cancel", CallStatus.INITIATED: "ringing", CallStatus.QUEUED: "ringing"}
"""Where Plivo's word is another."""
_LEG_STATUSES = {CallStatus.IN_PROGRESS: "answer"}
_STREAM_EVENTS = {
    "started": "StartStream",
    "stopped": "StopStream",
    "lost": "DroppedStream",
    "error": "DroppedStream",
}


def bare(number: str) -> str:
    """Plivo writes numbers without their plus."""
    return number.removeprefix("+")


def status_of(call: CallRecord) -> str:
    return _STATUSES.get(call.status, call.status.value)


class PlivoDialect:
    name = "Plivo"

    def __init__(self, auth_id: str) -> None:
        self.account_id = auth_id

    def call_id(self) -> str:
        return str(uuid.uuid4())

    def form(self, call: CallRecord) -> Form:
        fields = [
            ("CallUUID", call.sid),
            ("From", bare(call.from_)),
            ("To", bare(call.to)),
            ("CallStatus", status_of(call)),
            ("Direction", call.direction),
            ("Event", "Hangup" if call.status in FINAL else "StartApp"),
            ("ParentAuthID", self.account_id),
        ]
        if call.direction == "outbound":
            fields += [("ALegUUID", call.sid), ("ALegRequestUUID", call.sid)]
        return fields

    def gathered(self, digits: str) -> Form:
        return [("Digits", digits), ("InputType", "dtmf")]

    def dialled(self, leg_id: str, status: CallStatus, seconds: int) -> Form:
        return [("DialStatus", status.value), ("DialBLegUUID", leg_id), ("DialBLegDuration", str(seconds))]

    def leg_notice(self, call: CallRecord, leg_id: str, address: str, status: CallStatus) -> Form:
        return [
            ("CallUUID", call.sid),
            ("DialALegUUID", call.sid),
            ("DialBLegUUID", leg_id),
            ("DialBLegFrom", bare(call.from_)),
            ("DialBLegTo", bare(address)),
            ("DialBLegStatus", _LEG_STATUSES[status]),
            ("DialAction", _LEG_STATUSES[status]),
            ("Event", "DialAnswer"),
        ]

    def hung_up(self) -> dict[str, str]:
        return {"CallStatus": CallStatus.COMPLETED.value, "Event": "Hangup"}

    def caller_id_fault(self, call: CallRecord, caller_id: str) -> CarrierError | None:
        if not caller_id or E164.fullmatch("+" + bare(caller_id)):
            return None
        return CarrierError(Fault.CALLER_ID, f"callerId {caller_id!r} is not a valid phone number")

    def streamed(self, stream_id: str) -> Form:
        return [("StreamID", stream_id)]

    def stream_notice(self, call: CallRecord, stream_id: str, event: str) -> Form:
        return [
            ("CallUUID", call.sid),
            ("StreamID", stream_id),
            ("Event", _STREAM_EVENTS[event]),
            ("From", bare(call.from_)),
            ("To", bare(call.to)),
            ("Timestamp", str(round(time.time() * 1000))),
        ]

    def notice(self, call: CallRecord, sequence: int) -> Form:
        seconds = str(call.duration or 0)
        return [*self.form(call), ("Duration", seconds), ("BillDuration", seconds)]

    def parse(self, body: bytes, content_type: str) -> Sequence[Verb]:
        return parse_plivo_xml(body, content_type)

    def wire(self, call: CallRecord, stream: Stream) -> Wire:
        ids = Ids(str(uuid.uuid4()), call.sid, self.account_id)
        return PlivoWire(ids, stream, round(time.time() * 1000))
