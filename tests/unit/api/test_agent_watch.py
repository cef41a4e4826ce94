"""What requests and rules say about a call that nobody talks with."""

from __future__ import annotations

from typing import Any

import pytest

from connector.api.rpc.requests import placed_call_request, plivo_call_request, telnyx_call_request, twilio_call_request
from connector.errors import InvalidArgument
from connector.model.call import AgentWatch
from connectorpb.v1 import connector_pb2 as pb

ATTRIBUTES = {
    "ticket": "7",
    "connector.agentWarnAfter": "0",
    "connector.agentTimeout": "12.5",
    "connector.roomEmptyTimeout": "3",
    "connector.fallbackAgent": "reserve",
    "connector.fallbackNumber": "+15551234567",
    "connector.noAgentMessage": "Nobody is here. Goodbye.",
}
_PLACED = pb.PlaceTwilioCallRequest(room_name="lobby", to="+15551234567")
setattr(_PLACED, "from", "+15557654321")
REQUESTS: list[Any] = [
    (twilio_call_request, pb.ConnectTwilioCallRequest(room_name="lobby")),
    (telnyx_call_request, pb.ConnectTelnyxCallRequest(room_name="lobby")),
    (plivo_call_request, pb.ConnectPlivoCallRequest(room_name="lobby")),
    (placed_call_request, _PLACED),
]


@pytest.mark.parametrize(("check", "request_"), REQUESTS)
def test_the_attributes_are_read_and_not_kept(check: Any, request_: Any) -> None:
    request_.participant_attributes.update(ATTRIBUTES)
    made = check(request_)
    assert made.watch == AgentWatch(0.0, 12.5, 3.0, "reserve", "+15551234567", "Nobody is here. Goodbye.")
    assert made.participant.attributes == {"ticket": "7"}


def test_without_them_all_is_left_open() -> None:
    assert twilio_call_request(pb.ConnectTwilioCallRequest(room_name="lobby")).watch == AgentWatch()


def test_an_empty_text_turns_a_step_off() -> None:
    request = pb.ConnectTwilioCallRequest(room_name="lobby")
    request.participant_attributes["connector.fallbackNumber"] = ""
    watch = twilio_call_request(request).watch
    assert watch.over(AgentWatch(fallback_number="+15551234567")).fallback_number == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("connector.agentTimeout", ""),
        ("connector.agentTimeout", "soon"),
        ("connector.agentTimeout", "-1"),
        ("connector.agentTimeout", "nan"),
        ("connector.agentTimeout", "inf"),
        ("connector.agentWarnAfter", "86401"),
        ("connector.roomEmptyTimeout", "1e9"),
        ("connector.fallbackNumber", "5551234"),
        ("connector.fallbackAgent", "x" * 257),
        ("connector.noAgentMessage", "x" * 4097),
        ("connector.noAgentMessage", "a\x00b"),
        ("connector.agentTimeOut", "5"),
    ],
)
def test_what_cannot_be_used_is_refused_by_its_name(key: str, value: str) -> None:
    request = pb.ConnectTwilioCallRequest(room_name="lobby")
    request.participant_attributes[key] = value
    with pytest.raises(InvalidArgument, match=r"connector\."):
        twilio_call_request(request)
