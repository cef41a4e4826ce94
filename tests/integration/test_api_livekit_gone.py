"""LiveKit does not answer, or refuses us: the client is told within 5 s, and nothing is left behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from livekit import api

from connector.app import Connector
from connector.model.end_reason import EndReason
from connector.room import engine, joining
from demo.livekit_server import LiveKitServer
from demo.ports import PortLease
from tests.integration.gate import Gate, Manner, gate_to
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    PATIENCE,
    Stage,
    connect_call,
    ended,
    place,
    strength,
    tone,
    until,
)

BOTH = pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])


@pytest.fixture
async def gate(livekit: LiveKitServer, stage: Stage) -> AsyncIterator[Gate]:
    """Shut before the connectors stop: the SDK ends what it still tries, and the next test's guests, who join without
    a gateway, do not meet it (see `connector.room.engine`)."""
    async with gate_to(livekit.port) as gate:
        yield gate
    await until(lambda: not joining._abandoned)
    await asyncio.sleep(joining.ENGINE_DOWN)


def call_tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks() if "call_" in task.get_name()}


async def refusal(
    stage: Stage, connector: Connector, room: str, direction: Any, **fields: Any
) -> tuple[api.TwirpError, float]:
    """The error that ConnectTwilioCall answers, and after how many seconds; nothing of the call is left."""
    settings = connector.settings
    client = stage.client(
        connector, api_key=settings.livekit_api_key, api_secret=settings.livekit_api_secret.get_secret_value()
    )
    started = time.monotonic()
    with pytest.raises(api.TwirpError) as caught:
        await connect_call(client, room, direction, **fields)
    took = time.monotonic() - started
    assert connector.calls.live() == []
    assert call_tasks() == set()
    assert all(record.end_reason is EndReason.LIVEKIT_UNAVAILABLE for record in await connector.store.list_calls())
    return caught.value, took


@BOTH
async def test_a_port_where_nobody_listens(stage: Stage, room: str, direction: Any) -> None:
    lease = PortLease()
    connector = await stage.connector(livekit_url=f"ws://127.0.0.1:{lease.port}")
    error, took = await refusal(stage, connector, room, direction)
    lease.close()
    assert (error.status, error.code) == (503, "unavailable")
    assert error.message == f"livekit-server at http://127.0.0.1:{lease.port} cannot be reached: connection refused"
    assert took < PATIENCE


@BOTH
async def test_a_port_that_accepts_but_never_answers(gate: Gate, stage: Stage, room: str, direction: Any) -> None:
    gate.api = gate.signalling = "hang"
    connector = await stage.connector(livekit_url=gate.url)
    error, took = await refusal(stage, connector, room, direction)
    assert (error.status, error.code) == (503, "unavailable")
    assert "did not answer in 3 s" in error.message
    assert took < PATIENCE


async def test_calls_to_one_room_do_not_wait_for_each_other_to_fail(gate: Gate, stage: Stage, room: str) -> None:
    gate.api = "hang"
    connector = await stage.connector(livekit_url=gate.url)
    client = stage.client(connector)
    attempts = [connect_call(client, room, OUTBOUND, participant_identity=f"caller-{n}") for n in range(8)]
    # One after the other they would take 3 s each.
    async with asyncio.timeout(PATIENCE):
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    assert [error.code for error in outcomes if isinstance(error, api.TwirpError)] == ["unavailable"] * 8


@BOTH
@pytest.mark.parametrize("manner", ["close", "bad gateway", "not found"])
async def test_something_else_than_livekit_answers(
    gate: Gate, stage: Stage, room: str, direction: Any, manner: Manner
) -> None:
    gate.api = gate.signalling = manner
    connector = await stage.connector(livekit_url=gate.url)
    error, took = await refusal(stage, connector, room, direction)
    assert (error.status, error.code) == (503, "unavailable")
    assert gate.url.replace("ws", "http") in error.message
    assert {"close": "cannot be reached", "bad gateway": "502", "not found": "404"}[manner] in error.message
    assert took < PATIENCE


@BOTH
@pytest.mark.parametrize("wrong", ["livekit_api_key", "livekit_api_secret"])
async def test_credentials_that_livekit_refuses(stage: Stage, room: str, direction: Any, wrong: str) -> None:
    connector = await stage.connector(**{wrong: "not-the-one-of-the-server-" + "x" * 20})
    error, took = await refusal(stage, connector, room, direction)
    assert (error.status, error.code) == (500, "internal")
    assert "check LIVEKIT_API_KEY and LIVEKIT_API_SECRET" in error.message
    assert "x" * 20 not in error.message
    assert room not in await stage.rooms()
    assert took < PATIENCE


@pytest.mark.parametrize("manner", ["hang", "close", "not found"])
async def test_a_join_that_fails_takes_its_new_room_back(gate: Gate, stage: Stage, room: str, manner: Manner) -> None:
    gate.signalling = manner
    connector = await stage.connector(livekit_url=gate.url)
    error, took = await refusal(stage, connector, room, OUTBOUND, agents=[api.RoomAgentDispatch(agent_name="a")])
    assert gate.signalling_attempts
    assert (error.status, error.code) == (503, "unavailable")
    assert f"livekit-server at {gate.url}" in error.message
    assert room not in await stage.rooms()
    assert took < PATIENCE


async def test_slowness_at_every_step_adds_up_to_no_more_than_a_client_waits(
    gate: Gate, stage: Stage, room: str
) -> None:
    """Each step within its own limit, all of them together past five seconds."""
    gate.api_delay = 2.0
    gate.signalling = "hang"
    connector = await stage.connector(livekit_url=gate.url)
    error, took = await refusal(stage, connector, room, OUTBOUND)
    assert gate.signalling_attempts
    assert (error.status, error.code) == (503, "unavailable")
    assert "took longer than" in error.message
    assert took < PATIENCE
    assert (await ended(connector)).end_reason is EndReason.LIVEKIT_UNAVAILABLE
    await until(lambda: not connector.calls.live())
    assert room not in await stage.rooms()


async def test_a_join_that_fails_as_another_begins_leaves_nobody_deaf(gate: Gate, stage: Stage, room: str) -> None:
    """The SDK's media engine goes down and up with a process's rooms; see `connector.room.engine`."""
    whole, cut = await stage.connector(), await stage.connector(livekit_url=gate.url)
    twilio, client = await stage.twilio(), stage.client(whole)
    first = place(twilio, await connect_call(client, room))
    await first.stream_started.wait()
    await first.hangup()
    await ended(whole)

    gate.api_delay, gate.signalling = 2.8, "hang"
    await refusal(stage, cut, f"{room}-cut", OUTBOUND)
    await gate.stop()
    guest = await stage.guest(f"{room}-whole")
    call = place(twilio, await connect_call(client, f"{room}-whole"))
    call.say(tone(600, PATIENCE))
    await guest.until(lambda: strength(guest.sound_of("caller")[-4000:], 600) > 3000)


async def test_the_clock_of_this_sdk_is_known(stage: Stage, room: str) -> None:
    """An SDK that calls its thread something else would switch the guard off unseen."""
    connector = await stage.connector()
    await connect_call(stage.client(connector), room)
    assert engine._has_clock()


async def test_a_caller_who_would_hear_nothing_is_not_left_in_the_room(
    stage: Stage, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guest = await stage.guest(room)
    connector = await stage.connector()
    monkeypatch.setattr(engine, "_has_clock", lambda: False)
    monkeypatch.setattr(engine.engine, "_seen", True)
    error, _ = await refusal(stage, connector, room, OUTBOUND)
    assert (error.status, error.code) == (503, "unavailable")
    assert "lost its audio clock" in error.message
    assert (await stage.participants(room)).keys() == {"guest"}
    assert not guest.saw("participant_connected")


async def test_a_join_that_fails_takes_its_dispatches_back_and_leaves_the_room(
    gate: Gate, stage: Stage, room: str
) -> None:
    guest = await stage.guest(room)
    await stage.admin.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(room=room, agent_name="theirs"))
    before = {dispatch.id for dispatch in await stage.admin.agent_dispatch.list_dispatch(room)}
    gate.signalling = "close"
    connector = await stage.connector(livekit_url=gate.url)
    await refusal(stage, connector, room, OUTBOUND, agents=[api.RoomAgentDispatch(agent_name="ours")])
    assert (await stage.participants(room)).keys() == {"guest"}
    assert {dispatch.id for dispatch in await stage.admin.agent_dispatch.list_dispatch(room)} == before
    assert not guest.saw("disconnected")


async def test_a_join_that_succeeds_too_late_is_left_again(
    gate: Gate, stage: Stage, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "JOIN_TIMEOUT", 1.0)
    guest = await stage.guest(room)
    gate.signalling = "hang"
    connector = await stage.connector(livekit_url=gate.url)
    await refusal(stage, connector, room, OUTBOUND)
    gate.signalling = "pass"
    gate.opened.set()
    await joining.drain_abandoned()
    await until(lambda: not joining._abandoned)
    assert (await stage.participants(room)).keys() == {"guest"}
    assert not guest.saw("participant_connected")


async def test_a_connector_works_again_when_livekit_does(gate: Gate, stage: Stage, room: str) -> None:
    gate.api = "close"
    connector = await stage.connector(livekit_url=gate.url)
    await refusal(stage, connector, room, OUTBOUND)
    gate.api = "pass"
    await connect_call(stage.client(connector), room, OUTBOUND)
    assert (await stage.participants(room)).keys() == {"caller"}
