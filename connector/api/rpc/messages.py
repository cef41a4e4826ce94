"""Converts call records to protobuf, and makes the page tokens of lists."""

from __future__ import annotations

import base64
import math
import struct

from google.protobuf.timestamp_pb2 import Timestamp

from connector.errors import InvalidArgument
from connector.model.call import CallFilter, CallRecord, CallState, Direction
from connector.model.provider import Provider
from connectorpb.v1 import connector_pb2 as pb

_PROVIDER_NAMES = {
    Provider(name.removeprefix("PROVIDER_").lower()): name
    for name in pb.Call.Provider.keys()  # noqa: SIM118 - it is no mapping
    if name != "PROVIDER_UNSPECIFIED"
}
"""A carrier without a name in the API stays unspecified."""
PROVIDERS = {pb.Call.Provider.Value(name): provider for provider, name in _PROVIDER_NAMES.items()}
STATES = {
    pb.Call.STATE_PENDING: CallState.PENDING,
    pb.Call.STATE_RINGING: CallState.RINGING,
    pb.Call.STATE_ACTIVE: CallState.ACTIVE,
    pb.Call.STATE_ENDED: CallState.ENDED,
}
_STATE_OF = {ours: theirs for theirs, ours in STATES.items()}
_DIRECTION_OF = {
    Direction.INBOUND: pb.Call.DIRECTION_INBOUND,
    Direction.OUTBOUND: pb.Call.DIRECTION_OUTBOUND,
}
DEFAULT_PAGE = 50
LARGEST_PAGE = 1000
_TIME = struct.Struct(">d")


def call_message(record: CallRecord, resume_url: str = "") -> pb.Call:
    message = pb.Call(
        call_id=record.call_id,
        provider=_PROVIDER_NAMES.get(record.provider),
        direction=_DIRECTION_OF[record.direction],
        state=_STATE_OF[record.state],
        room_name=record.room,
        participant_identity=record.identity,
        carrier_call_id=record.carrier_call_id,
        carrier_status=record.carrier_status,
        to=record.to_number,
        created_at=_timestamp(record.created_at),
        end_reason=record.end_reason.value if record.end_reason else "",
        end_detail=record.end_detail,
        transfer_to=record.transfer_to,
        transfer_status=record.transfer_status,
        resume_url=resume_url,
    )
    setattr(message, "from", record.from_number)
    if record.started_at:
        message.started_at.CopyFrom(_timestamp(record.started_at))
    if record.ended_at:
        message.ended_at.CopyFrom(_timestamp(record.ended_at))
    return message


def call_filter(request: pb.ListCallsRequest) -> tuple[CallFilter, int]:
    """Returns the filter and the page size. Raises InvalidArgument, which names the field."""
    if request.page_size > LARGEST_PAGE:
        raise InvalidArgument("page_size", f"is more than {LARGEST_PAGE}")
    if request.state and request.state not in STATES:
        raise InvalidArgument("state", f"{int(request.state)} does not exist")
    if request.provider and request.provider not in PROVIDERS:
        raise InvalidArgument("provider", f"{int(request.provider)} does not exist")
    where = CallFilter(
        room=request.room_name,
        state=STATES.get(request.state),
        provider=PROVIDERS.get(request.provider),
        created_from=_seconds(request.created_after) if request.HasField("created_after") else 0.0,
        created_before=_seconds(request.created_before) if request.HasField("created_before") else None,
        after=_position(request.page_token) if request.page_token else None,
    )
    return where, request.page_size or DEFAULT_PAGE


def page_token(last: CallRecord) -> str:
    """Returns the token of the next page, which begins after this record."""
    return base64.urlsafe_b64encode(_TIME.pack(last.created_at) + last.call_id.encode()).decode()


def _position(token: str) -> tuple[float, str]:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
        created_at, call_id = _TIME.unpack(raw[: _TIME.size])[0], raw[_TIME.size :].decode()
    except (ValueError, struct.error):
        created_at, call_id = math.nan, ""
    if not call_id or not math.isfinite(created_at):
        raise InvalidArgument("page_token", "is not a page token of ListCalls")
    return created_at, call_id


def _timestamp(seconds: float) -> Timestamp:
    """Converts to nanosecond precision, so that `_seconds` returns exactly the same number. With rounding, a filter by
    a call's creation time could miss that call."""
    whole = math.floor(seconds)
    nanos = round((seconds - whole) * 1_000_000_000)
    return Timestamp(seconds=whole + nanos // 1_000_000_000, nanos=nanos % 1_000_000_000)


def _seconds(stamp: Timestamp) -> float:
    return stamp.seconds + stamp.nanos / 1e9
