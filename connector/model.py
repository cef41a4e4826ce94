"""The words of the domain: what a call is, who is in it and how it can end."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from enum import StrEnum


class Direction(StrEnum):
    """Seen from the phone network: `INBOUND` is a person who calls us."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Provider(StrEnum):
    TWILIO = "twilio"
    TELNYX = "telnyx"
    PLIVO = "plivo"


class CallState(StrEnum):
    """`RINGING` is the hidden wait of an outbound call; see `connector.call.state`."""

    PENDING = "pending"
    RINGING = "ringing"
    ACTIVE = "active"
    ENDED = "ended"


class EndReason(StrEnum):
    """How a call ended. One per call; logs, metrics, attributes and the API all use these words."""

    CARRIER_HANGUP = "carrier_hangup"
    """The carrier said `stop`: the person hung up."""
    CARRIER_CLOSED = "carrier_closed"
    """The media socket was closed properly, without a `stop`."""
    CARRIER_LOST = "carrier_lost"
    """The media socket broke without a close."""
    PROTOCOL_ERROR = "protocol_error"
    """The carrier's side broke the stream protocol."""
    CALL_MISMATCH = "call_mismatch"
    """The stream belongs to another call than the one that fetched the connect_url."""
    ROOM_DELETED = "room_deleted"
    PARTICIPANT_REMOVED = "participant_removed"
    DUPLICATE_IDENTITY = "duplicate_identity"
    """Another participant joined the room with the caller's identity."""
    LIVEKIT_LOST = "livekit_lost"
    """The connection to LiveKit broke and did not come back."""
    LIVEKIT_UNAVAILABLE = "livekit_unavailable"
    """The room could not be joined or published to."""
    CONNECT_TIMEOUT = "connect_timeout"
    """Nobody opened the media socket in time."""
    MEDIA_TIMEOUT = "media_timeout"
    """The media socket stayed open but said nothing."""
    MAX_DURATION = "max_duration"
    SHUTDOWN = "shutdown"
    """The service was stopped."""
    INTERRUPTED = "interrupted"
    """The process that held the call died; found at the next start."""
    BUSY = "busy"
    """The callee's line was busy; known for calls that the connector placed itself."""
    NO_ANSWER = "no_answer"
    CANCELED = "canceled"
    """Hung up by our side before the callee answered."""
    CARRIER_FAILED = "carrier_failed"
    """The carrier could not place the call: a wrong number, no permission, its own failure."""
    ENDED_BY_API = "ended_by_api"
    INTERNAL_ERROR = "internal_error"
    """A bug of ours; the log has the traceback."""


@dataclass(frozen=True, slots=True)
class AgentDispatch:
    """One agent to send into the room; the fields are those of LiveKit's `RoomAgentDispatch`."""

    agent_name: str
    metadata: str = ""
    restart_policy: int = 0
    deployment: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ParticipantSpec:
    """How the caller appears in the room."""

    identity: str
    name: str = ""
    metadata: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """What the client asked for, checked."""

    call_id: str
    provider: Provider
    direction: Direction
    room: str
    participant: ParticipantSpec
    agents: tuple[AgentDispatch, ...] = ()
    destination_country: str = ""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """What is kept of a call. Times are Unix seconds, 0.0 where the moment has not come."""

    call_id: str
    provider: Provider
    direction: Direction
    room: str
    identity: str
    state: CallState
    owner: str
    created_at: float
    carrier_call_id: str = ""
    from_number: str = ""
    to_number: str = ""
    started_at: float = 0.0
    ended_at: float = 0.0
    end_reason: EndReason | None = None
    end_detail: str = ""
    carrier_status: str = ""
    """What the carrier last said of the call, in Twilio's words; empty when it was not asked to tell."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """Which call records to find; what is empty or None does not restrict. Times are Unix seconds."""

    room: str = ""
    state: CallState | None = None
    provider: Provider | None = None
    created_from: float = 0.0
    """At or after."""
    created_before: float | None = None
    after: tuple[float, str] | None = None
    """Creation time and id of the last record of the page before."""


def new_call_id() -> str:
    """An id nobody can guess: 96 bits, safe in a URL path."""
    return "call_" + secrets.token_hex(12)
