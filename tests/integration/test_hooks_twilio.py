"""A number whose webhook is a connector's: calls reach the right room, with no code of the user's own."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from carrier_simulator.call import PhoneCall
from connector.api.carrier.sentences import ASK_PIN, NO_MORE_TRIES, SORRY, WRONG_PIN
from connector.app import Connector
from connector.call.dependencies import BUSY
from demo.livekit_server import LiveKitServer
from tests.integration.harness import Guest, Stage, ended, only_session, stage_on, strength, tone, until
from tests.integration.rest import RestClient

CALLER, CALLED = "+15552223333", "+15550001111"


async def rest_of(stage: Stage, connector: Connector) -> RestClient:
    return RestClient(await stage.http(), connector)


async def heard_both_ways(guest: Guest, call: PhoneCall, identity: str) -> None:
    await guest.publish()
    await guest.event("track_subscribed", lambda *args: args[2].identity == identity)
    call.say(tone(600, 1.0))
    await guest.until(lambda: strength(guest.sound_of(identity)[-4000:], 600) > 4000)
    guest.start_saying(tone(900, 3.0))
    await until(lambda: strength(call.heard[-2000:], 900) > 4000)


async def caller_in(guest: Guest) -> Any:
    (participant,) = await guest.event("participant_connected")
    return participant


async def test_the_default_room_is_the_shortest_way_to_a_call(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    made = await rest.connector(defaultRoomId=room)
    guest = await stage.guest(room)
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    caller = await caller_in(guest)
    await heard_both_ways(guest, call, caller.identity)
    assert caller.identity.startswith("twilio_")
    assert caller.name == CALLER
    assert caller.attributes["phone.from"] == CALLER
    assert caller.attributes["connector.direction"] == "inbound"

    (listed,) = (await rest.ok("GET", f"/v2/sip/call?roomId={room}"))["data"]
    assert (listed["status"], listed["from"], listed["to"]) == ("answered", CALLER, CALLED)
    assert listed["connectorId"] == made["id"]
    await call.hangup()
    await guest.event("participant_disconnected")
    await ended(connector, listed["id"])
    shown = (await rest.ok("GET", f"/v2/sip/call/{listed['id']}"))["data"]
    assert (shown["status"], shown["endReason"]) == ("ended", "carrier_hangup")
    assert [moment["status"] for moment in shown["timelog"]] == ["incoming", "answered", "ended"]
    assert not call.errors


async def test_a_rule_sends_the_call_and_an_agent_to_its_room(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    rule = await rest.rule(
        phoneNumbers=["+1 (555) 000-1111"],
        room={"type": "static", "id": room},
        agentId="support-agent",
        agentMetadata={"queue": "technical"},
    )
    made = await rest.connector(defaultRoomId="elsewhere")
    guest = await stage.guest(room)
    twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await caller_in(guest)
    dispatches: list[Any] = await stage.admin.agent_dispatch.list_dispatch(room)
    named = [(each.agent_name, each.metadata) for each in dispatches if each.agent_name]
    assert named == [("support-agent", '{"queue":"technical"}')]
    assert only_session(connector).record.rule_id == rule["id"]


async def test_the_url_names_the_room(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    made = await rest.connector(defaultRoomId="elsewhere")
    guest = await stage.guest(room)
    twilio.inbound_call(f"{made['webhookUrl']}?roomId={room}", to=CALLED, from_=CALLER)
    await caller_in(guest)


async def test_each_caller_has_a_dynamic_room_of_its_own(stage: Stage) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    rule = await rest.rule(room={"type": "dynamic", "prefix": "participantNumber"})
    made = await rest.connector(defaultRuleId=rule["id"])
    for number in (CALLER, "+15554445555"):
        twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=number)
    await until(lambda: [call.state.value for call in connector.calls.live()] == ["active", "active"])
    rooms = sorted(call.record.room for call in connector.calls.live())
    assert [re.sub("-.*", "", room) for room in rooms] == [CALLER, "+15554445555"]


async def test_a_pin_is_asked_for_before_the_caller_joins(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    await rest.rule(phoneNumbers=[CALLED], room={"type": "static", "id": room, "pin": "4711"})
    made = await rest.connector()
    guest = await stage.guest(room)
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await call.enter("1111")
    await until(lambda: WRONG_PIN in call.spoken)
    assert not connector.calls.live()
    await call.enter("4711")
    await caller_in(guest)
    assert not call.errors


async def test_three_wrong_pins_end_the_call(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    await rest.rule(phoneNumbers=[CALLED], room={"type": "static", "id": room, "pin": "4711"})
    made = await rest.connector()
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    for times in range(3):
        await until(lambda wanted=times: call.spoken.count(WRONG_PIN) == wanted)  # type: ignore[misc]
        await call.enter("1111")
    await call.ended.wait()
    assert call.spoken == [ASK_PIN, WRONG_PIN, WRONG_PIN, NO_MORE_TRIES]
    assert not call.errors
    assert not await connector.store.list_calls()


async def test_a_hidden_number_is_nowhere(stage: Stage, log: list[Any]) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    await rest.rule(phoneNumbers=[CALLED], room={"prefix": "participantNumber"}, hidePhoneNumber=True)
    made = await rest.connector()
    twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await until(lambda: [call.state.value for call in connector.calls.live()] == ["active"])
    record = only_session(connector).record
    participants = await stage.participants(record.room)
    listed = await rest.ok("GET", "/v2/sip/call")
    digits = CALLER.removeprefix("+")
    assert participants
    assert digits not in f"{participants} {listed} {record} {log}"


async def test_digits_are_kept_out_where_the_rule_says_so(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    await rest.rule(phoneNumbers=[CALLED], room={"id": room}, dtmf=False)
    made = await rest.connector()
    guest = await stage.guest(room)
    twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await caller_in(guest)
    assert only_session(connector).request.dtmf is False


async def test_a_call_that_no_rule_takes_hears_a_sentence(stage: Stage, log: list[Any]) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    made = await rest.connector()
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await call.ended.wait()
    assert call.spoken == [SORRY]
    assert not call.errors
    assert not connector.calls.live()
    (line,) = [line for line in log if line["event"] == "incoming call refused"]
    assert line["reason"].startswith("no rule has this number")


async def test_a_full_connector_refuses_politely(stage: Stage, room: str) -> None:
    connector = await stage.connector(max_calls=1)
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    made = await rest.connector(defaultRoomId=room)
    guest = await stage.guest(room)
    twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await caller_in(guest)
    second = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_="+15554445555")
    await second.ended.wait()
    assert second.spoken == [BUSY]
    assert not second.errors
    assert len(connector.calls.live()) == 1


async def test_a_rotated_key_is_refused_at_once(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    made = await rest.connector(defaultRoomId=room)
    rotated = (await rest.ok("POST", f"/v2/connectors/{made['id']}/rotate-key"))["data"]
    old = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await old.ended.wait()
    assert old.errors
    guest = await stage.guest(room)
    twilio.inbound_call(rotated["webhookUrl"], to=CALLED, from_=CALLER)
    await caller_in(guest)


async def test_the_documented_answer_of_another_signature_is_403(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    made = await rest.connector(defaultRoomId=room)
    twilio.web.signing_token = "another"
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await call.ended.wait()
    assert "403" in str(call.errors)


async def test_end_and_switch_room_by_the_api(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    made = await rest.connector(defaultRoomId=room)
    here, there = await stage.guest(room), await stage.guest(f"{room}-2", "there")
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    caller = await caller_in(here)
    call_id = only_session(connector).call_id
    await until(lambda: only_session(connector).state.value == "active")
    moved = await rest.ok("POST", "/v2/sip/call/switch-room", {"callId": call_id, "roomId": f"{room}-2"})
    assert moved["data"]["roomId"] == f"{room}-2"
    assert (await caller_in(there)).identity == caller.identity
    await heard_both_ways(there, call, caller.identity)
    over = await rest.ok("POST", "/v2/sip/call/end", {"callId": call_id})
    assert (over["data"]["status"], over["data"]["endReason"]) == ("ended", "ended_by_api")
    status, answer = await rest("POST", "/v2/sip/call/switch-room", {"callId": call_id, "roomId": room})
    assert (status, answer["code"]) == (409, "failed_precondition")


@pytest.mark.parametrize("region", ["us", "mars"])
async def test_the_region_chooses_where_the_carrier_streams_to(stage: Stage, room: str, region: str) -> None:
    port = stage.free_port()
    connector = await stage.connector(
        port=port,
        public_url="https://calls.example.com",
        regions={"us": "https://us.example.com"},
    )
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    for origin in ("https://calls.example.com", "https://us.example.com"):
        twilio.web.routes[origin] = rest.origin
    made = await rest.connector(defaultRoomId=room, region=region)
    assert made["webhookUrl"].startswith("https://calls.example.com/v2/hooks/twilio/whk_")
    guest = await stage.guest(room)
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await caller_in(guest)
    assert not call.errors


async def test_without_livekit_the_caller_hears_a_sentence(
    own_livekit: LiveKitServer, tmp_path: Path, room: str, log: list[Any]
) -> None:
    async with stage_on(own_livekit, tmp_path) as stage:
        connector = await stage.connector()
        rest, twilio = await rest_of(stage, connector), await stage.twilio()
        made = await rest.connector(defaultRoomId=room)
        await own_livekit.stop()
        call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
        await call.ended.wait()
        assert call.spoken == [BUSY]
        assert not call.errors
        assert any(line["event"] == "incoming call refused" for line in log)


async def test_a_connector_that_drains_takes_no_more_calls(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    rest, twilio = await rest_of(stage, connector), await stage.twilio()
    made = await rest.connector(defaultRoomId=room)
    guest = await stage.guest(room)
    first = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await caller_in(guest)
    draining = asyncio.create_task(connector.calls.drain(10.0))
    await until(lambda: connector.calls.draining)
    second = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_="+15554445555")
    await second.ended.wait()
    assert second.spoken == [BUSY]
    assert not second.errors
    assert not draining.done()
    await first.hangup()
    await draining
