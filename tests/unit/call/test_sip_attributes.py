"""An agent that was written for LiveKit SIP finds the attributes that it reads, when the operator wants it so."""

from __future__ import annotations

from dataclasses import replace

import pytest

from connector.call.record.sip_attributes import of_carrier
from connector.call.registry.manager import CallManager
from connector.model.call import CallRequest, Direction
from tests.unit.call.fakes import World
from tests.unit.call.test_flags import OURS, PHONE, request_of, talk, world_of
from tests.unit.call.virtual_time import virtual_time


def with_sip(direction: Direction) -> World:
    world = world_of(direction)
    world.parts = replace(world.parts, sip_attributes=True)
    world.manager = CallManager(world.parts, world.max_calls)
    return world


def seen(world: World) -> dict[str, str]:
    inbound = world.direction is Direction.INBOUND
    attributes = world.rooms[0].attributes if inbound else world.rooms[0].attributes | world.admin.revealed
    return {name: value for name, value in attributes.items() if name.startswith("sip.")}


def routed(world: World, **changes: bool) -> CallRequest:
    return replace(request_of(world, **changes), connector_id="cn_1", rule_id="rule_1")


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_both_directions_have_the_person_on_the_phone_as_the_phone_number(direction: Direction) -> None:
    world = with_sip(direction)
    call, carrying = await talk(world, routed(world))
    assert seen(world) == {
        "sip.callID": call.call_id,
        "sip.callIDFull": call.record.carrier_call_id,
        "sip.callStatus": "active",
        "sip.phoneNumber": PHONE,
        "sip.trunkPhoneNumber": OURS,
        "sip.trunkID": "cn_1",
        "sip.ruleID": "rule_1",
    } | {name: value for name, value in seen(world).items() if name.startswith("sip.fake.")}
    world.socket.feed("stop")
    await carrying
    assert world.rooms[0].attributes["sip.callStatus"] == "hangup"
    assert "call-update" not in world.lifecycle.events


@virtual_time
async def test_an_outbound_call_is_dialing_until_it_is_answered() -> None:
    world = with_sip(Direction.OUTBOUND)
    await world.manager.create(routed(world))
    assert world.rooms[0].attributes["sip.callStatus"] == "dialing"
    assert world.rooms[0].attributes["connector.callStatus"] == "ringing"
    await world.manager.drain(0.0)


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_hidden_number_is_hidden_under_these_names_too(direction: Direction) -> None:
    world = with_sip(direction)
    _, carrying = await talk(world, routed(world, hide_number=True))
    assert "sip.phoneNumber" not in seen(world)
    assert seen(world)["sip.trunkPhoneNumber"] == OURS
    assert PHONE not in repr(seen(world))
    world.socket.feed("stop")
    await carrying


def test_the_carriers_ids_are_named_as_livekit_sip_names_twilios() -> None:
    given = {"twilio.callSid": "CA1", "twilio.accountSid": "AC1", "twilio.param.tier": "gold"}
    assert of_carrier(given) == {"sip.twilio.callSid": "CA1", "sip.twilio.accountSid": "AC1"}
