"""Telnyx's and Plivo's numbers at a connector: the same way to a room as Twilio's, each in its carrier's own words."""

from __future__ import annotations

from typing import Any

import pytest

from carrier_simulator.plivo.simulator import PlivoSimulator
from carrier_simulator.simulator import CarrierSimulator
from carrier_simulator.telnyx.simulator import TelnyxSimulator
from connector.api.carrier.sentences import ASK_PIN, NO_MORE_TRIES, SORRY, WRONG_PIN
from connector.app import Connector
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from tests.integration.harness import Guest, Stage, ended, only_session, strength, tone, until
from tests.integration.rest import RestClient

CALLER, CALLED = "+15552223333", "+15550001111"
OTHERS = (Provider.TELNYX, Provider.PLIVO)
pytestmark = pytest.mark.parametrize("provider", OTHERS)


async def number_at(
    stage: Stage, provider: Provider, **settings: Any
) -> tuple[CarrierSimulator, Connector, RestClient]:
    """A carrier that signs, a connector that checks, and its REST API."""
    carrier: CarrierSimulator
    if provider is Provider.TELNYX:
        carrier = telnyx = await stage._stack.enter_async_context(TelnyxSimulator())
        settings |= {
            "telnyx_public_key": telnyx.public_key,
            "telnyx_api_key": telnyx.api_key,
            "telnyx_api_url": telnyx.base_url,
        }
    else:
        carrier = plivo = await stage._stack.enter_async_context(PlivoSimulator())
        settings |= {
            "plivo_auth_id": plivo.auth_id,
            "plivo_auth_token": plivo.auth_token,
            "plivo_api_url": plivo.base_url,
        }
    connector = await stage.connector(**settings)
    return carrier, connector, RestClient(await stage.http(), connector)


async def caller_in(guest: Guest) -> Any:
    (participant,) = await guest.event("participant_connected")
    return participant


async def test_a_call_reaches_its_room_and_talks(stage: Stage, room: str, provider: Provider) -> None:
    carrier, connector, rest = await number_at(stage, provider)
    rule = await rest.rule(phoneNumbers=[CALLED], room={"id": room}, agentId="bot")
    made = await rest.connector(provider=provider.value)
    guest = await stage.guest(room)
    await guest.publish()
    call = carrier.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    caller = await caller_in(guest)
    assert caller.attributes["phone.from"] == CALLER
    assert caller.attributes["connector.provider"] == provider.value
    await guest.event("track_subscribed", lambda *args: args[2].identity == caller.identity)
    call.say(tone(600, 1.0))
    await guest.until(lambda: strength(guest.sound_of(caller.identity)[-4000:], 600) > 4000)
    guest.start_saying(tone(900, 3.0))
    await until(lambda: strength(call.heard[-2000:], 900) > 4000)
    record = only_session(connector).record
    assert (record.rule_id, record.from_number, record.to_number) == (rule["id"], CALLER, CALLED)
    await call.hangup()
    await guest.event("participant_disconnected")
    assert (await ended(connector)).end_reason in (EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED)
    assert not call.errors


async def test_the_api_ends_the_call_at_the_carrier(stage: Stage, room: str, provider: Provider) -> None:
    carrier, connector, rest = await number_at(stage, provider)
    made = await rest.connector(provider=provider.value, defaultRoomId=room)
    guest = await stage.guest(room)
    call = carrier.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await caller_in(guest)
    await until(lambda: only_session(connector).state.value == "active")
    await rest.ok("POST", "/v2/sip/call/end", {"callId": only_session(connector).call_id})
    await call.ended.wait()
    assert not call.errors


async def test_a_pin_is_asked_for_in_the_carrier_s_words(stage: Stage, room: str, provider: Provider) -> None:
    carrier, connector, rest = await number_at(stage, provider)
    await rest.rule(phoneNumbers=[CALLED], room={"id": room, "pin": "4711"})
    made = await rest.connector(provider=provider.value)
    guest = await stage.guest(room)
    call = carrier.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await call.enter("1111")
    await until(lambda: WRONG_PIN in call.spoken)
    assert not connector.calls.live()
    await call.enter("4711")
    await caller_in(guest)
    assert not call.errors


async def test_three_wrong_pins_end_the_call(stage: Stage, room: str, provider: Provider) -> None:
    carrier, connector, rest = await number_at(stage, provider)
    await rest.rule(phoneNumbers=[CALLED], room={"id": room, "pin": "4711"})
    made = await rest.connector(provider=provider.value)
    call = carrier.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    for times in range(3):
        await until(lambda wanted=times: call.spoken.count(WRONG_PIN) == wanted)  # type: ignore[misc]
        await call.enter("1111")
    await call.ended.wait()
    assert call.spoken == [ASK_PIN, WRONG_PIN, WRONG_PIN, NO_MORE_TRIES]
    assert not call.errors
    assert not await connector.store.list_calls()


async def test_a_call_that_no_rule_takes_hears_a_sentence(stage: Stage, provider: Provider) -> None:
    carrier, connector, rest = await number_at(stage, provider)
    made = await rest.connector(provider=provider.value)
    call = carrier.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await call.ended.wait()
    assert call.spoken == [SORRY]
    assert not call.errors
    assert not connector.calls.live()


async def test_the_region_chooses_where_the_carrier_streams_to(stage: Stage, room: str, provider: Provider) -> None:
    carrier, connector, rest = await number_at(
        stage, provider, public_url="https://calls.example.com", regions={"us": "https://us.example.com"}
    )
    for origin in ("https://calls.example.com", "https://us.example.com"):
        carrier.web.routes[origin] = rest.origin
    made = await rest.connector(provider=provider.value, defaultRoomId=room, region="us")
    guest = await stage.guest(room)
    call = carrier.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await caller_in(guest)
    assert only_session(connector).record.region == "us"
    assert not call.errors


async def test_a_hidden_number_is_nowhere(stage: Stage, provider: Provider, log: list[Any]) -> None:
    carrier, connector, rest = await number_at(stage, provider)
    await rest.rule(phoneNumbers=[CALLED], room={"prefix": "participantNumber", "pin": "12"}, hidePhoneNumber=True)
    made = await rest.connector(provider=provider.value)
    call = carrier.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await call.enter("12")
    await until(lambda: [call.state.value for call in connector.calls.live()] == ["active"])
    session = only_session(connector)
    participants = await stage.participants(session.record.room)
    await call.hangup()
    record = await ended(connector, session.call_id)
    listed = await rest.ok("GET", "/v2/sip/call")
    assert participants
    assert CALLER.removeprefix("+") not in f"{participants} {listed} {record} {log}"
