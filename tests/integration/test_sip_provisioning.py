"""Trunks and dispatch rules in a real livekit-server, read back with LiveKit's own client."""

from __future__ import annotations

import json

import pytest
from google.protobuf import json_format
from livekit import api

from connector.errors import FailedPrecondition, Internal, Unavailable
from connector.sip import plan
from connector.sip.provisioning import SipProvisioning
from demo.livekit_server import LiveKitServer
from tests.integration.sip_livekit import all_rules, all_trunks, lkapi, provisioning_at, sip, sip_livekit

__all__ = ["lkapi", "sip", "sip_livekit"]

NUMBER, OTHER = "+15550001111", "+15550002222"


async def test_a_number_gets_a_trunk_and_a_rule(sip: SipProvisioning, lkapi: api.LiveKitAPI) -> None:
    done = await sip.set_up(
        plan.Wanted(NUMBER, room_prefix="control-", agents=("helper",), username="tw", password="a-long-password")
    )
    assert done.changes == ("inbound trunk created", "dispatch rule created")
    (trunk,) = await all_trunks(lkapi)
    assert (list(trunk.numbers), trunk.auth_username, trunk.auth_password) == ([NUMBER], "tw", "a-long-password")
    (rule,) = await all_rules(lkapi)
    assert list(rule.trunk_ids) == [trunk.sip_trunk_id]
    assert rule.rule.dispatch_rule_individual.room_prefix == "control-"
    assert not rule.rule.dispatch_rule_individual.pin
    assert [agent.agent_name for agent in rule.room_config.agents] == ["helper"]
    assert (done.setup.trunk_id, done.setup.rule_id) == (trunk.sip_trunk_id, rule.sip_dispatch_rule_id)


async def test_the_second_time_changes_nothing(sip: SipProvisioning, lkapi: api.LiveKitAPI) -> None:
    wanted = plan.Wanted(NUMBER, agents=("helper",))
    first = await sip.set_up(wanted)
    before = (await all_trunks(lkapi), await all_rules(lkapi))
    second = await sip.set_up(wanted)
    assert second.changes == ()
    assert second.setup == first.setup
    assert second.setup.password == first.setup.password
    assert (await all_trunks(lkapi), await all_rules(lkapi)) == before


async def test_only_what_differs_is_updated(sip: SipProvisioning, lkapi: api.LiveKitAPI) -> None:
    first = await sip.set_up(plan.Wanted(NUMBER, agents=("helper",), password="the-first-password"))
    done = await sip.set_up(plan.Wanted(NUMBER, password="the-second-password"))
    assert done.changes == ("inbound trunk updated: auth_password",)
    done = await sip.set_up(plan.Wanted(NUMBER, agents=("helper", "scribe"), room_prefix="x-"))
    assert done.changes == ("dispatch rule updated: rule, room_config",)
    (trunk,), (rule,) = await all_trunks(lkapi), await all_rules(lkapi)
    assert (trunk.sip_trunk_id, rule.sip_dispatch_rule_id) == (first.setup.trunk_id, first.setup.rule_id)
    assert trunk.auth_password == "the-second-password"
    assert rule.rule.dispatch_rule_individual.room_prefix == "x-"
    assert [agent.agent_name for agent in rule.room_config.agents] == ["helper", "scribe"]
    assert (await sip.set_up(plan.Wanted(NUMBER, agents=()))).setup.agents == ()


async def test_what_somebody_else_set_stays(sip: SipProvisioning, lkapi: api.LiveKitAPI) -> None:
    made = await lkapi.sip.create_inbound_trunk(
        api.CreateSIPInboundTrunkRequest(
            trunk=api.SIPInboundTrunkInfo(
                name="hand-made",
                metadata="kept",
                numbers=["15550001111", OTHER],
                auth_username="me",
                auth_password="their-own-password",
                headers_to_attributes={"X-A": "a"},
            )
        )
    )
    done = await sip.set_up(plan.Wanted(NUMBER))
    assert done.changes == ("dispatch rule created",)
    assert (done.setup.trunk_id, done.setup.username, done.setup.password) == (
        made.sip_trunk_id,
        "me",
        "their-own-password",
    )
    await sip.set_up(plan.Wanted(NUMBER, username="you"))
    (trunk,) = await all_trunks(lkapi)
    assert (trunk.name, trunk.metadata, dict(trunk.headers_to_attributes)) == ("hand-made", "kept", {"X-A": "a"})
    assert (list(trunk.numbers), trunk.auth_username) == (["15550001111", OTHER], "you")


async def test_the_json_of_a_dry_run_is_found_again(sip: SipProvisioning, lkapi: api.LiveKitAPI) -> None:
    """The operator feeds it to `lk`, which sends it as it is, and runs the set-up later."""
    wanted = plan.Wanted(NUMBER, agents=("helper",), password="a-long-password")
    trunk_text = plan.inbound_trunk_json(plan.trunk_for(wanted, None))
    rule_text = plan.dispatch_rule_json(plan.rule_for(wanted, None, ""))
    await lkapi.sip.create_inbound_trunk(json_format.Parse(trunk_text, api.CreateSIPInboundTrunkRequest()))
    await lkapi.sip.create_dispatch_rule(json_format.Parse(rule_text, api.CreateSIPDispatchRuleRequest()))
    assert json.loads(rule_text)["dispatch_rule"]["rule"] == {"dispatchRuleIndividual": {"roomPrefix": "call-"}}
    done = await sip.set_up(wanted)
    assert done.changes == ("dispatch rule updated: trunk_ids",)
    assert (len(await all_trunks(lkapi)), len(await all_rules(lkapi))) == (1, 1)


async def test_numbers_are_listed_with_what_serves_them(sip: SipProvisioning, lkapi: api.LiveKitAPI) -> None:
    one = await sip.set_up(plan.Wanted(NUMBER, agents=("helper",)))
    two = await sip.set_up(plan.Wanted(OTHER, room_prefix="two-"))
    assert sorted(await sip.list_numbers(), key=lambda setup: setup.number) == [one.setup, two.setup]
    assert one.setup.password != two.setup.password
    assert one.setup.password not in repr(one)


async def test_a_number_is_removed_and_others_stay(sip: SipProvisioning, lkapi: api.LiveKitAPI) -> None:
    one = await sip.set_up(plan.Wanted(NUMBER))
    two = await sip.set_up(plan.Wanted(OTHER))
    assert await sip.remove(NUMBER) == (
        f"dispatch rule {one.setup.rule_id} deleted",
        f"inbound trunk {one.setup.trunk_id} deleted",
    )
    assert await sip.list_numbers() == [two.setup]
    assert await sip.remove(NUMBER) == ()


async def test_a_trunk_with_other_numbers_goes_on_without_this_one(sip: SipProvisioning, lkapi: api.LiveKitAPI) -> None:
    trunk = api.SIPInboundTrunkInfo(name="both", numbers=[NUMBER, OTHER], auth_username="u", auth_password="p" * 12)
    await lkapi.sip.create_inbound_trunk(api.CreateSIPInboundTrunkRequest(trunk=trunk))
    await sip.set_up(plan.Wanted(NUMBER))
    await sip.remove(NUMBER)
    (trunk,) = await all_trunks(lkapi)
    assert list(trunk.numbers) == [OTHER]
    assert len(await all_rules(lkapi)) == 1


async def test_without_redis_it_says_so() -> None:
    async with (
        LiveKitServer() as livekit,
        provisioning_at(livekit.http_url, livekit.api_key, livekit.api_secret) as sip,
    ):
        with pytest.raises(FailedPrecondition, match="without Redis"):
            await sip.set_up(plan.Wanted(NUMBER))


@pytest.mark.parametrize(
    ("secret", "url", "error"), [("wrong" * 9, "", Internal), ("", "http://127.0.0.1:9", Unavailable)]
)
async def test_a_livekit_that_refuses_or_is_gone(
    sip_livekit: LiveKitServer, secret: str, url: str, error: type[Exception]
) -> None:
    at = url or sip_livekit.http_url, sip_livekit.api_key, secret or sip_livekit.api_secret
    async with provisioning_at(*at) as sip:
        with pytest.raises(error):
            await sip.list_numbers()
