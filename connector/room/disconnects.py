"""Maps LiveKit's disconnect reasons: some end the call, all others are an outage, after which the caller rejoins."""

from __future__ import annotations

from livekit import rtc

from connector.model.end_reason import EndReason

_R = rtc.DisconnectReason

_DECISIONS: dict[int, EndReason] = {
    _R.DUPLICATE_IDENTITY: EndReason.DUPLICATE_IDENTITY,
    _R.PARTICIPANT_REMOVED: EndReason.PARTICIPANT_REMOVED,
    _R.ROOM_DELETED: EndReason.ROOM_DELETED,
    _R.ROOM_CLOSED: EndReason.ROOM_DELETED,
    # LiveKit's reasons for the end of a SIP leg or an agent. Our participants should not get them, but each means that
    # this one participant must not come back.
    _R.USER_UNAVAILABLE: EndReason.PARTICIPANT_REMOVED,
    _R.USER_REJECTED: EndReason.PARTICIPANT_REMOVED,
    _R.SIP_TRUNK_FAILURE: EndReason.PARTICIPANT_REMOVED,
    _R.AGENT_ERROR: EndReason.PARTICIPANT_REMOVED,
}
"""Reasons that mean: somebody, or LiveKit, has removed this participant or closed this room. All other reasons mean
a lost connection or a server shutdown. CLIENT_INITIATED without our request means a failure inside the SDK."""


def end_of(reason: int) -> EndReason | None:
    """The end reason of the call; None for an outage. Reasons unknown to this SDK version count as outages."""
    return _DECISIONS.get(reason)


def name_of(reason: int) -> str:
    try:
        return _R.Name(reason)  # type: ignore[arg-type]
    except ValueError:
        return f"reason {reason}"
