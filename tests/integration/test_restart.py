"""A LiveKit that stops, or puts its connections out, and is back: callers join again; and ends that come meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import Any, cast
from unittest.mock import AsyncMock

import pytest
from livekit import api, rtc

from connector.app import Connector
from connector.call.session.room_events import RoomEvents
from connector.errors import Unavailable
from connector.livekit_api import opened_livekit
from connector.model.call import AgentDispatch
from connector.model.end_reason import EndReason
from connector.room import joining
from connector.room.admin import RoomAdmin
from demo.livekit_server import LiveKitServer
from tests.integration.gate import gate_to
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    PATIENCE,
    Guest,
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
from tests.integration.scene import Scene, delete_room, set_scene

pytestmark = pytest.mark.timeout(120)
REGAINED = "LiveKit connection regained"
LOST = "LiveKit connection lost, reconnecting"


@pytest.fixture
async def own_stage(own_livekit: LiveKitServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_on(own_livekit, tmp_path) as stage:
        yield stage


async def force_shutdown(livekit: LiveKitServer) -> None:
    """As a service manager in a hurry does: the second SIGTERM puts everybody out."""
    for _ in range(2):
        os.kill(livekit.pid, signal.SIGTERM)
        await asyncio.sleep(0.1)  # Two signals at once are one.
    await until(lambda: not livekit.is_running)


def count(log: list[Any], event: str) -> int:
    return sum(line["event"] == event for line in log)


async def assert_talks(stage: Stage, room: str, call: Any, frequency: float) -> Guest:
    """With somebody who comes now: what is missing is then the caller's."""
    late = await stage.guest(room, "late")
    await late.publish()
    await late.event("track_subscribed", lambda _, __, who: who.identity == "caller")
    call.say(tone(frequency, 8))
    late.start_saying(tone(frequency + 300, 8))
    await late.until(lambda: strength(late.sound_of("caller")[-4000:], frequency) > 4000)
    await until(lambda: strength(call.heard[-3000:], frequency + 300) > 4000)
    return late


async def test_three_calls_survive_a_forced_shutdown_with_all_that_they_are(
    own_stage: Stage, room: str, log: list[Any]
) -> None:
    connector = await own_stage.connector(reconnect_timeout=60)
    twilio, client = await own_stage.twilio(), own_stage.client(connector)
    calls = {}
    for direction, name in ((OUTBOUND, f"{room}-1"), (INBOUND, f"{room}-2"), (OUTBOUND, f"{room}-3")):
        url = await connect_call(client, name, direction, participant_name="Ada", participant_attributes={"mine": name})
        calls[name] = place(twilio, url)
    await until(lambda: sum(call.state == "active" for call in connector.calls.live()) == 3)
    before = {name: (await own_stage.participants(name))["caller"] for name in calls}

    await force_shutdown(own_stage.livekit)
    await until(lambda: count(log, LOST) == 3)
    await own_stage.livekit.start()
    await until(lambda: count(log, REGAINED) == 3, 60)
    for number, (name, call) in enumerate(calls.items()):
        await assert_talks(own_stage, name, call, 500 + 100 * number)
        caller = (await own_stage.participants(name))["caller"]
        assert not caller.permission.hidden
        assert (caller.name, caller.kind, caller.attributes) == ("Ada", caller.Kind.CONNECTOR, before[name].attributes)
        assert [track.source for track in caller.tracks] == [api.TrackSource.MICROPHONE]
    assert not count(log, "call ended")
    assert all(call.state == "active" for call in connector.calls.live())


async def test_the_call_is_told_of_another_room_and_dtmf_and_clears_work_there(
    own_stage: Stage, room: str, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[bool] = []
    monkeypatch.setattr(RoomEvents, "room_regained", lambda _, same_room, __: told.append(same_room))
    scene = await set_scene(own_stage, room, reconnect_timeout=60)
    await scene.talk()
    await force_shutdown(own_stage.livekit)
    await own_stage.livekit.start()
    await until(lambda: bool(told), 60)
    assert told == [False]
    late = await own_stage.guest(room, "late")
    await late.event("track_subscribed", lambda _, __, who: who.identity == "caller")
    answer = await late.room.local_participant.perform_rpc(
        destination_identity="caller", method="connector.clear", payload=""
    )
    assert answer == "ok"
    await scene.call.press("5")
    (dtmf,) = await late.event("sip_dtmf_received")
    assert dtmf.digit == "5"


async def test_a_caller_who_waits_hidden_is_hidden_again_and_revealed_by_the_answer(
    own_stage: Stage, room: str, log: list[Any]
) -> None:
    scene = await set_scene(own_stage, room, reconnect_timeout=60)
    await force_shutdown(own_stage.livekit)
    await own_stage.livekit.start()
    await until(lambda: count(log, REGAINED) == 1, 60)
    late = await own_stage.guest(room, "late")
    assert (await own_stage.participants(room))["caller"].permission.hidden
    call = scene.answer()
    await late.event("track_subscribed", lambda _, __, who: who.identity == "caller")
    call.say(tone(600, 4))
    await late.until(lambda: strength(late.sound_of("caller")[-4000:], 600) > 4000)


async def test_an_answer_during_the_outage_waits_for_its_end(own_stage: Stage, room: str, log: list[Any]) -> None:
    scene = await set_scene(own_stage, room, reconnect_timeout=60)
    await force_shutdown(own_stage.livekit)
    await until(lambda: count(log, LOST) == 1)
    call = scene.answer()
    await call.stream_started.wait()
    await own_stage.livekit.start()
    await until(lambda: only_session(scene.connector).state == "active", 60)
    await assert_talks(own_stage, room, call, 600)


async def test_a_call_that_ends_during_the_outage_leaves_nothing(own_stage: Stage, room: str, log: list[Any]) -> None:
    scene = await set_scene(own_stage, room, reconnect_timeout=60)
    scene.log = log
    call = await scene.talk()
    await force_shutdown(own_stage.livekit)
    await until(lambda: count(log, LOST) == 1)
    await call.hangup()
    await scene.assert_all_free(EndReason.CARRIER_HANGUP)


async def test_a_livekit_that_does_not_come_back_ends_the_call_in_time(
    own_stage: Stage, room: str, log: list[Any]
) -> None:
    scene = await set_scene(own_stage, room, reconnect_timeout=2)
    scene.log = log
    await scene.talk()
    await force_shutdown(own_stage.livekit)
    await scene.assert_all_free(EndReason.LIVEKIT_LOST)


async def test_a_join_under_way_at_the_end_of_the_call_is_taken_back(
    own_stage: Stage, room: str, log: list[Any]
) -> None:
    async with gate_to(own_stage.livekit.port) as gate:
        scene = await set_scene(own_stage, room, livekit_url=gate.url, reconnect_timeout=60)
        scene.log = log
        call = await scene.talk()
        gate.signalling = "hang"
        attempts = gate.signalling_attempts
        await force_shutdown(own_stage.livekit)
        await own_stage.livekit.start()
        await until(lambda: gate.signalling_attempts > attempts)
        await call.hangup()
        await ended(scene.connector)
        gate.opened.set()
        await joining.drain_abandoned()
        await scene.assert_all_free(EndReason.CARRIER_HANGUP)
        await own_stage.gone(room, "caller")


async def test_a_call_that_ends_while_its_connection_is_cut_leaves_no_ghost(
    stage: Stage, livekit: LiveKitServer, room: str, log: list[Any]
) -> None:
    async with gate_to(livekit.port) as gate:
        scene = await set_scene(stage, room, livekit_url=gate.url, reconnect_timeout=60)
        scene.log = log
        call = await scene.talk()
        gate.signalling = "close"
        gate.cut()
        await until(lambda: count(log, LOST) == 1)
        await call.hangup()
        await scene.assert_all_free(EndReason.CARRIER_HANGUP)


async def test_somebody_else_of_the_same_name_is_not_taken_for_the_ghost(stage: Stage, room: str) -> None:
    connector: Connector = await stage.connector()
    guest = await stage.guest(room, "caller")
    await connector.admin.remove(room, "caller", "PA_another")
    assert (await stage.participants(room)).keys() == {"caller"}
    await connector.admin.remove(room, "caller", guest.room.local_participant.sid)
    (reason,) = await guest.event("disconnected")
    assert reason == rtc.DisconnectReason.PARTICIPANT_REMOVED


async def test_a_scene_without_an_outage_asks_for_no_removal(stage: Stage, room: str, log: list[Any]) -> None:
    scene: Scene = await set_scene(stage, room)
    scene.log = log
    call = await scene.talk()
    session = only_session(scene.connector)
    await call.hangup()
    await scene.assert_all_free(EndReason.CARRIER_HANGUP)
    assert session.presence.room.lingering == ""


async def test_a_phone_that_hangs_up_as_its_room_is_deleted_is_free_at_once(
    stage: Stage, room: str, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(joining, "REQUEST_TIMEOUT", 10 * PATIENCE)
    scene = await set_scene(stage, room)
    scene.log = log
    await scene.talk()
    session = only_session(scene.connector)
    gateway = session.presence.room
    # The connection ends while the caller's last attribute is on its way.
    waiting = asyncio.create_task(gateway.set_attributes({"connector.callStatus": "hangup"}))
    await asyncio.sleep(0)
    connection = gateway._connection
    await delete_room(scene)
    await connection.lost
    with suppress(Unavailable):
        async with asyncio.timeout(PATIENCE):
            await waiting
    await scene.assert_all_free(EndReason.ROOM_DELETED)
    assert not [line for line in log if line["event"] == "teardown step failed"]


async def test_what_is_asked_of_a_connection_ends_with_it() -> None:
    for end in (joining.Connection.lose, joining.Connection.shake):
        connection = joining.Connection(cast(rtc.Room, object()))
        asking = asyncio.create_task(connection.ask(asyncio.sleep(60), "nothing was done", connection.shaken))
        await asyncio.sleep(0)
        end(connection)
        with pytest.raises(Unavailable, match="nothing was done: the connection to LiveKit is lost"):
            await asking


@pytest.mark.parametrize("metadata", ["of each its own", "the same"])
async def test_agents_of_two_processes_that_create_one_room_are_dispatched_once_each(
    stage: Stage, room: str, metadata: str
) -> None:
    texts = ["0", "1"] if metadata == "of each its own" else ["m", "m"]
    async with opened_livekit(stage.settings()) as livekit:
        processes = [RoomAdmin(livekit) for _ in range(2)]
        for process in processes:
            # Each has looked and found no room.
            process._sid = AsyncMock(return_value="")  # type: ignore[method-assign]
        for number in range(5):
            name = f"{room}-{number}"
            setups = await asyncio.gather(
                *(
                    process.ensure_room(name, [AgentDispatch("nobody", metadata=text)])
                    for text, process in zip(texts, processes, strict=True)
                )
            )
            assert sorted(setup.created for setup in setups) == [False, True]
            listed = await stage.admin.agent_dispatch.list_dispatch(name)
            assert sorted(dispatch.metadata for dispatch in listed) == texts
        for process in processes:
            await process.close()
