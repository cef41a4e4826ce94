"""A room is left when its track is negotiated, or after a bounded time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest
from livekit import rtc
from livekit.rtc._proto.stats_pb2 import RtcStats

from connector.errors import Unavailable
from connector.room import microphone
from connector.room.joining import Connection
from connector.room.microphone import Microphone
from tests.unit.call.virtual_time import virtual_time

NEGOTIATED = [RtcStats(outbound_rtp=RtcStats.OutboundRtp())]


class Track:
    """The SDK's, which has the answer to its offer at the look of this number; 0: never."""

    def __init__(self, negotiated_at: int, *, is_silent: bool = False) -> None:
        self.looks = 0
        self._negotiated_at = negotiated_at
        self._is_silent = is_silent

    async def get_stats(self) -> list[RtcStats]:
        self.looks += 1
        if self._is_silent:
            await asyncio.get_running_loop().create_future()
        return NEGOTIATED if 0 < self._negotiated_at <= self.looks else []


class Source:
    rate = 8000
    on_fault = None


class Room:
    """One in which the SDK publishes at once, or never."""

    def __init__(self, *, publishes: bool = True) -> None:
        self.local_participant = self
        self._publishes = publishes

    def isconnected(self) -> bool:
        return True

    async def publish_track(self, *_: object) -> object:
        if not self._publishes:
            await asyncio.get_running_loop().create_future()
        return object()


async def published(
    monkeypatch: pytest.MonkeyPatch, track: Track, *, publishes: bool = True
) -> tuple[Microphone, Connection]:
    voice: Any = (Source(), track)
    monkeypatch.setattr(microphone, "_voice", lambda _: voice)
    mine, connection = Microphone(8000, lambda _: None), Connection(cast(rtc.Room, Room(publishes=publishes)))
    if publishes:
        await mine.publish(connection)
    else:
        with pytest.raises(Unavailable):
            await mine.publish(connection)
    return mine, connection


async def seconds_to_settle(mine: Microphone) -> float:
    now = asyncio.get_running_loop().time
    began = now()
    await mine.settle()
    return now() - began


@virtual_time
async def test_a_room_is_left_a_moment_after_its_track_is_negotiated(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, _ = await published(monkeypatch, Track(4))
    seconds = await seconds_to_settle(mine)
    assert seconds == pytest.approx(3 * microphone._LOOK_EVERY + microphone._SECOND_ROUND)


@pytest.mark.parametrize("track", [Track(0), Track(0, is_silent=True)], ids=["never", "no answer"])
@virtual_time
async def test_a_track_that_is_never_negotiated_delays_the_leave_by_two_seconds(
    monkeypatch: pytest.MonkeyPatch, track: Track
) -> None:
    mine, _ = await published(monkeypatch, track)
    assert await seconds_to_settle(mine) == pytest.approx(microphone._MOST_SETTLING)


@virtual_time
async def test_the_end_of_the_room_ends_the_wait_for_the_negotiation(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, connection = await published(monkeypatch, Track(0, is_silent=True))
    asyncio.get_running_loop().call_later(0.3, connection.lose)
    assert await seconds_to_settle(mine) == pytest.approx(0.3)


@virtual_time
async def test_a_publication_that_was_given_up_is_waited_for_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, _ = await published(monkeypatch, Track(2), publishes=False)
    seconds = await seconds_to_settle(mine)
    assert seconds == pytest.approx(microphone._LOOK_EVERY + microphone._SECOND_ROUND)


@virtual_time
async def test_a_track_of_long_ago_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    track = Track(0)
    mine, _ = await published(monkeypatch, track)
    mine._published_at -= microphone._GIVEN_UP
    assert await seconds_to_settle(mine) == 0
    assert track.looks == 0


@virtual_time
async def test_a_track_negotiated_a_second_ago_delays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    mine, _ = await published(monkeypatch, Track(1))
    mine._published_at -= 1.0
    assert await seconds_to_settle(mine) == 0
