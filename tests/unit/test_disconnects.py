"""Why LiveKit put the caller out: what ends the call, and after what it joins again."""

from __future__ import annotations

import pytest
from livekit import rtc

from connector.model.end_reason import EndReason
from connector.room.disconnects import end_of, name_of

ENDS = {
    "DUPLICATE_IDENTITY": EndReason.DUPLICATE_IDENTITY,
    "PARTICIPANT_REMOVED": EndReason.PARTICIPANT_REMOVED,
    "ROOM_DELETED": EndReason.ROOM_DELETED,
    "ROOM_CLOSED": EndReason.ROOM_DELETED,
    "USER_UNAVAILABLE": EndReason.PARTICIPANT_REMOVED,
    "USER_REJECTED": EndReason.PARTICIPANT_REMOVED,
    "SIP_TRUNK_FAILURE": EndReason.PARTICIPANT_REMOVED,
    "AGENT_ERROR": EndReason.PARTICIPANT_REMOVED,
}
OUTAGES = {
    "UNKNOWN_REASON",
    "CLIENT_INITIATED",
    "SERVER_SHUTDOWN",
    "STATE_MISMATCH",
    "JOIN_FAILURE",
    "MIGRATION",
    "SIGNAL_CLOSE",
    "CONNECTION_TIMEOUT",
    "MEDIA_FAILURE",
}


def test_every_reason_of_the_sdk_is_decided() -> None:
    assert set(rtc.DisconnectReason.keys()) == ENDS.keys() | OUTAGES


@pytest.mark.parametrize("name", sorted(ENDS.keys() | OUTAGES))
def test_a_decision_about_the_caller_or_its_room_ends_the_call_and_nothing_else_does(name: str) -> None:
    number = rtc.DisconnectReason.Value(name)
    assert end_of(number) is ENDS.get(name)
    assert name_of(number) == name


def test_a_reason_of_a_later_livekit_is_an_outage() -> None:
    assert end_of(999) is None
    assert name_of(999) == "reason 999"
