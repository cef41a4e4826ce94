"""The domain model: calls, participants, end reasons, and the documents in the store."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum


class Direction(StrEnum):
    """Direction of the phone call: `INBOUND` is a person who calls us."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Provider(StrEnum):
    """Names of the carriers in the store, in URLs and in the API; see `connector.carrier_table`."""

    TWILIO = "twilio"
    TELNYX = "telnyx"
    PLIVO = "plivo"


class CallState(StrEnum):
    """`RINGING`: an outbound call waits for the answer as a hidden participant; see `connector.call.record.state`."""

    PENDING = "pending"
    RINGING = "ringing"
    ACTIVE = "active"
    ENDED = "ended"


LIVE_STATES = (CallState.PENDING, CallState.RINGING, CallState.ACTIVE)


class EndReason(StrEnum):
    """How a call ended: one reason per call, used in logs, metrics, attributes and the API."""

    CARRIER_HANGUP = "carrier_hangup"
    """The carrier sent `stop`: the person hung up."""
    CARRIER_CLOSED = "carrier_closed"
    """The media socket was closed with a close frame, but without a `stop`."""
    CARRIER_LOST = "carrier_lost"
    """The media socket broke without a close frame."""
    PROTOCOL_ERROR = "protocol_error"
    """The carrier violated the stream protocol."""
    CALL_MISMATCH = "call_mismatch"
    """The stream belongs to a different call than the request that fetched the connect_url."""
    ROOM_DELETED = "room_deleted"
    PARTICIPANT_REMOVED = "participant_removed"
    DUPLICATE_IDENTITY = "duplicate_identity"
    """Another participant joined the room with the caller's identity."""
    LIVEKIT_LOST = "livekit_lost"
    """The connection to LiveKit broke and did not come back."""
    OVERLOADED = "overloaded"
    """Too many calls began at the same time: this one timed out in the queue to join LiveKit."""
    LIVEKIT_UNAVAILABLE = "livekit_unavailable"
    """Joining the room or publishing to it failed."""
    CONNECT_TIMEOUT = "connect_timeout"
    """Nobody opened the media socket in time."""
    MEDIA_TIMEOUT = "media_timeout"
    """The media socket stayed open but sent nothing."""
    MAX_DURATION = "max_duration"
    SHUTDOWN = "shutdown"
    """The service was stopped."""
    INTERRUPTED = "interrupted"
    """The process that owned the call died; detected at the next start."""
    BUSY = "busy"
    """The callee's line was busy; known only for calls that the connector placed itself."""
    NO_ANSWER = "no_answer"
    CANCELED = "canceled"
    """Hung up by our side before the callee answered."""
    CARRIER_FAILED = "carrier_failed"
    """The carrier could not place the call: a wrong number, no permission, its own failure."""
    NO_AGENT = "no_agent"
    """The call was answered, but no agent joined in time (or, if no agent was dispatched, nobody except phones)."""
    ROOM_EMPTY = "room_empty"
    """The last agent or person left, and nobody joined during the grace period."""
    TRANSFERRED = "transferred"
    """On our request, the carrier connected the phone with another number."""
    TRANSFER_FAILED = "transfer_failed"
    """The number of the transfer did not answer; the phone heard a sentence and did not return to the room."""
    ENDED_BY_API = "ended_by_api"
    INTERNAL_ERROR = "internal_error"
    """A bug in this service; the log has the traceback."""


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


class LifecycleEvent(StrEnum):
    """Events of a call that a customer's server can receive; the names are those of VideoSDK's webhooks."""

    STARTED = "call-started"
    RINGING = "call-ringing"
    ANSWERED = "call-answered"
    HANGUP = "call-hangup"
    MISSED = "call-missed"
    TRANSFERRED = "call-transferred"
    UPDATE = "call-update"
    TRANSFER_INITIATED = "call-transfer-initiated"
    TRANSFERRING = "call-transferring"
    TRANSFER_RINGING = "call-transfer-ringing"
    TRANSFER_ACCEPTED = "call-transfer-accepted"
    TRANSFER_FAILED = "call-transfer-failed"


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


@dataclass(frozen=True, slots=True)
class PinLock:
    """The wrong PINs of one caller for one rule. Times are Unix seconds."""

    id: str
    """A fingerprint of the caller and the rule; it does not reveal them."""
    created_at: float
    tries: tuple[str, ...]
    """Ids of the wrong attempts, so that a repeated request is not counted twice."""
    until: float
    """Expiry of this lock."""


class ConnectorMode(StrEnum):
    STREAM = "stream"
    """The carrier streams audio to us."""
    SIP = "sip"
    """The carrier dials LiveKit SIP."""


@dataclass(frozen=True, slots=True)
class ConnectorEntry:
    """A connector that a customer made: one webhook URL at one carrier."""

    id: str
    """`cn_` and 16 characters."""
    provider: Provider
    key_hash: str
    """SHA-256 of the webhook key, hexadecimal."""
    key_nonce: str
    """The webhook key is derived from this nonce, the service's secret and the id. Without the secret the nonce is
    useless."""
    created_at: float
    name: str | None = None
    default_room_id: str | None = None
    default_rule_id: str | None = None
    region: str | None = None
    mode: ConnectorMode = ConnectorMode.STREAM


class RuleType(StrEnum):
    INBOUND = "inbound"
    OUTBOUND = "outbound"


class RoomType(StrEnum):
    STATIC = "static"
    DYNAMIC = "dynamic"


class RoomPrefix(StrEnum):
    BLANK = "blank"
    PARTICIPANT_NUMBER = "participantNumber"
    SIP_NUMBER = "sipNumber"
    RANDOM = "random"


@dataclass(frozen=True, slots=True)
class RuleRoom:
    """The room for a rule's calls: `id` for a static room, `prefix` for a dynamic one."""

    type: RoomType
    id: str = ""
    prefix: RoomPrefix = RoomPrefix.RANDOM
    pin: str = ""


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """Assigns calls to rooms and agents. Times are Unix seconds; an empty `allowed_numbers` admits all callers."""

    id: str
    name: str
    type: RuleType
    created_at: float
    updated_at: float
    numbers: tuple[str, ...] = ()
    room: RuleRoom | None = None
    agent_id: str = ""
    agent_metadata: str = ""
    allowed_numbers: tuple[str, ...] = ()
    blocked_numbers: tuple[str, ...] = ()
    """Callers that the rule blocks: numbers, or number prefixes with a `*` at the end."""
    block_withheld: bool = False
    """Whether callers who withhold their number are blocked."""
    divert_rule_id: str = ""
    """The rule for blocked callers; empty: they are rejected before the call is answered."""
    allowed_ip_addresses: tuple[str, ...] = ()
    hide_phone_number: bool = False
    dtmf: bool = True
    recording: bool = False
    noise_cancellation: bool = False
    tags: tuple[str, ...] = ()
    headers: dict[str, str] = field(default_factory=dict)
    headers_to_attributes: dict[str, str] = field(default_factory=dict)
    include_headers: str = ""
    watch: AgentWatch = AgentWatch()


@dataclass(frozen=True, slots=True)
class WebhookEndpoint:
    """A customer's URL and the events that it receives."""

    id: str
    """`wh_` and 16 characters."""
    url: str
    events: tuple[LifecycleEvent, ...]
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key that signs deliveries. `retired_at` 0.0: the key is in use."""

    id: str
    private_pem: str
    created_at: float
    retired_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SipNumber:
    """A number with calls that the carrier dials to LiveKit SIP, and the SIP credentials for them."""

    id: str
    """The number, E.164."""
    trunk_id: str
    """LiveKit's inbound trunk."""
    username: str
    sealed_password: str
    """Can be opened only with the service's secret; see `connector.sip.secrets`."""
    created_at: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event to deliver to one endpoint. Every attempt signs and sends the same bytes of `body`."""

    id: str
    endpoint_id: str
    call_id: str
    event: LifecycleEvent
    body: str
    created_at: float
    due_at: float
    """Unix time of the next attempt."""
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Attempt:
    """One entry of the delivery log. `status` is 0 if there was no HTTP response; `error` has the reason."""

    delivery_id: str
    endpoint_id: str
    call_id: str
    event: LifecycleEvent
    number: int
    at: float
    seconds: float
    status: int
    error: str = ""


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
