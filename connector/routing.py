"""Routes an incoming call: a pure function of the call, its connector and the rules.

The first source in this list that has a room decides. A rule that blocks the caller ends the search, or diverts the
call to another rule:

1. the `roomId` in the query of the webhook URL: the room, and nothing else
2. an inbound rule that has the called number and admits the caller
3. the connector's default rule, if it is inbound, still exists and admits the caller
4. the connector's default room

`allowed_ip_addresses` of a rule is ignored here: webhooks and streams come from the carrier's address, and the caller
has none. It is for calls over SIP.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from connector.model.call import AgentDispatch, AgentWatch, CallRequest, Direction, ParticipantSpec
from connector.model.connector import ConnectorEntry
from connector.model.provider import Provider
from connector.model.rule import RoomPrefix, RoomType, RoutingRule, RuleRoom, RuleType
from connector.numbers import WITHHELD, is_withheld

_DECORATION = re.compile(r"[\s().\-\u2010-\u2015/]+")
_NO_DIGIT = re.compile(r"[^0-9]+")
_DIGITS = re.compile(r"[0-9]+")
_SIP = re.compile(r"sips?:(?P<user>[^@;]+)(?:@.*)?", re.IGNORECASE)
E164_MIN, E164_MAX = 7, 15
"""Digits of a number with its country code (ITU-T E.164 has no minimum: the shortest in use have seven)."""


def normal_number(number: str) -> str:
    """Normalises a number, so that two numbers can be compared.

    `+15551234567` for `+1 (555) 123-4567`, `0015551234567`, `15551234567` (Plivo leaves the plus out) and
    `sip:+15551234567@host`; `withheld` for words that mean a withheld number, such as `anonymous`. Values without a
    country code only lose their formatting: short codes, national numbers with their leading 0, and names.
    """
    # A caller over SIP can send any text: remove characters that could start a new line.
    text = "".join(character for character in number if character.isprintable()).strip()
    if text and is_withheld(text):
        return WITHHELD
    if match := _SIP.fullmatch(text):
        text = match["user"]
    bare = _DECORATION.sub("", text)
    plus = bare.startswith("+")
    digits = bare.removeprefix("+")
    if not _DIGITS.fullmatch(digits):
        return text.lower()
    if not plus and digits.startswith("00"):
        plus, digits = True, digits[2:]
    could_be_e164 = E164_MIN <= len(digits) <= E164_MAX and not digits.startswith("0")
    return f"+{digits}" if plus or could_be_e164 else digits


@dataclass(frozen=True, slots=True)
class Arrival:
    """The carrier's data of an incoming call. Numbers are in the carrier's own notation."""

    provider: Provider
    carrier_call_id: str
    from_number: str
    to_number: str
    room_id: str = ""
    """From the webhook URL's query; empty: none."""
    from_country: str = ""
    """ISO 3166-1 alpha-2; empty if the carrier does not report it."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """SIP headers that the carrier passes on; names in lower case."""
    account_id: str = ""
    """The carrier's account that owns the called number."""
    delivery: str = ""
    """Fingerprint of the carrier's request."""


class Refusal(StrEnum):
    """Why a call has no room; the values are the texts in the log."""

    NO_ROUTE = "no rule has this number, and the connector has neither a default rule nor a default room"
    BLOCKED = "the rule blocks the caller"
    NOT_ADMITTED = "the rule's allowed numbers do not include the caller"
    RULE_GONE = "the connector's default rule does not exist, and it has no default room"
    RULE_OUTBOUND = "the connector's default rule is for outbound calls, and it has no default room"


@dataclass(frozen=True, slots=True)
class Route:
    """The room of a call, and the settings of its rule."""

    room: str
    rule: RoutingRule | None = None
    pin: str = ""
    """Digits that the caller must enter first; empty: none."""
    hide_number: bool = False
    dtmf: bool = True
    agents: tuple[AgentDispatch, ...] = ()
    headers_to_attributes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Diversion:
    """The rule with the called number blocks the caller and diverts the call to another rule."""

    blocked_by: RoutingRule
    rule_id: str


def find_route(
    arrival: Arrival,
    connector: ConnectorEntry,
    by_number: RoutingRule | None,
    by_default: RoutingRule | None,
    new_name: Callable[[], str],
) -> Route | Refusal | Diversion:
    """Routes a call; see the module's docstring. `by_number`: the inbound rule with the called number, or None.
    `by_default`: the connector's default rule, or None. `new_name` makes an unused room name. After a Diversion, call
    `diverted`."""
    if arrival.room_id:
        return Route(arrival.room_id)
    if by_number is not None and by_number.type is RuleType.INBOUND and blocks(by_number, arrival.from_number):
        return _blocked(by_number)
    if by_number is not None and by_number.type is RuleType.INBOUND and admits(by_number, arrival.from_number):
        return _by_rule(by_number, arrival, new_name)
    refusal = Refusal.NO_ROUTE if by_number is None else Refusal.NOT_ADMITTED
    if connector.default_rule_id:
        if by_default is None:
            refusal = Refusal.RULE_GONE
        elif by_default.type is not RuleType.INBOUND:
            refusal = Refusal.RULE_OUTBOUND
        elif blocks(by_default, arrival.from_number):
            return _blocked(by_default)
        elif admits(by_default, arrival.from_number):
            return _by_rule(by_default, arrival, new_name)
        else:
            refusal = Refusal.NOT_ADMITTED
    if connector.default_room_id:
        return Route(connector.default_room_id)
    return refusal


def _blocked(rule: RoutingRule) -> Refusal | Diversion:
    return Diversion(rule, rule.divert_rule_id) if rule.divert_rule_id else Refusal.BLOCKED


def diverted(arrival: Arrival, rule: RoutingRule | None, new_name: Callable[[], str]) -> Route | Refusal:
    """Routes a blocked caller to the room of this rule, unless this rule refuses the caller too. A call is diverted
    only once."""
    if rule is None or rule.type is not RuleType.INBOUND:
        return Refusal.BLOCKED
    if blocks(rule, arrival.from_number) or not admits(rule, arrival.from_number):
        return Refusal.BLOCKED
    return _by_rule(rule, arrival, new_name)


def blocks(rule: RoutingRule, from_number: str) -> bool:
    """Whether the rule blocks this caller. A block has priority over the rule's allowed numbers."""
    caller = normal_number(from_number) or WITHHELD
    if caller == WITHHELD:
        return rule.block_withheld
    return any(_matches(pattern, caller) for pattern in rule.blocked_numbers)


def _matches(pattern: str, number: str) -> bool:
    if not pattern.endswith("*"):
        return number == normal_number(pattern)
    beginning = pattern[:-1]
    return (number if beginning.startswith("+") else number.removeprefix("+")).startswith(beginning)


def normal_pattern(pattern: str) -> str:
    """Normalises a number or a number prefix: `+1900*` for `001 900 *`. A prefix without a plus also matches numbers
    with a plus."""
    if not pattern.rstrip().endswith("*"):
        return normal_number(pattern)
    bare = _DECORATION.sub("", pattern.rstrip().rstrip("*"))
    return f"+{bare[2:]}*" if bare.startswith("00") and len(bare) > 2 else f"{bare}*"


def admits(rule: RoutingRule, from_number: str) -> bool:
    """Whether this caller may use the rule; a rule without allowed numbers admits all callers."""
    allowed = {normal_number(number) for number in rule.allowed_numbers}
    return not allowed or normal_number(from_number) in allowed


def claimed_twice(rules: Sequence[RoutingRule], candidate: RoutingRule) -> tuple[str, RoutingRule] | None:
    """Returns a number of `candidate` that another rule of its type already has, and that rule; None if none."""
    wanted = {normal_number(number): number for number in candidate.numbers}
    for rule in rules:
        if rule.id == candidate.id or rule.type is not candidate.type:
            continue
        for number in rule.numbers:
            if normal_number(number) in wanted:
                return wanted[normal_number(number)], rule
    return None


def call_request(
    arrival: Arrival, route: Route, connector: ConnectorEntry, call_id: str, identity: str, region: str
) -> CallRequest:
    """Builds the request for the call layer. If the number is hidden, no name in the request contains it."""
    caller = normal_number(arrival.from_number) or WITHHELD
    return CallRequest(
        call_id=call_id,
        provider=arrival.provider,
        direction=Direction.INBOUND,
        room=route.room,
        participant=ParticipantSpec(
            identity=identity,
            name="" if route.hide_number or caller == WITHHELD else caller,
            attributes=_attributes(arrival, route),
        ),
        agents=route.agents,
        rule_id=route.rule.id if route.rule else "",
        connector_id=connector.id,
        region=region,
        from_number=caller,
        to_number=normal_number(arrival.to_number),
        carrier_call_id=arrival.carrier_call_id,
        account_id=arrival.account_id,
        hide_number=route.hide_number,
        delivery=arrival.delivery,
        dtmf=route.dtmf,
        headers_to_attributes=dict(route.headers_to_attributes),
        watch=route.rule.watch if route.rule else AgentWatch(),
    )


def _attributes(arrival: Arrival, route: Route) -> dict[str, str]:
    """Converts SIP headers to attributes by the rule. If the number is hidden, headers that contain it are omitted."""
    number = _NO_DIGIT.sub("", arrival.from_number)
    found = {
        attribute: arrival.headers[header.lower()]
        for header, attribute in route.headers_to_attributes.items()
        if header.lower() in arrival.headers
    }
    if route.hide_number and number:
        found = {name: value for name, value in found.items() if number not in _NO_DIGIT.sub("", value)}
    return found


def _by_rule(rule: RoutingRule, arrival: Arrival, new_name: Callable[[], str]) -> Route:
    return Route(
        room=_room(rule, arrival, new_name),
        rule=rule,
        pin=rule.room.pin if rule.room else "",
        hide_number=rule.hide_phone_number,
        dtmf=rule.dtmf,
        agents=(AgentDispatch(agent_name=rule.agent_id, metadata=rule.agent_metadata),) if rule.agent_id else (),
        headers_to_attributes=rule.headers_to_attributes,
    )


def _room(rule: RoutingRule, arrival: Arrival, new_name: Callable[[], str]) -> str:
    """Returns the static room's id, or a new room name. A rule without a room gives each call a separate room, so that
    a missing field does not connect strangers."""
    room = rule.room or RuleRoom(RoomType.DYNAMIC)
    if room.type is RoomType.STATIC:
        return room.id
    prefix, caller = "", normal_number(arrival.from_number) or WITHHELD
    match room.prefix:
        case RoomPrefix.PARTICIPANT_NUMBER if not rule.hide_phone_number and caller != WITHHELD:
            prefix = caller
        case RoomPrefix.SIP_NUMBER:
            prefix = normal_number(arrival.to_number)
        case RoomPrefix.RANDOM | RoomPrefix.PARTICIPANT_NUMBER:
            prefix = new_name()
        case RoomPrefix.BLANK:
            pass
    return f"{prefix}-{new_name()}" if prefix else new_name()
