"""Every way a live call can end: docs/endings.md has the same table for people."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from livekit import rtc

from connector.api.carrier.media_socket import MAX_MESSAGE
from connector.model.end_reason import EndReason
from tests.integration.harness import INBOUND, OUTBOUND, Stage, only_session, until
from tests.integration.scene import (
    AFTER,
    Scene,
    delete_room,
    remove_caller,
    set_scene,
    take_identity,
)


def sends(message: str | bytes) -> Callable[[Scene], Awaitable[None]]:
    async def act(scene: Scene) -> None:
        await scene.stream.send_raw(message)

    return act


async def second_start(scene: Scene) -> None:
    sid = scene.stream.sid
    start = {"streamSid": sid, "accountSid": "AC1", "callSid": scene.call.sid}
    await scene.stream.send_raw(json.dumps({"event": "start", "streamSid": sid, "start": start}))


async def closes(scene: Scene) -> None:
    await scene.stream.close(1000)


async def breaks_off(scene: Scene) -> None:
    scene.stream.abort()


async def falls_silent(scene: Scene) -> None:
    scene.stream.answers_pings = False
    scene.stream.stall(60)


async def asks_the_api(scene: Scene) -> None:
    only_session(scene.connector).end(EndReason.ENDED_BY_API)


async def stops_the_service(scene: Scene) -> None:
    await scene.connector.calls.drain(0)


async def nothing(_: Scene) -> None:
    """It ends by itself."""


@dataclass(frozen=True)
class Ending:
    name: str
    act: Callable[[Scene], Awaitable[None]]
    reason: EndReason
    code: int = 1000
    """The close code that the carrier gets."""
    room_stands: bool = True
    """The others in the room are still there, and are told of the hang-up by the attribute."""
    taken: bool = False
    """Somebody else has the caller's identity."""
    settings: dict[str, Any] = field(default_factory=dict)


ENDINGS = [
    Ending("garbage", sends("this is not JSON"), EndReason.PROTOCOL_ERROR, 1007),
    Ending("deep nesting", sends('{"event":' + "[" * 20_000), EndReason.PROTOCOL_ERROR, 1007),
    Ending("no object", sends("[]"), EndReason.PROTOCOL_ERROR, 1002),
    Ending("binary", sends(b"\x00\x01"), EndReason.PROTOCOL_ERROR, 1003),
    Ending("oversized", sends('{"event":"' + "x" * MAX_MESSAGE + '"}'), EndReason.PROTOCOL_ERROR, 1009),
    Ending("second start", second_start, EndReason.PROTOCOL_ERROR, 1002),
    Ending("another stream", sends('{"event":"mark","streamSid":"MZ0","mark":{}}'), EndReason.PROTOCOL_ERROR, 1008),
    Ending("media without a payload", sends('{"event":"media","media":{}}'), EndReason.PROTOCOL_ERROR, 1002),
    Ending("room deleted", delete_room, EndReason.ROOM_DELETED, room_stands=False),
    Ending("participant removed", remove_caller, EndReason.PARTICIPANT_REMOVED, room_stands=False),
    Ending("identity taken", take_identity, EndReason.DUPLICATE_IDENTITY, room_stands=False, taken=True),
    Ending("ended by the API", asks_the_api, EndReason.ENDED_BY_API),
    Ending("service stopped", stops_the_service, EndReason.SHUTDOWN),
    Ending("media timeout", falls_silent, EndReason.MEDIA_TIMEOUT, settings={"media_timeout": 0.6}),
    Ending("maximum duration", nothing, EndReason.MAX_DURATION, settings={"max_duration": 0.6}),
]


@pytest.mark.parametrize("ending", ENDINGS, ids=lambda ending: ending.name)
async def test_an_active_call_that_we_end(stage: Stage, room: str, log: list[Any], ending: Ending) -> None:
    scene = await set_scene(stage, room, **ending.settings)
    scene.log = log
    call = await scene.talk()
    await ending.act(scene)
    await scene.assert_all_free(ending.reason, in_room=ending.taken)
    assert scene.stream.close_code == ending.code
    assert call.spoken == [AFTER], "the carrier did not go on with its document"
    if ending.room_stands:
        await scene.guest.event("participant_disconnected")
        assert_told_of_the_hangup(scene)


def assert_told_of_the_hangup(scene: Scene) -> None:
    changes = [changed for changed, _ in scene.guest.saw("participant_attributes_changed")]
    assert changes[-1].get("connector.callStatus") == "hangup", changes


async def hangs_up(scene: Scene) -> None:
    await scene.call.hangup()


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (hangs_up, EndReason.CARRIER_HANGUP),
        (closes, EndReason.CARRIER_CLOSED),
        (breaks_off, EndReason.CARRIER_LOST),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)
@pytest.mark.parametrize("direction", [OUTBOUND, INBOUND], ids=["outbound", "inbound"])
async def test_an_active_call_that_the_carrier_ends(
    stage: Stage, room: str, log: list[Any], act: Callable[[Scene], Awaitable[None]], reason: EndReason, direction: Any
) -> None:
    scene = await set_scene(stage, room, direction)
    scene.log = log
    await scene.talk()
    await act(scene)
    await scene.guest.event("participant_disconnected")
    record = await scene.assert_all_free(reason)
    assert_told_of_the_hangup(scene)
    assert record.started_at
    assert record.ended_at >= record.started_at >= record.created_at


async def test_an_answer_to_the_goodbye_that_is_lost_holds_nothing_up(
    stage: Stage, room: str, log: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the SDK loses it when a call ends in its first moments."""
    ask = rtc.LocalParticipant.set_attributes
    answers = asyncio.Event()

    async def ask_and_lose_the_answer(me: rtc.LocalParticipant, attributes: dict[str, str]) -> None:
        await ask(me, attributes)
        await answers.wait()

    monkeypatch.setattr(rtc.LocalParticipant, "set_attributes", ask_and_lose_the_answer)
    scene = await set_scene(stage, room)
    scene.log = log
    await scene.talk()
    await asks_the_api(scene)
    await scene.assert_all_free(EndReason.ENDED_BY_API)
    assert_told_of_the_hangup(scene)
    assert not [line for line in log if line.get("step") == "attributes"], "the end of the call waited for the answer"


async def test_a_held_phone_that_sends_no_media_but_answers_pings_goes_on(
    stage: Stage, room: str, log: list[Any]
) -> None:
    scene = await set_scene(stage, room, media_timeout=0.6)
    scene.log = log
    await scene.talk()
    scene.stream.stall(60)
    # Pings are 0.2 s apart here.
    await until(lambda: scene.stream.received_pings > 8)
    assert only_session(scene.connector).state == "active"
    scene.stream.answers_pings = False
    await scene.assert_all_free(EndReason.MEDIA_TIMEOUT)
