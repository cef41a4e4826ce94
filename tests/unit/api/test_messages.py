"""Call records as protobuf, and page tokens."""

from __future__ import annotations

import base64
import struct
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.api.rpc.messages import (
    DEFAULT_PAGE,
    LARGEST_PAGE,
    PROVIDERS,
    STATES,
    call_filter,
    call_message,
    page_token,
)
from connector.errors import InvalidArgument
from connector.model.call import CallFilter, CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connectorpb.v1 import connector_pb2 as pb

RECORD = CallRecord(
    call_id="call_1",
    provider=Provider.TWILIO,
    direction=Direction.INBOUND,
    room="room",
    identity="caller",
    state=CallState.ENDED,
    owner="process",
    created_at=1_790_000_000.25,
    carrier_call_id="CA1",
    from_number="+15550000001",
    to_number="+15550000002",
    started_at=1_790_000_001.5,
    ended_at=1_790_000_002.75,
    end_reason=EndReason.BUSY,
    end_detail="why",
    carrier_status="busy",
    transfer_to="+15550000003",
    transfer_status="no-answer",
)
TIMES = st.floats(min_value=0, max_value=4e9)


def test_every_fact_of_a_record_is_told() -> None:
    message = call_message(RECORD, "https://calls.example.com/twilio/t/resume")
    assert {field.name for field, _ in message.ListFields()} == {field.name for field in pb.Call.DESCRIPTOR.fields}
    assert message.resume_url == "https://calls.example.com/twilio/t/resume"
    assert (message.call_id, message.room_name, message.participant_identity) == ("call_1", "room", "caller")
    assert (message.provider, message.direction) == (pb.Call.PROVIDER_TWILIO, pb.Call.DIRECTION_INBOUND)
    assert (message.state, message.end_reason, message.end_detail) == (pb.Call.STATE_ENDED, "busy", "why")
    assert (message.carrier_call_id, message.carrier_status) == ("CA1", "busy")
    assert (message.transfer_to, message.transfer_status) == ("+15550000003", "no-answer")
    assert (getattr(message, "from"), message.to) == ("+15550000001", "+15550000002")
    assert message.created_at.ToMilliseconds() == 1_790_000_000_250
    assert message.started_at.ToMilliseconds() == 1_790_000_001_500
    assert message.ended_at.ToMilliseconds() == 1_790_000_002_750


def test_what_has_not_happened_has_no_time() -> None:
    message = call_message(replace(RECORD, started_at=0.0, ended_at=0.0, end_reason=None))
    assert not message.HasField("started_at")
    assert not message.HasField("ended_at")
    assert message.end_reason == ""


@pytest.mark.parametrize("provider", Provider)
def test_every_carrier_has_a_number(provider: Provider) -> None:
    assert PROVIDERS[call_message(replace(RECORD, provider=provider)).provider] is provider


@pytest.mark.parametrize("state", CallState)
def test_every_state_has_a_number(state: CallState) -> None:
    assert STATES[call_message(replace(RECORD, state=state)).state] is state


def test_every_number_has_a_meaning() -> None:
    assert {0, *PROVIDERS} == set(pb.Call.Provider.values())
    assert {0, *STATES} == set(pb.Call.State.values())


@given(TIMES)
def test_a_time_comes_back_as_the_same_number(seconds: float) -> None:
    """To the last bit, while a number of this size is no finer than a nanosecond."""
    seconds = 1e9 + seconds / 4
    told = call_message(replace(RECORD, created_at=seconds)).created_at
    assert 0 <= told.nanos < 1_000_000_000
    where, _ = call_filter(pb.ListCallsRequest(created_after=told, created_before=told))
    assert (where.created_from, where.created_before) == (seconds, seconds)


def test_a_request_without_a_filter_wants_everything() -> None:
    assert call_filter(pb.ListCallsRequest()) == (CallFilter(), DEFAULT_PAGE)


@pytest.mark.parametrize(("asked", "given_"), [(0, DEFAULT_PAGE), (1, 1), (LARGEST_PAGE, LARGEST_PAGE)])
def test_page_sizes(asked: int, given_: int) -> None:
    assert call_filter(pb.ListCallsRequest(page_size=asked))[1] == given_


@given(TIMES, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_a_page_token_says_where_the_page_ended(created_at: float, call_id: str) -> None:
    token = page_token(replace(RECORD, created_at=created_at, call_id=call_id))
    assert token.isascii()
    where, _ = call_filter(pb.ListCallsRequest(page_token=token))
    assert where.after == (created_at, call_id)


def _token(created_at: float, call_id: bytes = b"call_1") -> str:
    return base64.urlsafe_b64encode(struct.pack(">d", created_at) + call_id).decode()


@pytest.mark.parametrize(
    "token",
    [
        "x",
        "nonsense!",
        "AAAA",
        "é",
        _token(1.0, b""),
        _token(1.0, b"\xff"),
        _token(float("nan")),
        _token(float("-inf")),
    ],
)
def test_another_page_token_is_refused(token: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        call_filter(pb.ListCallsRequest(page_token=token))
    assert caught.value.field == "page_token"


@given(st.text(max_size=60))
def test_no_page_token_makes_us_stumble(token: str) -> None:
    try:
        where, _ = call_filter(pb.ListCallsRequest(page_token=token))
    except InvalidArgument:
        return
    assert token == "" or where.after is not None


@pytest.mark.parametrize(
    ("field", "value"), [("page_size", LARGEST_PAGE + 1), ("state", 99), ("provider", 99), ("state", -1)]
)
def test_what_does_not_exist_is_named(field: str, value: int) -> None:
    request = pb.ListCallsRequest()
    setattr(request, field, value)
    with pytest.raises(InvalidArgument) as caught:
        call_filter(request)
    assert caught.value.field == field
