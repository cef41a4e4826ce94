"""Agents that never come, come late, die or leave: nobody is left on a silent line. Against the real livekit-server,
with real `livekit-agents` workers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from livekit import api

from carrier_simulator import OutboundCall
from connector.app import Connector
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from demo.echo_agent import EchoAgent
from demo.livekit_server import LiveKitServer
from tests.integration.carriers import carrier_of
from tests.integration.harness import (
    INBOUND,
    PATIENCE,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    stage_on,
    strength,
    tone,
    until,
)
from tests.integration.rest import RestClient

pytestmark = pytest.mark.timeout(120)

CALLER, CALLED = "+15552223333", "+15550001111"
LONG = 60.0
SENTENCE = "Nobody can talk with you now. We will call you back."


def lines(log: list[Any], event: str) -> list[Any]:
    return [line for line in log if line["event"] == event]


def agent(livekit: LiveKitServer, name: str) -> EchoAgent:
    return EchoAgent(livekit.environment, name=name, greeting="")


async def agents_in(stage: Stage, room: str) -> list[str]:
    people = (await stage.participants(room)).values()
    return [person.identity for person in people if person.kind == api.ParticipantInfo.Kind.AGENT]


async def answered(stage: Stage, connector: Connector, room: str, **fields: Any) -> OutboundCall:
    call = place(await stage.twilio(), await connect_call(stage.client(connector), room, INBOUND, **fields))
    await call.stream_started.wait()
    await until(lambda: only_session(connector).state is CallState.ACTIVE)
    return call


async def hears_its_echo(call: OutboundCall, frequency: float, patience: float = PATIENCE) -> None:
    call.say(tone(frequency, patience))
    await until(lambda: strength(call.heard[-4000:], frequency) > 3000, patience)


async def test_a_rule_whose_worker_does_not_run_ends_its_calls_as_no_agent(
    stage: Stage, room: str, log: list[Any]
) -> None:
    connector = await stage.connector()
    rest, twilio = RestClient(await stage.http(), connector), await stage.twilio()
    await rest.rule(
        phoneNumbers=[CALLED],
        room={"type": "static", "id": room},
        agentId="nobody",
        agentMetadata={"queue": "sales"},
        agentWarnAfter=0.3,
        agentTimeout=3,
    )
    made = await rest.connector()
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await until(lambda: bool(lines(log, "agents dispatched again")))
    # What was there first is kept for a while: its worker may still answer. Each has the agent's metadata.
    listed = [each for each in await stage.admin.agent_dispatch.list_dispatch(room) if each.agent_name]
    assert {(each.agent_name, each.metadata) for each in listed} == {("nobody", '{"queue":"sales"}')}
    record = await ended(connector)
    assert record.end_reason is EndReason.NO_AGENT
    assert 2.9 < record.ended_at - record.started_at < 3 + PATIENCE
    (warning,) = lines(log, "no agent talks with the caller")
    assert (warning["log_level"], warning["agents"], warning["why"]) == ("warning", ["nobody"], "never_came")
    await call.ended.wait()
    assert not call.errors


@pytest.mark.parametrize("provider", Provider)
@pytest.mark.parametrize("choice", ["number", "sentence"])
async def test_before_the_end_each_carrier_moves_the_phone_or_reads_the_sentence_out(
    stage: Stage, room: str, provider: Provider, choice: str
) -> None:
    carrier, credentials = carrier_of(provider)
    await stage.enter(carrier)
    last = {"fallback_number": CALLED} if choice == "number" else {"no_agent_message": SENTENCE}
    connector = await stage.connector(
        **credentials, **{f"{provider.value}_api_url": carrier.base_url}, **last, agent_timeout=0.5
    )
    made = await RestClient(await stage.http(), connector).connector(provider=provider.value, defaultRoomId=room)
    call = carrier.inbound_call(made["webhookUrl"], to="+15557654321", from_=CALLER)
    if choice == "number":
        await call.transferred.wait(PATIENCE)
        assert [target.address for target in call.dialled] == [CALLED]
        record = await ended(connector)
        assert (record.end_reason, record.transfer_to) == (EndReason.TRANSFERRED, CALLED)
        assert (call.is_over, call.spoken) == (False, [])
    else:
        await call.finished()
        record = await ended(connector)
        assert record.end_reason is EndReason.NO_AGENT
        assert call.spoken == [SENTENCE]
    assert not call.errors


async def test_a_worker_that_registers_late_gets_the_call_once(stage: Stage, room: str, log: list[Any]) -> None:
    connector = await stage.connector(agent_warn_after=0.3)
    agents = [api.RoomAgentDispatch(agent_name=f"late-{room}", metadata="kept")]
    call = await answered(stage, connector, room, agents=agents)
    await until(lambda: bool(lines(log, "agents dispatched again")))
    await stage.enter(agent(stage.livekit, f"late-{room}"))
    await hears_its_echo(call, 700)
    assert len(await agents_in(stage, room)) == 1
    await until(lambda: bool(lines(log, "somebody talks with the caller again")))
    await call.hangup()
    assert (await ended(connector)).end_reason is EndReason.CARRIER_HANGUP
    assert not call.errors


async def test_a_job_that_is_killed_is_dispatched_again(stage: Stage, room: str, log: list[Any]) -> None:
    connector = await stage.connector()
    first = agent(stage.livekit, f"mortal-{room}")
    await stage.enter(first)
    call = await answered(stage, connector, room, agents=[api.RoomAgentDispatch(agent_name=f"mortal-{room}")])
    await hears_its_echo(call, 700)
    await first.kill()
    await stage.enter(agent(stage.livekit, f"mortal-{room}"))
    # LiveKit notices after some 20 s.
    await hears_its_echo(call, 900, LONG)
    assert lines(log, "no agent talks with the caller")[0]["why"] == "crashed"
    assert len(await agents_in(stage, room)) == 1
    await call.hangup()
    assert (await ended(connector)).end_reason is EndReason.CARRIER_HANGUP


async def test_phones_alone_together_talk_and_the_last_one_is_hung_up(stage: Stage, room: str) -> None:
    connector = await stage.connector(agent_timeout=3, room_empty_timeout=0.5)
    client, twilio = stage.client(connector), await stage.twilio()
    urls = [await connect_call(client, room, INBOUND, participant_identity=name) for name in ("anna", "ben")]
    anna, ben = (place(twilio, url) for url in urls)
    await until(lambda: [call.state for call in connector.calls.live()] == [CallState.ACTIVE] * 2)
    anna.say(tone(600, PATIENCE))
    # Longer than either may be alone.
    async with asyncio.timeout(PATIENCE):
        while (strength(ben.heard[-4000:], 600) < 3000) or len(ben.heard) < 4 * 8000:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.05)
    assert len(connector.calls.live()) == 2
    await anna.hangup()
    for call in connector.calls.live():
        await call.finished.wait()
    await ben.ended.wait()
    reasons = {record.identity: record.end_reason for record in await connector.store.list_calls(2)}
    assert reasons == {"anna": EndReason.CARRIER_HANGUP, "ben": EndReason.ROOM_EMPTY}


async def test_an_agent_that_left_in_an_outage_of_livekit_is_dispatched_again(
    own_livekit: LiveKitServer, tmp_path: Any, room: str, log: list[Any]
) -> None:
    async with stage_on(own_livekit, tmp_path) as stage:
        connector = await stage.connector(reconnect_timeout=60)
        await stage.enter(agent(own_livekit, "echo"))
        call = await answered(stage, connector, room, agents=[api.RoomAgentDispatch(agent_name="echo")])
        await hears_its_echo(call, 700)
        await own_livekit.restart()
        await hears_its_echo(call, 900, LONG)
        assert len(await agents_in(stage, room)) == 1
        await call.hangup()
