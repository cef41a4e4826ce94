"""Agents: each dispatch of a request reaches LiveKit once, and a real worker talks with the caller."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from livekit import api

from connector.app import Connector
from connector.cli.doctor_agent import agent_findings
from connector.livekit_api import opened_livekit
from connector.model.call import CallState
from connector.room.dispatches import CREATION
from demo.echo_agent import EchoAgent
from demo.livekit_server import LiveKitServer
from tests.integration.conftest import logs_printed
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    PATIENCE,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    strength,
    tone,
    until,
)
from tests.integration.stranger import open_socket, start_stream

BOTH = pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
WHERE = pytest.mark.parametrize("exists", [False, True], ids=["new room", "existing room"])
WORKER = "echo-of-the-tests"


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await stage.connector()


@pytest.fixture(scope="module")
def worker(livekit: LiveKitServer) -> Iterator[EchoAgent]:
    """A real `livekit-agents` worker that says back what it hears."""
    agent = EchoAgent(livekit.environment, name=WORKER, greeting="", options=("--log-level", "INFO"))
    asyncio.run(agent.start())
    with logs_printed("echo agent", agent.log):
        yield agent
    asyncio.run(agent.stop())


async def dispatches(stage: Stage, room: str) -> list[tuple[str, str]]:
    """(agent name, metadata) of every dispatch, without LiveKit's own one for unnamed agents."""
    if room not in await stage.rooms():
        return []
    listed = await stage.admin.agent_dispatch.list_dispatch(room)
    return sorted((dispatch.agent_name, dispatch.metadata) for dispatch in listed if dispatch.agent_name)


async def agents_in(stage: Stage, room: str) -> list[str]:
    people = (await stage.participants(room)).values()
    return [person.identity for person in people if person.kind == api.ParticipantInfo.Kind.AGENT]


async def until_agents(stage: Stage, room: str, number: int) -> None:
    async with asyncio.timeout(PATIENCE):
        while len(await agents_in(stage, room)) < number:  # noqa: ASYNC110 - nobody in the room would tell
            await asyncio.sleep(0.05)


async def answer(stage: Stage, connector: Connector, connect_url: str) -> None:
    """The stream starts, and the caller is in the room."""
    (call,) = [call for call in connector.calls.live() if not call.claimed]
    socket = await open_socket(await stage.http(), connect_url)
    await start_stream(socket)
    await until(lambda: call.state is CallState.ACTIVE)


@BOTH
@WHERE
async def test_each_agent_is_dispatched_once_with_its_metadata(
    stage: Stage, room: str, connector: Connector, direction: Any, exists: bool
) -> None:
    if exists:
        await stage.guest(room)
    agents = [
        api.RoomAgentDispatch(agent_name="support", metadata='{"lang": "de"}'),
        api.RoomAgentDispatch(agent_name="recorder", metadata=""),
    ]
    connect_url = await connect_call(stage.client(connector), room, direction, agents=agents)
    wanted = [("recorder", ""), ("support", '{"lang": "de"}')]
    if direction == INBOUND:
        assert await dispatches(stage, room) == []
    else:
        assert await dispatches(stage, room) == wanted
    await answer(stage, connector, connect_url)
    assert await dispatches(stage, room) == wanted


@WHERE
async def test_everything_said_about_an_agent_is_passed_on(
    stage: Stage, room: str, connector: Connector, exists: bool
) -> None:
    if exists:
        await stage.guest(room)
    agent = api.RoomAgentDispatch(
        agent_name="support",
        metadata="m" * 5000,
        restart_policy=api.JobRestartPolicy.JRP_NEVER,
        attributes={"tier": "gold"},
    )
    await connect_call(stage.client(connector), room, OUTBOUND, agents=[agent])
    (dispatch,) = [d for d in await stage.admin.agent_dispatch.list_dispatch(room) if d.agent_name]
    assert (dispatch.agent_name, dispatch.metadata) == ("support", "m" * 5000)
    assert dispatch.restart_policy == api.JobRestartPolicy.JRP_NEVER
    assert {name: value for name, value in dispatch.attributes.items() if name != CREATION} == {"tier": "gold"}
    assert (CREATION in dispatch.attributes) is not exists  # Docs: a mark of those that the room's creation makes.


@pytest.mark.parametrize("at_once", [False, True], ids=["one after the other", "at once"])
async def test_two_calls_to_one_room_bring_their_agents_each(
    stage: Stage, room: str, connector: Connector, at_once: bool
) -> None:
    client = stage.client(connector)
    calls = [
        connect_call(
            client,
            room,
            OUTBOUND,
            participant_identity=f"caller-{number}",
            agents=[api.RoomAgentDispatch(agent_name="support", metadata=str(number))],
        )
        for number in range(4)
    ]
    if at_once:
        await asyncio.gather(*calls)
    else:
        for call in calls:
            await call
    assert await dispatches(stage, room) == [("support", str(number)) for number in range(4)]


async def test_a_call_without_agents_dispatches_none(stage: Stage, room: str, connector: Connector) -> None:
    await connect_call(stage.client(connector), room, OUTBOUND)
    assert await dispatches(stage, room) == []


@WHERE
async def test_a_call_that_nobody_answers_takes_its_agents_back(stage: Stage, room: str, exists: bool) -> None:
    if exists:
        await stage.guest(room)
    connector = await stage.connector(connect_timeout=1.5)
    agents = [api.RoomAgentDispatch(agent_name="support")]
    await connect_call(stage.client(connector), room, OUTBOUND, agents=agents)
    await ended(connector)
    assert (room in await stage.rooms()) == exists
    if exists:
        assert await dispatches(stage, room) == []


async def test_a_real_agent_is_there_before_an_outbound_caller_answers_and_talks_with_it(
    stage: Stage, room: str, connector: Connector, worker: EchoAgent
) -> None:
    twilio = await stage.twilio()
    agents = [api.RoomAgentDispatch(agent_name=WORKER, metadata="for this call")]
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND, agents=agents)
    await until_agents(stage, room, 1)
    assert only_session(connector).state is CallState.RINGING

    call = place(twilio, connect_url)
    await call.stream_started.wait()
    call.say(tone(700, PATIENCE))
    await until(lambda: strength(call.heard[-4000:], 700) > 3000, PATIENCE)

    assert len(await agents_in(stage, room)) == 1
    assert await dispatches(stage, room) == [(WORKER, "for this call")]
    await call.hangup()
    assert call.errors == []


async def test_a_real_agent_comes_to_an_inbound_call_in_a_room_that_exists(
    stage: Stage, room: str, connector: Connector, worker: EchoAgent
) -> None:
    twilio, guest = await stage.twilio(), await stage.guest(room)
    agents = [api.RoomAgentDispatch(agent_name=WORKER)]
    connect_url = await connect_call(stage.client(connector), room, INBOUND, agents=agents)
    assert await agents_in(stage, room) == []
    call = place(twilio, connect_url)
    await call.stream_started.wait()
    call.say(tone(900, PATIENCE))
    await until(lambda: strength(call.heard[-4000:], 900) > 3000, PATIENCE)
    assert len(await agents_in(stage, room)) == 1
    assert len(guest.saw("participant_connected")) == 2
    await call.hangup()
    assert call.errors == []


async def test_two_real_agents_and_two_calls_in_one_room(
    stage: Stage, room: str, connector: Connector, worker: EchoAgent
) -> None:
    client = stage.client(connector)
    for identity in ("one", "two"):
        agents = [api.RoomAgentDispatch(agent_name=WORKER, metadata=identity)]
        await connect_call(client, room, OUTBOUND, participant_identity=identity, agents=agents)
    await until_agents(stage, room, 2)
    assert await dispatches(stage, room) == [(WORKER, "one"), (WORKER, "two")]
    assert len(await agents_in(stage, room)) == 2


async def test_the_doctor_finds_an_agent_that_has_registered(stage: Stage, worker: EchoAgent) -> None:
    async with opened_livekit(stage.settings()) as livekit:
        (finding,) = await agent_findings(livekit, WORKER)
    assert (finding.level, finding.text) == ("ok", f"a worker is registered as {WORKER} and took a job")
    assert not [room for room in await stage.rooms() if room.startswith("connector-doctor-")]
