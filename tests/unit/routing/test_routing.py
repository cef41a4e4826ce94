"""Which room a call gets: every way through the order, and one spelling for each number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.model.call import AgentDispatch, AgentWatch, Direction
from connector.model.connector import ConnectorEntry
from connector.model.provider import Provider
from connector.model.rule import RoomPrefix, RoomType, RoutingRule, RuleRoom, RuleType
from connector.routing import (
    Arrival,
    Diversion,
    Refusal,
    Route,
    admits,
    blocks,
    call_request,
    claimed_twice,
    diverted,
    find_route,
    normal_number,
    normal_pattern,
)

CALLER, CALLED = "+15552223333", "+15550001111"
ARRIVAL = Arrival(Provider.TWILIO, "CA1", CALLER, CALLED)
CONNECTOR = ConnectorEntry("cn_1", Provider.TWILIO, "hash", "nonce", 1.0)
RULE = RoutingRule(
    "rule_1", "Support", RuleType.INBOUND, 1.0, 1.0, numbers=(CALLED,), room=RuleRoom(RoomType.STATIC, "support")
)
DEFAULT = replace(RULE, id="rule_2", numbers=(), room=RuleRoom(RoomType.STATIC, "by-default"))


def names() -> Callable[[], str]:
    numbers = count(1)
    return lambda: f"new{next(numbers)}"


def routed(
    arrival: Arrival = ARRIVAL,
    connector: ConnectorEntry = CONNECTOR,
    by_number: RoutingRule | None = None,
    by_default: RoutingRule | None = None,
) -> Route | Refusal | Diversion:
    return find_route(arrival, connector, by_number, by_default, names())


def room_of(route: Route | Refusal | Diversion) -> str:
    assert isinstance(route, Route), route
    return route.room


WITH_RULE = replace(CONNECTOR, default_rule_id="rule_2")
WITH_ROOM = replace(CONNECTOR, default_room_id="lobby")
WITH_BOTH = replace(WITH_RULE, default_room_id="lobby")


def test_the_room_of_the_url_comes_first_and_alone() -> None:
    strict = replace(
        RULE, room=RuleRoom(RoomType.STATIC, "support", pin="1234"), agent_id="bot", hide_phone_number=True
    )
    assert routed(replace(ARRIVAL, room_id="here"), WITH_BOTH, strict, DEFAULT) == Route("here")


def test_a_rule_with_the_number_comes_before_the_defaults() -> None:
    assert room_of(routed(ARRIVAL, WITH_BOTH, RULE, DEFAULT)) == "support"


def test_the_default_rule_comes_before_the_default_room() -> None:
    assert room_of(routed(ARRIVAL, WITH_BOTH, None, DEFAULT)) == "by-default"


def test_the_default_room_is_last() -> None:
    assert routed(ARRIVAL, WITH_ROOM) == Route("lobby")


def test_without_any_of_them_the_call_is_refused() -> None:
    assert routed() is Refusal.NO_ROUTE


@pytest.mark.parametrize("connector", [WITH_BOTH, WITH_ROOM])
def test_a_rule_that_does_not_admit_the_caller_is_passed_by(connector: ConnectorEntry) -> None:
    closed = replace(RULE, allowed_numbers=("+15559998888",))
    expected = "by-default" if connector is WITH_BOTH else "lobby"
    assert room_of(routed(ARRIVAL, connector, closed, DEFAULT)) == expected


def test_a_default_rule_admits_no_more_than_any_other() -> None:
    closed = replace(DEFAULT, allowed_numbers=("+15559998888",))
    assert routed(ARRIVAL, WITH_RULE, None, closed) is Refusal.NOT_ADMITTED
    assert room_of(routed(ARRIVAL, WITH_BOTH, None, closed)) == "lobby"


def test_a_caller_whom_no_rule_admits_is_told_so_in_the_log() -> None:
    assert routed(ARRIVAL, CONNECTOR, replace(RULE, allowed_numbers=("+15559998888",))) is Refusal.NOT_ADMITTED


def test_a_default_rule_that_is_gone_leaves_the_default_room() -> None:
    assert room_of(routed(ARRIVAL, WITH_BOTH, None, None)) == "lobby"
    assert routed(ARRIVAL, WITH_RULE, None, None) is Refusal.RULE_GONE


def test_an_outbound_rule_takes_no_incoming_call() -> None:
    outbound = replace(DEFAULT, type=RuleType.OUTBOUND)
    assert routed(ARRIVAL, WITH_RULE, None, outbound) is Refusal.RULE_OUTBOUND
    assert room_of(routed(ARRIVAL, WITH_BOTH, None, outbound)) == "lobby"
    assert room_of(routed(ARRIVAL, WITH_ROOM, replace(RULE, type=RuleType.OUTBOUND))) == "lobby"


def test_what_a_rule_says_is_carried_along() -> None:
    rule = replace(
        RULE,
        room=RuleRoom(RoomType.STATIC, "support", pin="1234"),
        agent_id="bot",
        agent_metadata='{"team": "a"}',
        hide_phone_number=True,
        dtmf=False,
        headers_to_attributes={"X-Account": "crm.account"},
    )
    assert routed(ARRIVAL, CONNECTOR, rule) == Route(
        room="support",
        rule=rule,
        pin="1234",
        hide_number=True,
        dtmf=False,
        agents=(AgentDispatch("bot", '{"team": "a"}'),),
        headers_to_attributes={"X-Account": "crm.account"},
    )


@pytest.mark.parametrize(
    ("prefix", "hidden", "room"),
    [
        (RoomPrefix.BLANK, False, "new1"),
        (RoomPrefix.BLANK, True, "new1"),
        (RoomPrefix.PARTICIPANT_NUMBER, False, f"{CALLER}-new1"),
        (RoomPrefix.PARTICIPANT_NUMBER, True, "new1-new2"),
        (RoomPrefix.SIP_NUMBER, False, f"{CALLED}-new1"),
        (RoomPrefix.SIP_NUMBER, True, f"{CALLED}-new1"),
        (RoomPrefix.RANDOM, False, "new1-new2"),
        (RoomPrefix.RANDOM, True, "new1-new2"),
    ],
)
def test_a_dynamic_room_is_the_call_s_own(prefix: RoomPrefix, hidden: bool, room: str) -> None:
    rule = replace(RULE, room=RuleRoom(RoomType.DYNAMIC, prefix=prefix), hide_phone_number=hidden)
    assert room_of(routed(ARRIVAL, CONNECTOR, rule)) == room


def test_a_prefix_is_written_in_one_spelling() -> None:
    rule = replace(RULE, room=RuleRoom(RoomType.DYNAMIC, prefix=RoomPrefix.PARTICIPANT_NUMBER))
    arrival = replace(ARRIVAL, from_number="1 (555) 222-3333")
    assert room_of(routed(arrival, CONNECTOR, rule)) == f"{CALLER}-new1"


def test_a_rule_without_a_room_gives_each_call_its_own() -> None:
    rule = replace(RULE, room=None, agent_id="bot")
    assert room_of(routed(ARRIVAL, WITH_ROOM, rule)) == "new1-new2"


def test_addresses_do_not_keep_a_phone_out() -> None:
    rule = replace(RULE, allowed_ip_addresses=("192.0.2.1",))
    assert room_of(routed(ARRIVAL, CONNECTOR, rule)) == "support"


@pytest.mark.parametrize("caller", ["+15552223333", "15552223333", "+1 (555) 222-3333", "sip:+15552223333@carrier"])
def test_an_allowed_number_is_known_in_any_spelling(caller: str) -> None:
    assert admits(replace(RULE, allowed_numbers=("+1 555 222 3333",)), caller)


@pytest.mark.parametrize("caller", ["", "anonymous", "+15552223334", "5552223333"])
def test_others_are_not_admitted(caller: str) -> None:
    assert not admits(replace(RULE, allowed_numbers=(CALLER,)), caller)
    assert admits(RULE, caller)


@pytest.mark.parametrize(
    ("given_", "normal"),
    [
        ("+15551234567", "+15551234567"),
        ("15551234567", "+15551234567"),
        ("+1 (555) 123-4567", "+15551234567"),
        (" +1.555.123.4567 ", "+15551234567"),
        ("0015551234567", "+15551234567"),
        ("+44\u00a020\u20117946\u20110000", "+442079460000"),
        ("sip:+15551234567@sip.example.com", "+15551234567"),
        ("sips:15551234567@sip.example.com;transport=tls", "+15551234567"),
        ("sip:alice@example.com", "alice"),
        ("+290123", "+290123"),
        ("911", "911"),
        ("88888", "88888"),
        ("03012345678", "03012345678"),
        ("+1234567890123456", "+1234567890123456"),
        ("1234567890123456", "1234567890123456"),
        ("anonymous", "withheld"),
        ("Restricted", "withheld"),
        ("client:alice", "client:alice"),
        ("eve\x00\r\nX: y\u2028", "evex: y"),
        ("+1555\x1b[2J1234567", "+1555[2j1234567"),
        ("", ""),
        ("+", "+"),
        ("\u0661\u0662\u0663\u0664\u0665\u0666\u0667", "\u0661\u0662\u0663\u0664\u0665\u0666\u0667"),
    ],
)
def test_one_spelling_for_each_number(given_: str, normal: str) -> None:
    assert normal_number(given_) == normal


@given(st.text(alphabet="+0123456789 ()-.sip:@a\x00\n\u00a0", max_size=30))
def test_the_normal_spelling_is_its_own(text: str) -> None:
    assert normal_number(normal_number(text)) == normal_number(text)


@given(st.from_regex(r"\+[1-9][0-9]{6,14}", fullmatch=True))
def test_a_number_is_the_same_with_and_without_its_plus(number: str) -> None:
    assert normal_number(number) == normal_number(number[1:]) == normal_number(f"00{number[1:]}") == number


def test_two_rules_that_claim_one_number() -> None:
    other = replace(RULE, id="rule_9", numbers=("+15559990000", "+1 (555) 000-1111"))
    assert claimed_twice([RULE], other) == ("+1 (555) 000-1111", RULE)
    assert claimed_twice([RULE], replace(other, numbers=("+15559990000",))) is None
    assert claimed_twice([RULE], replace(other, type=RuleType.OUTBOUND)) is None
    assert claimed_twice([RULE], RULE) is None


def test_the_call_that_is_asked_for() -> None:
    watch = AgentWatch(timeout=7)
    rule = replace(RULE, agent_id="bot", dtmf=False, headers_to_attributes={"a": "b"}, watch=watch)
    route = routed(replace(ARRIVAL, provider=Provider.PLIVO), CONNECTOR, rule)
    assert isinstance(route, Route)
    plivo = replace(ARRIVAL, provider=Provider.PLIVO, from_number="15552223333", to_number="15550001111")
    request = call_request(plivo, route, CONNECTOR, "call_1", "plivo_ab", "us002")
    assert (request.call_id, request.provider, request.direction) == ("call_1", Provider.PLIVO, Direction.INBOUND)
    assert (request.room, request.rule_id, request.connector_id) == ("support", "rule_1", "cn_1")
    assert (request.from_number, request.to_number, request.carrier_call_id) == (CALLER, CALLED, "CA1")
    assert (request.participant.identity, request.participant.name) == ("plivo_ab", CALLER)
    assert request.agents == (AgentDispatch("bot"),)
    assert (request.region, request.dtmf, request.hide_number) == ("us002", False, False)
    assert request.headers_to_attributes == {"a": "b"}
    assert request.watch == watch


@pytest.mark.parametrize("prefix", list(RoomPrefix))
def test_a_hidden_number_is_in_no_name(prefix: RoomPrefix) -> None:
    rule = replace(RULE, room=RuleRoom(RoomType.DYNAMIC, prefix=prefix), hide_phone_number=True)
    route = routed(ARRIVAL, CONNECTOR, rule)
    assert isinstance(route, Route)
    request = call_request(ARRIVAL, route, CONNECTOR, "call_1", "twilio_ab", "")
    assert request.hide_number
    shown = f"{request.room} {request.participant}"
    assert CALLER.lstrip("+") not in shown


def test_headers_become_attributes_where_the_rule_says_so() -> None:
    rule = replace(RULE, headers_to_attributes={"X-Account": "crm.account", "x-none": "none", "X-Caller": "caller"})
    headers = {"x-account": "4711", "x-caller": "tel: 1 (555) 222-3333", "x-other": "o"}
    arrival = replace(ARRIVAL, headers=headers)
    for hidden, expected in (
        (False, {"crm.account": "4711", "caller": headers["x-caller"]}),
        (True, {"crm.account": "4711"}),
    ):
        route = routed(arrival, CONNECTOR, replace(rule, hide_phone_number=hidden))
        assert isinstance(route, Route)
        assert call_request(arrival, route, CONNECTOR, "c", "i", "").participant.attributes == expected


# Blocked callers


@pytest.mark.parametrize(
    ("pattern", "normal", "blocked", "free"),
    [
        ("+1 (900) 555-0000", "+19005550000", "+19005550000", "+19005550001"),
        ("19005550000", "+19005550000", "19005550000", "+19005550001"),
        ("+1900*", "+1900*", "+19005550000", "+18005550000"),
        ("001 900 *", "+1900*", "sip:+19005550000@carrier", "+2190"),
        ("1900*", "1900*", "+19005550000", "+4419005550"),
        ("030*", "030*", "03012345678", "+493012345678"),
        ("+*", "+*", "+19005550000", "911"),
    ],
)
def test_numbers_and_beginnings_are_blocked_in_any_spelling(pattern: str, normal: str, blocked: str, free: str) -> None:
    assert normal_pattern(pattern) == normal
    rule = replace(RULE, blocked_numbers=(normal,))
    assert blocks(rule, blocked)
    assert not blocks(rule, free)
    assert not blocks(rule, "anonymous")


@pytest.mark.parametrize("caller", ["", "anonymous", "+266696687", "Restricted", "sip:anonymous@anonymous.invalid"])
def test_withheld_callers_are_blocked_by_their_own_field(caller: str) -> None:
    assert blocks(replace(RULE, block_withheld=True), caller)
    assert not blocks(replace(RULE, blocked_numbers=("+266*", "2*")), caller)
    assert not blocks(replace(RULE, block_withheld=True), CALLER)


def test_a_blocked_caller_falls_to_no_default_and_no_list_saves_them() -> None:
    blocking = replace(RULE, blocked_numbers=(CALLER,), allowed_numbers=(CALLER,))
    assert routed(ARRIVAL, WITH_BOTH, blocking, DEFAULT) is Refusal.BLOCKED
    by_default = replace(blocking, id="rule_2", numbers=())
    assert routed(ARRIVAL, WITH_BOTH, None, by_default) is Refusal.BLOCKED
    # Whom the number's rule does not admit the default rule may still block.
    assert routed(ARRIVAL, WITH_BOTH, replace(RULE, allowed_numbers=("+1",)), by_default) is Refusal.BLOCKED
    assert room_of(routed(replace(ARRIVAL, room_id="here"), WITH_BOTH, blocking)) == "here"


def test_a_blocked_caller_can_be_diverted_once() -> None:
    blocking = replace(RULE, blocked_numbers=(CALLER,), divert_rule_id="rule_3")
    assert routed(ARRIVAL, WITH_BOTH, blocking, DEFAULT) == Diversion(blocking, "rule_3")
    other = replace(RULE, id="rule_3", room=RuleRoom(RoomType.STATIC, "screening"))
    assert room_of(diverted(ARRIVAL, other, names())) == "screening"
    for none in (
        None,
        replace(other, type=RuleType.OUTBOUND),
        replace(other, allowed_numbers=("+1",)),
        replace(other, blocked_numbers=("+1*",), divert_rule_id="rule_1"),
    ):
        assert diverted(ARRIVAL, none, names()) is Refusal.BLOCKED


@pytest.mark.parametrize("caller", ["", "anonymous", "+8656696"])
def test_a_withheld_caller_has_one_word_and_no_name(caller: str) -> None:
    arrival = replace(ARRIVAL, from_number=caller)
    route = Route("support", RULE)
    request = call_request(arrival, route, CONNECTOR, "call_1", "twilio_1", "")
    assert (request.from_number, request.participant.name) == ("withheld", "")
    rule = replace(RULE, room=RuleRoom(RoomType.DYNAMIC, prefix=RoomPrefix.PARTICIPANT_NUMBER))
    assert room_of(routed(arrival, CONNECTOR, rule)) == "new1-new2"
