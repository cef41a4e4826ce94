"""What is to be in LiveKit for a number, without a LiveKit."""

from __future__ import annotations

import json

import pytest
from livekit import api

from connector.sip import plan

NUMBER, OTHER = "+15550001111", "+15550002222"
CALL = plan.RoomForCall("call_1", "ST_1", NUMBER, "+15552223333", "control", {"connector.callId": "call_1"})


def trunk(*numbers: str, name: str = "") -> api.SIPInboundTrunkInfo:
    return api.SIPInboundTrunkInfo(sip_trunk_id=f"ST_{name}", name=name, numbers=numbers)


def test_the_files_are_those_of_livekits_page() -> None:
    wanted = plan.Wanted(NUMBER, username="user", password="secret-secret")
    assert json.loads(plan.inbound_trunk_json(plan.trunk_for(wanted, None))) == {
        "trunk": {
            "name": f"connector {NUMBER}",
            "numbers": [NUMBER],
            "auth_username": "user",
            "auth_password": "secret-secret",
        }
    }
    assert json.loads(plan.dispatch_rule_json(plan.rule_for(wanted, None, ""))) == {
        "dispatch_rule": {
            "name": f"connector {NUMBER}",
            "rule": {"dispatchRuleIndividual": {"roomPrefix": "call-"}},
        }
    }


def test_passwords_are_long_new_and_plain() -> None:
    made = {plan.new_password() for _ in range(100)}
    assert len(made) == 100
    assert all(len(each) == 32 and each.replace("-", "").replace("_", "").isalnum() for each in made)
    assert "secret-secret" not in repr(plan.Wanted(NUMBER, password="secret-secret"))


@pytest.mark.parametrize("spelling", [NUMBER, "15550001111", "+1 (555) 000-1111"])
def test_a_trunk_is_found_by_its_number_however_it_is_spelt(spelling: str) -> None:
    wanted = trunk(OTHER, spelling, name="b")
    assert plan.find_trunk([trunk(OTHER, name="a"), wanted], NUMBER) == wanted


def test_a_trunk_for_every_number_is_nobodys() -> None:
    assert plan.find_trunk([trunk(name="any")], NUMBER) is None
    ours = trunk(name=plan.name_of(NUMBER))
    assert plan.find_trunk([trunk(name="any"), ours], NUMBER) == ours
    assert not plan.same_number("", "")


def rule(
    name: str = "", trunks: tuple[str, ...] = ("ST_1",), pin: str = "", callers: tuple[str, ...] = ()
) -> api.SIPDispatchRuleInfo:
    return api.SIPDispatchRuleInfo(
        name=name,
        trunk_ids=trunks,
        inbound_numbers=callers,
        rule=api.SIPDispatchRule(dispatch_rule_individual=api.SIPDispatchRuleIndividual(pin=pin)),
    )


def test_a_rule_is_found_by_name_or_as_the_only_one_of_its_trunk() -> None:
    assert plan.find_rule([rule("x"), rule(plan.name_of(NUMBER), ("ST_2",))], NUMBER, "ST_1") == rule(
        plan.name_of(NUMBER), ("ST_2",)
    )
    assert plan.find_rule([rule("x")], NUMBER, "ST_1") == rule("x")
    special = [rule(trunks=("ST_1", "ST_2")), rule(trunks=()), rule(pin="1"), rule(callers=("+1",))]
    assert plan.find_rule([*special, plan.rule_of_call(CALL)], NUMBER, "ST_1") is None
    assert plan.find_rule([rule()], NUMBER, "") is None


def test_what_nobody_asked_for_stays() -> None:
    old = api.SIPInboundTrunkInfo(name="n", numbers=[OTHER], auth_username="u", auth_password="p", metadata="m")
    new = plan.trunk_for(plan.Wanted(NUMBER), old)
    assert (list(new.numbers), new.auth_username, new.auth_password, new.metadata) == ([OTHER, NUMBER], "u", "p", "m")
    assert plan.changed_fields(old, new) == ["numbers"]
    had = rule()
    had.room_config.agents.add(agent_name="helper", metadata="kept")
    kept = plan.rule_for(plan.Wanted(NUMBER, agents=("helper",)), had, "ST_1")
    assert kept.room_config.agents[0].metadata == "kept"
    assert not plan.rule_for(plan.Wanted(NUMBER, agents=()), had, "ST_1").room_config.agents


def test_the_rule_of_a_call() -> None:
    made = plan.rule_of_call(CALL)
    assert plan.call_of(made) == "call_1"
    assert made.rule.dispatch_rule_direct.room_name == "control"
    assert (list(made.trunk_ids), list(made.numbers), list(made.inbound_numbers)) == (
        ["ST_1"],
        [NUMBER],
        ["+15552223333"],
    )
    assert plan.call_of(rule(plan.name_of(NUMBER))) == ""
    assert plan.call_of(rule("somebody's")) == ""
