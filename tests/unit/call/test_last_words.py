"""What the room has said before a call ends is played to the phone, in bounded time."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import numpy as np
import pytest

from connector.call.session.call_session import CallSession
from connector.call.session.teardown import MOST_LAST_WORDS
from connector.model.call import Direction
from connector.model.end_reason import EndReason
from tests.unit.call.fakes import FakeControl, Faults, World
from tests.unit.call.virtual_time import virtual_time

LOUD = np.full(160, 4000, np.int16)
FROM_OUTSIDE = (
    EndReason.ROOM_DELETED,
    EndReason.PARTICIPANT_REMOVED,
    EndReason.DUPLICATE_IDENTITY,
    EndReason.LIVEKIT_LOST,
    EndReason.MAX_DURATION,
    EndReason.ENDED_BY_API,
    EndReason.SHUTDOWN,
)


@dataclass
class Talk:
    world: World
    call: CallSession
    carrying: asyncio.Task[None]

    async def room_says(self, frames: int = 3) -> None:
        for _ in range(frames):
            self.world.room.listener.room_audio("agent", LOUD, time.monotonic())
        await settle()

    @property
    def last_mark(self) -> str:
        marks = [text for text in self.world.socket.sent if text.startswith("mark")]
        return marks[-1] if marks else ""

    async def ends(self, reason: EndReason = EndReason.ROOM_DELETED) -> None:
        if reason in (EndReason.ROOM_DELETED, EndReason.PARTICIPANT_REMOVED):
            self.world.room.listener.room_ended(reason, "")
        else:
            self.call.end(reason)
        await settle()

    async def is_over(self) -> float:
        """Seconds until it is."""
        began = asyncio.get_running_loop().time()
        await self.carrying
        return asyncio.get_running_loop().time() - began


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def talking(control: bool = False) -> Talk:
    faults = Faults()
    world = World(Direction.INBOUND, faults=faults, control=FakeControl(faults) if control else None)
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await asyncio.wait_for(call.settled.wait(), 5)
    await settle()
    world.room.listener.room_source_added("agent")
    return Talk(world, call, carrying)


@pytest.mark.parametrize("reason", FROM_OUTSIDE)
@virtual_time
async def test_whoever_ends_the_call_the_socket_stays_open_until_the_last_word_is_played(reason: EndReason) -> None:
    talk = await talking()
    await talk.room_says()
    await talk.ends(reason)
    assert talk.world.socket.sent[-4:] == ["audio 160"] * 3 + [talk.last_mark]
    assert not talk.world.socket.closed_with
    talk.world.socket.feed(talk.last_mark)
    await settle()
    assert talk.world.socket.closed_with
    assert await talk.is_over() == 0.0
    talk.world.assert_ended_once(talk.call, reason)


@virtual_time
async def test_the_phone_is_hung_up_over_the_rest_api_only_then() -> None:
    talk = await talking(control=True)
    await talk.room_says()
    await talk.ends(EndReason.ENDED_BY_API)
    assert "control.hang_up" not in talk.world.faults.steps
    talk.world.socket.feed(talk.last_mark)
    await talk.is_over()
    steps = talk.world.faults.steps
    assert steps.index("control.hang_up") < steps.index("socket.close")


@virtual_time
async def test_a_carrier_that_returns_no_mark_costs_no_more_than_what_it_has_to_play() -> None:
    talk = await talking()
    await talk.room_says()
    await talk.ends()
    assert 0.1 < await talk.is_over() <= MOST_LAST_WORDS


@virtual_time
async def test_many_tones_cost_no_more_than_the_limit() -> None:
    talk = await talking()
    assert talk.call.bridge.play_tones("1234567890")
    await talk.ends()
    assert await talk.is_over() == pytest.approx(MOST_LAST_WORDS)


@virtual_time
async def test_a_socket_that_takes_nothing_costs_no_more_than_the_limit() -> None:
    talk = await talking()
    talk.world.faults.planned["socket.send"] = None
    await talk.room_says()
    await talk.ends()
    assert await talk.is_over() <= MOST_LAST_WORDS
    talk.world.assert_ended_once(talk.call, EndReason.ROOM_DELETED)


@pytest.mark.parametrize("cleanly", [True, False])
@virtual_time
async def test_a_socket_that_ends_meanwhile_ends_the_wait(cleanly: bool) -> None:
    talk = await talking()
    await talk.room_says()
    await talk.ends()
    talk.world.socket.hang_up(cleanly)
    assert await talk.is_over() == 0.0
    talk.world.assert_ended_once(talk.call, EndReason.ROOM_DELETED)


@pytest.mark.parametrize("message", ["stop", "garbage", "bug"])
@virtual_time
async def test_a_phone_that_hangs_up_meanwhile_ends_the_wait(message: str) -> None:
    talk = await talking()
    await talk.room_says()
    await talk.ends()
    talk.world.socket.feed(message)
    assert await talk.is_over() == 0.0
    talk.world.assert_ended_once(talk.call, EndReason.ROOM_DELETED)


@pytest.mark.parametrize("reason", FROM_OUTSIDE)
@virtual_time
async def test_a_room_that_has_said_nothing_is_not_waited_for(reason: EndReason) -> None:
    talk = await talking()
    await talk.ends(reason)
    assert not talk.last_mark
    assert await talk.is_over() == 0.0


@pytest.mark.parametrize("message", ["stop", "garbage"])
@virtual_time
async def test_a_phone_that_is_gone_is_played_nothing(message: str) -> None:
    talk = await talking()
    await talk.room_says()
    talk.world.socket.feed(message)
    await settle()
    assert not talk.last_mark
    assert await talk.is_over() == 0.0


@virtual_time
async def test_nothing_that_comes_after_the_end_is_played() -> None:
    talk = await talking()
    await talk.room_says()
    await talk.ends(EndReason.ENDED_BY_API)
    sent = len(talk.world.socket.sent)
    await talk.room_says()
    assert len(talk.world.socket.sent) == sent
    talk.world.socket.feed("audio", "digit 5", talk.last_mark)
    await talk.is_over()
    assert talk.world.room.digits == []


@virtual_time
async def test_the_rest_of_a_shortened_frame_is_played_too() -> None:
    talk = await talking()
    talk.call.bridge._to_carrier._held = LOUD[:70]
    await talk.ends()
    assert talk.world.socket.sent[-2:] == ["audio 160", talk.last_mark]
    talk.world.socket.feed(talk.last_mark)
    await talk.is_over()
