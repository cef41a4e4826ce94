"""The words of the domain: what a call is, who is in it and how it can end."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum


class Direction(StrEnum):
    """Seen from the phone network: `INBOUND` is a person who calls us."""

    INBOUND = "inbound"
    OUTBOUND = "outbound"


class Provider(StrEnum):
    """The carriers' names, as they stand in the store, in URLs and in the API; see `connector.carrier_table`."""

    TWILIO = "twilio"
    TELNYX = "telnyx"
    PLIVO = "plivo"


class CallState(StrEnum):
    """`RINGING` is the hidden wait of an outbound call; see `connector.call.record.state`."""

    PENDING = "pending"
    RINGING = "ringing"
    ACTIVE = "active"
    ENDED = "ended"


LIVE_STATES = (CallState.PENDING, CallState.RINGING, CallState.ACTIVE)


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
    OVERLOADED = "overloaded"
    """Too many calls began at once: this one waited in vain for its turn to join."""
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
    NO_AGENT = "no_agent"
    """The call was answered, and no agent (nobody but phones, where none was dispatched) came in time."""
    ROOM_EMPTY = "room_empty"
    """The last agent or person has left, and nobody came in the grace after that."""
    TRANSFERRED = "transferred"
    """The carrier was asked to connect the phone with another number, and did."""
    TRANSFER_FAILED = "transfer_failed"
    """Nobody answered there, and the phone heard a sentence instead of coming back."""
    ENDED_BY_API = "ended_by_api"
    INTERNAL_ERROR = "internal_error"
    """A bug of ours; the log has the traceback."""


class TransferStatus(StrEnum):
    """How far a transfer has got, in the carriers' common words."""

    INITIATED = "initiated"
    RINGING = "ringing"
    ANSWERED = "answered"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"
    CANCELED = "canceled"
    UNKNOWN = "unknown"
    """The carrier has not said what became of it."""


NOT_REACHED = frozenset({TransferStatus.BUSY, TransferStatus.NO_ANSWER, TransferStatus.FAILED, TransferStatus.CANCELED})
"""Outcomes after which the phone comes back."""


@dataclass(frozen=True, slots=True)
class Transfer:
    """Whom the carrier is to connect a phone with, and what became of that."""

    to: str
    """E.164."""
    timeout: int
    """Seconds to let it ring."""
    caller_id: str = ""
    """What the called person sees; empty: the carrier's own choice."""
    say: str = ""
    """A sentence that the phone hears, before it is hung up, instead of coming back."""
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
    """What is done about a call that nobody talks with; see `connector.call.session.watchdog`. Seconds, 0 turns a step
    off. In a rule or a request, None leaves a value to the next wider choice: request, rule, setting."""

    warn_after: float | None = None
    """Without an agent for so long: it is told, and the agent dispatched again."""
    timeout: float | None = None
    """Without an agent for so long: the end, `no_agent`, by the three below in this order."""
    empty_timeout: float | None = None
    """The last one has left on purpose, and nobody has come for so long: the end, `room_empty`."""
    fallback_agent: str | None = None
    """The agent to try in the place of those that do not come."""
    fallback_number: str | None = None
    """The number, E.164, that the phone is then connected with, where the carrier's REST API can be used."""
    message: str | None = None
    """The sentence that the phone hears before it is hung up."""

    def over(self, wider: AgentWatch) -> AgentWatch:
        """These choices, and `wider` for what is left open."""
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
    """What the client asked for, checked."""

    call_id: str
    provider: Provider
    direction: Direction
    room: str
    participant: ParticipantSpec
    agents: tuple[AgentDispatch, ...] = ()
    destination_country: str = ""
    rule_id: str = ""
    """The routing rule that chose the room; empty where none did."""
    connector_id: str = ""
    """The connector whose webhook took the call; empty for calls that the API asked for."""
    region: str = ""
    from_number: str = ""
    to_number: str = ""
    carrier_call_id: str = ""
    account_id: str = ""
    """The carrier's account that the call belongs to. These four where they are known before the stream: a carrier's
    webhook has told them."""
    hide_number: bool = False
    """The phone's number is to be seen nowhere: no attribute, record, event or log line."""
    dtmf: bool = True
    """Whether digits pass, in either direction."""
    placed: bool = False
    """This service has the carrier dial; else its client does, with the connect_url."""
    headers_to_attributes: dict[str, str] = field(default_factory=dict)
    """Name of a stream parameter to the name of the attribute that it becomes."""
    watch: AgentWatch = AgentWatch()
    delivery: str = ""
    """Fingerprint of the carrier's request that announced the call; empty for calls that the API asked for."""


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
    """What the carrier last said of the call, in the carriers' common words; empty when it was not asked to tell."""
    rule_id: str = ""
    connector_id: str = ""
    region: str = ""
    timelog: tuple[tuple[str, float], ...] = ()
    """What happened when: (lifecycle event, Unix time), in order."""
    end_id: str = ""
    """Names the end that stands: several processes may notice the end of one call."""
    account_id: str = ""
    """The carrier's account that the call belongs to: its credentials end and move the call."""
    transfer_to: str = ""
    """The number of the last transfer; empty where there was none."""
    transfer_status: str = ""
    """How far that has got, a `TransferStatus`."""
    delivery: str = ""
    """See `CallRequest`."""


@dataclass(frozen=True, slots=True)
class CarrierCall:
    """The names by which a carrier's APIs know one phone call."""

    id: str
    """`CallRecord.carrier_call_id`: that of the carrier's HTTP requests, where one has told it."""
    account_id: str = ""
    """Empty where neither a request nor the stream has told it."""
    stream_call_id: str = ""
    """That of its media stream; empty before the stream."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """A phone that is to be hung up over its carrier's REST API: kept until the carrier says that it is."""

    id: str
    """That of the call: each hangs its phone up once, whoever asks for it."""
    call_id: str
    """Ours."""
    provider: Provider
    call: CarrierCall
    created_at: float
    say: str = ""
    """Read out to the phone first; empty: nothing is."""
    attempts: int = 0
    """Tries so far."""


class LifecycleEvent(StrEnum):
    """What a customer's server can be told of a call; the names are those of VideoSDK's webhooks."""

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
    """A call that waits for its stream, the first or a later one, as every process that shares the store can take it
    over."""

    id: str
    """The call's id."""
    request: CallRequest
    owner: str
    """The process that made it, and that holds its hidden participant if there is one."""
    created_at: float
    expires_at: float
    """Unix time from which no stream may claim it."""
    carrier_call_id: str = ""
    from_number: str = ""
    to_number: str = ""
    account_id: str = ""
    stream: int = 1
    """Which of the call's streams is waited for: only its own token opens it."""
    transfer: Transfer | None = None
    """The transfer from which the call may come back."""
    place: str = ""
    """Its participant's place in the room, which no two calls that wait for their first stream share."""


@dataclass(frozen=True, slots=True)
class PinLock:
    """The wrong PINs of one caller at one rule. Times are Unix seconds."""

    id: str
    """Stands for the caller and the rule, and does not tell them."""
    created_at: float
    tries: tuple[str, ...]
    """A name for each, so that none is counted twice."""
    until: float
    """When they are forgotten."""


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
    """With the service's secret and the id it gives the key; without the secret it gives nothing."""
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
    """Where a rule's calls go: `id` for a static room, `prefix` for a dynamic one."""

    type: RoomType
    id: str = ""
    prefix: RoomPrefix = RoomPrefix.RANDOM
    pin: str = ""


@dataclass(frozen=True, slots=True)
class RoutingRule:
    """Which calls go where. Times are Unix seconds; an empty `allowed_numbers` admits everybody."""

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
    """Callers whom the rule does not take: numbers, or the beginnings of numbers with a `*` behind them."""
    block_withheld: bool = False
    """The same for callers who withhold their number."""
    divert_rule_id: str = ""
    """The rule that takes those whom this one blocks; empty: they are refused before the call is answered."""
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
    """A customer's URL and the events it wants."""

    id: str
    """`wh_` and 16 characters."""
    url: str
    events: tuple[LifecycleEvent, ...]
    created_at: float
    updated_at: float


@dataclass(frozen=True, slots=True)
class SigningKey:
    """An RSA key that signs deliveries. `retired_at` 0.0 is the one in use."""

    id: str
    private_pem: str
    created_at: float
    retired_at: float = 0.0


@dataclass(frozen=True, slots=True)
class SipNumber:
    """A number whose calls the carrier dials to LiveKit SIP, and with what it signs in there."""

    id: str
    """The number, E.164."""
    trunk_id: str
    """LiveKit's inbound trunk."""
    username: str
    sealed_password: str
    """Only who has the API secret can open it; see `connector.sip.secrets`."""
    created_at: float


@dataclass(frozen=True, slots=True)
class Delivery:
    """One event on its way to one endpoint. `body` is sent, and signed, byte for byte at every attempt."""

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
    """One line of the delivery log. `status` 0 when no HTTP answer came; then `error` says why."""

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
    """Which call records to find; what is empty or None does not restrict. Times are Unix seconds."""

    room: str = ""
    state: CallState | None = None
    provider: Provider | None = None
    created_from: float = 0.0
    """At or after."""
    created_before: float | None = None
    after: tuple[float, str] | None = None
    """Creation time and id of the last record of the page before."""
    direction: Direction | None = None
    rule_id: str = ""
    connector_id: str = ""
    owner: str = ""
    text: str = ""
    """A part of the call's id, room or numbers; letters of either case."""
    id: str = ""
    search: str = ""
    """As `text`, without the id."""


def new_call_id() -> str:
    """An id nobody can guess: 96 bits, safe in a URL path."""
    return "call_" + secrets.token_hex(12)
