"""A connection to LiveKit that breaks: when the call ends of it, and when it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connector.errors import Unavailable
from connector.model import EndReason
from connector.room.outage import Outage


class LiveKit:
    """Its API, as far as one room goes."""

    def __init__(self) -> None:
        self.sid = "RM_1"
        self.is_gone = False
        self.asked = asyncio.Event()

    async def find_room(self) -> str:
        self.asked.set()
        if self.is_gone:
            raise Unavailable("nobody there")
        return self.sid


class Call:
    def __init__(self, livekit: LiveKit, limit: float = 60.0) -> None:
        self.ends: asyncio.Queue[EndReason] = asyncio.Queue()
        self.outage = Outage(limit, livekit.find_room, lambda reason, _: self.ends.put_nowait(reason))


@pytest.fixture
def livekit() -> LiveKit:
    return LiveKit()


async def settled(livekit: LiveKit) -> None:
    """LiveKit has been asked, and the answer heard."""
    await livekit.asked.wait()
    livekit.asked.clear()
    for _ in range(5):
        await asyncio.sleep(0)


async def joined(livekit: LiveKit, **options: Any) -> Call:
    call = Call(livekit, **options)
    call.outage.joined(livekit.find_room)
    await settled(livekit)
    return call


@pytest.mark.parametrize("now", ["", "RM_2"], ids=["no room", "another room of the name"])
async def test_a_room_that_is_gone_when_the_connection_breaks_ends_the_call(livekit: LiveKit, now: str) -> None:
    call = await joined(livekit)
    livekit.sid = now
    call.outage.begins()
    assert await call.ends.get() is EndReason.ROOM_DELETED
    call.outage.close()


async def test_a_room_that_is_there_is_waited_for(livekit: LiveKit) -> None:
    call = await joined(livekit)
    call.outage.begins()
    await settled(livekit)
    assert call.ends.empty()
    was_on = call.outage.is_on
    call.outage.ends()
    assert (was_on, call.outage.is_on) == (True, False)
    call.outage.close()


async def test_a_livekit_that_is_down_may_come_back_with_another_room_and_lose_that_one_too(livekit: LiveKit) -> None:
    call = await joined(livekit)
    livekit.is_gone = True
    call.outage.begins()
    await settled(livekit)
    assert call.ends.empty()

    livekit.is_gone, livekit.sid = False, "RM_2"
    call.outage.ends()
    await settled(livekit)
    call.outage.begins()
    await settled(livekit)
    assert call.ends.empty()

    call.outage.ends()
    await settled(livekit)
    livekit.sid = ""
    call.outage.begins()
    assert await call.ends.get() is EndReason.ROOM_DELETED
    call.outage.close()


async def test_a_connection_that_does_not_come_back_ends_the_call(livekit: LiveKit) -> None:
    call = await joined(livekit, limit=0.01)
    call.outage.begins()
    assert await call.ends.get() is EndReason.LIVEKIT_LOST
    call.outage.close()


async def test_nothing_is_said_after_the_call_has_left(livekit: LiveKit) -> None:
    call = await joined(livekit)
    livekit.sid = ""
    call.outage.begins()
    call.outage.close()
    assert not call.outage.is_on
    for _ in range(5):
        await asyncio.sleep(0)
    assert call.ends.empty()
