"""A call: its request, its record, its transfer and hang-up, and the filter for records."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum

from connector.model.end_reason import EndReason
from connector.model.provider import Provider


class Direction(StrEnum):
    """Direction of the phone call: `INBOUND` is a person who calls us."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class CallState(StrEnum):
    """`RINGING`: an outbound call waits for the answer as a hidden participant; see `connector.call.record.changes`."""

    PENDING = "pending"
    RINGING = "ringing"
    ACTIVE = "active"
    ENDED = "ended"


LIVE_STATES = (CallState.PENDING, CallState.RINGING, CallState.ACTIVE)


class TransferStatus(StrEnum):
    """Progress of a transfer, in the terms that the carriers share."""

    INITIATED = "initiated"
    RINGING = "ringing"
    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"
    """The carrier has not reported the outcome."""


NOT_REACHED = frozenset({TransferStatus.BUSY, TransferStatus.NO_ANSWER, TransferStatus.FAILED, TransferStatus.CANCELED})
"""Outcomes after which the phone returns to its room."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """A transfer of a phone to another number, and its status."""

    to: str
    """E.164."""
    timeout: int
    """Ringing time in seconds."""
    caller_id: str = ""
    """Caller ID that the called person sees; empty: the carrier chooses."""
    say: str = ""
    """If the transfer fails, the phone hears this sentence and is hung up; empty: it returns to its room."""
    status: TransferStatus = TransferStatus.INITIATED


@dataclass(frozen=True, slots=True)
class AgentDispatch:
    """One agent to send into the room; the fields are those of LiveKit's `RoomAgentDispatch`."""

    agent_name: str
    metadata: str = ""
    restart_policy: int = 0
    deployment: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class AgentWatch:
    """Reactions to a call in which nobody talks to the caller; see `connector.call.session.watchdog`. Times are
    seconds; 0 disables the step. None takes the value of the next source: request, then rule, then setting."""

    warn_after: float | None = None
    """Time without the agent until a warning is logged and the agent is dispatched again."""
    timeout: float | None = None
    """Time with nobody to talk to until the call ends with `no_agent`. The three fallbacks below are tried first, in
    this order."""
    empty_timeout: float | None = None
    """Time after the last agent or person has left on purpose until the call ends with `room_empty`."""
    fallback_agent: str | None = None
    """The agent to dispatch instead of the missing agents."""
    fallback_number: str | None = None
    """The number (E.164) to transfer the phone to; needs the carrier's REST API."""
    message: str | None = None
    """The sentence that the phone hears before the hang-up."""

    def over(self, wider: AgentWatch) -> AgentWatch:
        """Returns these values, with each None replaced by the value of `wider`."""
        chosen = {f.name: value for f in fields(self) if (value := getattr(self, f.name)) is not None}
        return replace(wider, **chosen)


@dataclass(frozen=True, slots=True)
class ParticipantSpec:
    """How the caller appears in the room."""

    identity: str
    name: str = ""
    metadata: str = ""
    attributes: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class CallRequest:
    """The checked parameters of a call."""

    call_id: str
    provider: Provider
    direction: Direction
    room: str
    participant: ParticipantSpec
    agents: tuple[AgentDispatch, ...] = ()
    destination_country: str = ""
    rule_id: str = ""
    """The routing rule that chose the room; empty: none."""
    connector_id: str = ""
    """The connector that received the call's webhook; empty for calls created through the API."""
    region: str = ""
    from_number: str = ""
    to_number: str = ""
    carrier_call_id: str = ""
    account_id: str = ""
    """The carrier's account of the call. The last four fields are set only if a carrier's webhook reported them before
    the stream."""
    hide_number: bool = False
    """The phone's number must not appear in any attribute, record, event or log line."""
    dtmf: bool = True
    """Whether DTMF digits are passed on, in both directions."""
    placed: bool = False
    """True: this service asks the carrier to dial. False: the client does, with the connect_url."""
    headers_to_attributes: dict[str, str] = field(default_factory=dict)
    """Name of a stream parameter -> name of the participant attribute."""
    watch: AgentWatch = AgentWatch()
    delivery: str = ""
    """Fingerprint of the carrier's request that announced the call; empty for calls created through the API."""


@dataclass(frozen=True, slots=True)
class CallRecord:
    """The stored record of a call. Times are Unix seconds; 0.0: not yet happened."""

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
    """Last call status from the carrier, in the terms that the carriers share; empty if no status callback was
    requested."""
    rule_id: str = ""
    connector_id: str = ""
    region: str = ""
    timelog: tuple[tuple[str, float], ...] = ()
    """The call's history: (lifecycle event, Unix time), in order of time."""
    end_id: str = ""
    """Identifies the end that was recorded: several processes may notice the end of the same call."""
    account_id: str = ""
    """The carrier's account of the call; its credentials are needed to end or redirect the call."""
    transfer_to: str = ""
    """The number of the last transfer; empty: none."""
    transfer_status: str = ""
    """A `TransferStatus`: the progress of the last transfer."""
    delivery: str = ""
    """See `CallRequest`."""


@dataclass(frozen=True, slots=True)
class CarrierCall:
    """The ids of one phone call in the carrier's APIs."""

    id: str
    """`CallRecord.carrier_call_id`: the call id in the carrier's HTTP requests, if there was one."""
    account_id: str = ""
    """Empty if neither a request nor the stream contained it."""
    stream_call_id: str = ""
    """The call id in the media stream; empty before the stream."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """A request to hang up a phone over the carrier's REST API; stored until the carrier confirms the hang-up."""

    id: str
    """The call id: each call hangs its phone up only once, no matter how many processes ask for it."""
    call_id: str
    """The id in this service, not the carrier's."""
    provider: Provider
    call: CarrierCall
    created_at: float
    say: str = ""
    """Sentence to read out before the hang-up; empty: none."""
    attempts: int = 0
    """Number of attempts so far."""


NO_EXPIRY = 4_102_444_800.0
"""`WaitingCall.expires_at` of a served call: the year 2100. An earlier version of the connector, which does not know
`served`, leaves such an entry alone."""


@dataclass(frozen=True, slots=True)
class WaitingCall:
    """A call that waits for its first or a later stream. Every process that shares the store can claim it."""

    id: str
    """The call's id."""
    request: CallRequest
    owner: str
    """The process that created it and that holds its hidden participant, if there is one."""
    created_at: float
    expires_at: float
    """Unix time; from then on, no stream may claim it."""
    carrier_call_id: str = ""
    from_number: str = ""
    to_number: str = ""
    account_id: str = ""
    stream: int = 1
    """Number of the expected stream; each stream has its own token."""
    transfer: Transfer | None = None
    """The transfer from which the phone may return."""
    place: str = ""
    """Its participant's place in the room; unique among the calls that wait for their first stream."""
    served: bool = False
    """The owner serves the stream before this one. The entry is only for the case that the owner or its socket is
    lost; `expires_at` is then `NO_EXPIRY`."""
    returns: tuple[float, ...] = ()
    """Unix times at which earlier streams of the call were lost, latest last."""
    started_at: float = 0.0
    """When the call became active; 0.0: it has not."""
    room_sid: str = ""
    """LiveKit's SID of the room in `request`; empty: unknown."""
    agents_left: tuple[str, ...] = ()
    """Names of agents in `request` that are not dispatched again, because they have left on purpose."""


@dataclass(frozen=True, slots=True)
class CallFilter:
    """A filter for call records; empty or None fields do not restrict. Times are Unix seconds."""

    room: str = ""
    state: CallState | None = None
    provider: Provider | None = None
    created_from: float = 0.0
    """Inclusive."""
    created_before: float | None = None
    after: tuple[float, str] | None = None
    """Creation time and id of the last record of the previous page."""
    direction: Direction | None = None
    rule_id: str = ""
    connector_id: str = ""
    owner: str = ""
    text: str = ""
    """A substring of the call's id, room or numbers; case-insensitive."""
    id: str = ""
    search: str = ""
    """As `text`, but the id is not searched."""


def new_call_id() -> str:
    """Returns a new random id: 96 bits, safe in a URL path."""
    return "call_" + secrets.token_hex(12)
