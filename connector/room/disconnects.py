"""Why LiveKit put the caller out of its room: what ends the call, and what is an outage, after which it joins again."""

from __future__ import annotations

from livekit import rtc

from connector.model import EndReason

_R = rtc.DisconnectReason

_DECISIONS: dict[int, EndReason] = {
    _R.DUPLICATE_IDENTITY: EndReason.DUPLICATE_IDENTITY,
    _R.PARTICIPANT_REMOVED: EndReason.PARTICIPANT_REMOVED,
    _R.ROOM_DELETED: EndReason.ROOM_DELETED,
    _R.ROOM_CLOSED: EndReason.ROOM_DELETED,
    # LiveKit's words for the end of a SIP leg and of an agent: no phone of ours gets them, but each is said of one
    # participant, who is not to come back.
    _R.USER_UNAVAILABLE: EndReason.PARTICIPANT_REMOVED,
    _R.USER_REJECTED: EndReason.PARTICIPANT_REMOVED,
    _R.SIP_TRUNK_FAILURE: EndReason.PARTICIPANT_REMOVED,
    _R.AGENT_ERROR: EndReason.PARTICIPANT_REMOVED,
}
"""Somebody, or LiveKit, wants this participant out or this room closed. All other reasons speak of a connection or of a
server that stops, and CLIENT_INITIATED, without our asking, of the SDK's own failure."""


def end_of(reason: int) -> EndReason | None:
    """The call's end, None for an outage; numbers that this SDK has no name for yet are outages."""
    return _DECISIONS.get(reason)


def name_of(reason: int) -> str:
    try:
        return _R.Name(reason)  # type: ignore[arg-type]
    except ValueError:
        return f"reason {reason}"
