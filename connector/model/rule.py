"""Routing rules: the room and the agent of a call, and the PIN that it needs."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from connector.model.call import AgentWatch


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
    watch: AgentWatch = field(default_factory=AgentWatch)
