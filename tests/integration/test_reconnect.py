"""The connection to LiveKit breaks and comes back: the SDK's own reconnects carry a call through it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from livekit import rtc
from livekit.rtc._proto import room_pb2

from connector.model.end_reason import EndReason
from demo.livekit_server import LiveKitServer
from tests.integration.gate import gate_to
from tests.integration.harness import INBOUND, OUTBOUND, Guest, Stage, only_session, stage_on, strength, tone, until
from tests.integration.scene import Scene, delete_room, set_scene

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
async def own_stage(own_livekit: LiveKitServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_on(own_livekit, tmp_path) as stage:
        yield stage


async def assert_talks_both_ways(scene: Scene, guest: Guest, to_room: float, to_phone: float) -> None:
    """With a tone each that was not heard before, said over and over for some 25 s."""
    await assert_heard(
        lambda: strength(guest.sound_of("caller")[-4000:], to_room) > 4000,
        lambda: scene.call.say(tone(to_room, 1.0)),
        "the caller is not heard in the room",
    )
    await assert_heard(
        lambda: strength(scene.call.heard[-3000:], to_phone) > 4000,
        lambda: guest.start_saying(tone(to_phone, 1.0)),
        "the room is not heard by the caller",
    )


async def assert_heard(heard: Callable[[], bool], speak: Callable[[], object], otherwise: str) -> None:
    for _ in range(25):
        speak()
        with suppress(TimeoutError):
            await until(heard, 1.05)
            return
    raise AssertionError(otherwise)


@pytest.mark.parametrize("direction", [OUTBOUND, INBOUND], ids=["outbound", "inbound"])
async def test_a_restart_of_livekit_is_survived(own_stage: Stage, room: str, log: list[Any], direction: Any) -> None:
    scene = await set_scene(own_stage, room, direction, reconnect_timeout=60)
    scene.log = log
    await scene.guest.publish()
    await scene.talk()
    await assert_talks_both_ways(scene, scene.guest, 600, 900)

    await own_stage.livekit.restart()
    await until(lambda: any(line["event"] == "LiveKit connection regained" for line in log), 60)
    # A person who comes afterwards: has nothing to reconnect, so what is missing is the caller's.
    late = await own_stage.guest(room, "late")
    await late.publish()
    await late.event("track_subscribed", lambda _, __, who: who.identity == "caller")
    caller = (await own_stage.participants(room))["caller"]
    assert not caller.permission.hidden
    assert caller.attributes["connector.callStatus"] == "active"
    assert caller.kind == caller.Kind.CONNECTOR
    await assert_talks_both_ways(scene, late, 700, 1100)

    await scene.call.hangup()
    await late.event("participant_disconnected", lambda who: who.identity == "caller")
    scene.tasks_before["Room._listen_task"] += 1  # the late one's
    await scene.assert_all_free(EndReason.CARRIER_HANGUP)


@pytest.mark.parametrize("scenario", ["SIMULATE_SIGNAL_RECONNECT", "SIMULATE_FULL_RECONNECT"])
async def test_a_reconnect_leaves_the_caller_visible_and_talking(
    stage: Stage, room: str, log: list[Any], scenario: str
) -> None:
    scene = await set_scene(stage, room)
    scene.log = log
    await scene.guest.publish()
    await scene.talk()
    # In the midst of a negotiation the SDK loses the resumed connection once more, and restarts it 15 s later.
    await assert_talks_both_ways(scene, scene.guest, 600, 900)
    sdk: rtc.Room = only_session(scene.connector).presence.room._connection.room
    await sdk.simulate_scenario(room_pb2.SimulateScenarioKind.Value(scenario))
    await until(lambda: any(line["event"] == "LiveKit connection regained" for line in log), 20)
    await assert_talks_both_ways(scene, scene.guest, 700, 1100)
    assert not (await stage.participants(room))["caller"].permission.hidden
    await scene.call.hangup()
    await scene.assert_all_free(EndReason.CARRIER_HANGUP)


async def test_a_caller_who_waits_hidden_is_hidden_after_a_restart_and_revealed_by_the_answer(
    own_stage: Stage, room: str, log: list[Any]
) -> None:
    scene = await set_scene(own_stage, room, reconnect_timeout=60)
    scene.log = log
    await own_stage.livekit.restart()
    await until(lambda: any(line["event"] == "LiveKit connection regained" for line in log), 60)
    late = await own_stage.guest(room, "late")
    await late.publish()
    assert (await own_stage.participants(room))["caller"].permission.hidden
    assert not late.saw("participant_connected")

    scene.answer()
    await late.event("track_subscribed", lambda _, __, who: who.identity == "caller")
    await assert_talks_both_ways(scene, late, 700, 1100)
    assert not (await own_stage.participants(room))["caller"].permission.hidden


@pytest.mark.parametrize("direction", [OUTBOUND, INBOUND], ids=["outbound", "inbound"])
async def test_a_room_that_is_deleted_ends_the_call_even_when_livekit_fails_to_say_so(
    stage: Stage, livekit: LiveKitServer, room: str, log: list[Any], direction: Any
) -> None:
    async with gate_to(livekit.port) as gate:
        scene = await set_scene(stage, room, direction, livekit_url=gate.url, reconnect_timeout=3)
        scene.log = log
        await scene.guest.publish()
        await scene.talk()
        await assert_talks_both_ways(scene, scene.guest, 600, 900)
        gate.loses_answers = True
        await delete_room(scene)
        await scene.assert_all_free(EndReason.ROOM_DELETED)
