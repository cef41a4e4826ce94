"""A connection to LiveKit that breaks: when the call ends of it, and when it does not."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connector.errors import Unavailable
from connector.model.end_reason import EndReason
from connector.room import outage
from connector.room.outage import Outage


class LiveKit:
    """Its API, as far as one room goes."""

    def __init__(self) -> None:
        self.sid = "RM_1"
        self.is_gone = False
        self.asked = asyncio.Event()
        self.answers = asyncio.Event()
        self.answers.set()

    async def find_room(self) -> str:
        self.asked.set()
        await self.answers.wait()
        if self.is_gone:
            raise Unavailable("nobody there")
        return self.sid


class Call:
    """As its own room sees it."""

    def __init__(self, livekit: LiveKit, limit: float = 60.0) -> None:
        self.is_there = True
        self.ends: asyncio.Queue[EndReason] = asyncio.Queue()
        self.regained: list[bool] = []
        self.outage = Outage(
            limit,
            livekit.find_room,
            lambda: not self.is_there,
            lambda reason, _: self.ends.put_nowait(reason),
            self.regained.append,
        )


@pytest.fixture
def livekit() -> LiveKit:
    return LiveKit()


async def settled(livekit: LiveKit) -> None:
    """LiveKit has been asked, and the answer heard."""
    await livekit.asked.wait()
    livekit.asked.clear()
    for _ in range(5):
        await asyncio.sleep(0)


async def joined(livekit: LiveKit, company: bool = True, **options: Any) -> Call:
    call = Call(livekit, **options)
    if company:
        call.outage.company_came()
    call.outage.joined(livekit.find_room)
    await settled(livekit)
    return call


async def lost_and_regained(livekit: LiveKit, call: Call, answers_late: bool = False) -> None:
    if answers_late:
        livekit.answers.clear()
    call.outage.begins()
    await settled(livekit)
    call.outage.ends()
    livekit.answers.set()
    await settled(livekit)


async def test_the_rooms_of_a_livekit_that_stops_are_not_deleted(livekit: LiveKit) -> None:
    call = await joined(livekit, limit=60)
    livekit.sid, call.is_there = "RM_2", False
    call.outage.begins("SERVER_SHUTDOWN")
    call.outage.ends()
    await settled(livekit)
    assert call.regained == [False]
    assert not call.outage.may_be_deleted
    call.outage.close()


@pytest.mark.parametrize("now", ["", "RM_2"], ids=["no room", "another room of the name"])
async def test_a_room_that_was_gone_and_stays_empty_ends_the_call(livekit: LiveKit, now: str) -> None:
    call = await joined(livekit, limit=0.05)
    livekit.sid, call.is_there = now, False
    await lost_and_regained(livekit, call)
    assert await call.ends.get() is EndReason.ROOM_DELETED
    call.outage.close()


@pytest.mark.parametrize("why", ["the room was there", "the others are back", "there were none", "LiveKit was down"])
async def test_otherwise_the_call_goes_on(livekit: LiveKit, why: str) -> None:
    call = await joined(livekit, company=why != "there were none", limit=0.05)
    livekit.sid = "RM_1" if why == "the room was there" else "RM_2"
    livekit.is_gone = why == "LiveKit was down"
    call.is_there = why == "the others are back"
    await lost_and_regained(livekit, call)
    assert not call.outage.is_on
    await asyncio.sleep(0.1)
    assert call.ends.empty()
    call.outage.close()


async def test_an_answer_that_comes_after_the_sdk_is_back_counts(livekit: LiveKit) -> None:
    call = await joined(livekit, limit=0.05)
    livekit.sid, call.is_there = "", False
    await lost_and_regained(livekit, call, answers_late=True)
    assert await call.ends.get() is EndReason.ROOM_DELETED
    call.outage.close()


async def test_the_room_after_a_restart_is_the_one_that_counts(
    livekit: LiveKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outage, "_STABLE", 0.0)
    call = await joined(livekit, limit=0.05)
    livekit.sid = "RM_2"
    await lost_and_regained(livekit, call)
    call.is_there = False
    await lost_and_regained(livekit, call)
    await asyncio.sleep(0.1)
    assert call.ends.empty()
    livekit.sid = ""
    await lost_and_regained(livekit, call)
    assert await call.ends.get() is EndReason.ROOM_DELETED
    call.outage.close()


@pytest.mark.parametrize(
    ("now", "is_same"), [("RM_1", True), ("RM_2", False)], ids=["the same room", "another of its name"]
)
async def test_the_call_is_told_whether_it_is_in_the_same_room(livekit: LiveKit, now: str, is_same: bool) -> None:
    call = await joined(livekit)
    livekit.sid = now
    await lost_and_regained(livekit, call)
    assert call.regained == [is_same]
    call.outage.close()


async def test_the_api_may_come_back_later_than_the_room(livekit: LiveKit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outage, "_LEARN_AGAIN", (0.01, 0.01, 0.0))
    call = await joined(livekit)
    livekit.is_gone = True
    await lost_and_regained(livekit, call)
    assert call.regained == []
    livekit.is_gone, livekit.sid = False, "RM_2"
    async with asyncio.timeout(5):
        while not call.regained:  # noqa: ASYNC110 - virtual events only
            await asyncio.sleep(0.005)
    assert call.regained == [False]
    call.outage.close()


async def test_a_connection_that_does_not_come_back_ends_the_call(livekit: LiveKit) -> None:
    call = await joined(livekit, limit=0.01)
    call.outage.begins()
    assert await call.ends.get() is EndReason.LIVEKIT_LOST
    call.outage.close()


async def test_a_connection_that_comes_and_goes_is_one_outage_with_one_limit(livekit: LiveKit) -> None:
    call = await joined(livekit, limit=0.2)
    loop = asyncio.get_running_loop()
    began = loop.time()
    while call.ends.empty():
        call.outage.begins()
        await asyncio.sleep(0.01)
        if call.ends.empty():
            call.outage.ends()
    assert call.ends.get_nowait() is EndReason.LIVEKIT_LOST
    assert loop.time() - began >= 0.2
    call.outage.close()


async def test_who_waits_for_the_end_of_an_outage_goes_on_at_either_end(livekit: LiveKit) -> None:
    call = await joined(livekit)
    await call.outage.over()
    for end in (call.outage.ends, call.outage.close):
        call.outage.begins()
        waiting = asyncio.create_task(call.outage.over())
        await asyncio.sleep(0)
        assert not waiting.done()
        end()
        await waiting


async def test_nothing_is_said_after_the_call_has_left(livekit: LiveKit) -> None:
    call = await joined(livekit, limit=0.05)
    livekit.sid, call.is_there = "", False
    await lost_and_regained(livekit, call)
    call.outage.begins()
    call.outage.close()
    assert not call.outage.is_on
    await asyncio.sleep(0.1)
    assert call.ends.empty()
