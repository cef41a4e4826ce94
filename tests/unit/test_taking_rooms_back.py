"""A room that was made for nobody is deleted, also by a LiveKit that is slow or away for a while; nobody else's is."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
import structlog
from livekit import api

from connector.errors import Unavailable
from connector.livekit_api import LiveKitApi
from connector.room.admin import UNDO_LIMIT, UNDO_TIMEOUT, RoomAdmin
from tests.unit.call.virtual_time import virtual_time


class FakeLiveKit:
    """Its rooms by name, with their SIDs; deleting takes `delay`, or fails with `fault`."""

    def __init__(self) -> None:
        self.rooms: dict[str, str] = {}
        self.people: set[str] = set()
        self.delay = 0.0
        self.fault: Exception | None = None
        self.tries: list[float] = []
        self.room = self.agent_dispatch = self
        self.made = 0

    async def list_rooms(self, asked: api.ListRoomsRequest) -> api.ListRoomsResponse:
        return api.ListRoomsResponse(
            rooms=[api.Room(sid=self.rooms[name]) for name in asked.names if name in self.rooms]
        )

    async def create_room(self, asked: api.CreateRoomRequest) -> api.Room:
        self.made += 1
        self.rooms[asked.name] = f"RM_{self.made}"
        return api.Room(sid=self.rooms[asked.name])

    async def list_participants(self, asked: api.ListParticipantsRequest) -> api.ListParticipantsResponse:
        there = asked.room in self.people
        return api.ListParticipantsResponse(participants=[api.ParticipantInfo(identity="somebody")] if there else [])

    async def delete_room(self, asked: api.DeleteRoomRequest) -> None:
        self.tries.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.delay)
        if self.fault is not None:
            raise self.fault
        if asked.room not in self.rooms:
            raise api.TwirpError("not_found", "no such room", status=404)
        del self.rooms[asked.room]


def scene() -> tuple[RoomAdmin, FakeLiveKit]:
    livekit: Any = FakeLiveKit()
    client = LiveKitApi("http://livekit", "key", "secret")
    client._sdk = livekit
    return RoomAdmin(client), livekit


def warnings(entries: list[Any]) -> list[str]:
    return [entry["room"] for entry in entries if entry["log_level"] == "warning"]


FAULTS = {
    "slow": None,
    "unreachable": aiohttp.ClientConnectionError(),
    "refuses": api.TwirpError("unavailable", "overloaded", status=503),
}


@pytest.mark.parametrize("fault", FAULTS)
@virtual_time
async def test_the_room_goes_once_livekit_is_well_again_and_the_call_waits_for_the_first_try_alone(fault: str) -> None:
    admin, livekit = scene()
    setup = await admin.ensure_room("lobby", [])
    livekit.delay, livekit.fault = 60.0 if fault == "slow" else 0.0, FAULTS[fault]
    await admin.undo(setup)
    assert asyncio.get_running_loop().time() <= UNDO_TIMEOUT
    await asyncio.sleep(5)
    assert livekit.rooms
    livekit.delay, livekit.fault = 0.0, None
    with structlog.testing.capture_logs() as log:
        await asyncio.sleep(UNDO_LIMIT)
    assert not livekit.rooms
    assert len(livekit.tries) <= 5
    assert log == []
    await admin.close()


@virtual_time
async def test_a_livekit_that_stays_away_is_given_up_with_one_warning() -> None:
    admin, livekit = scene()
    setup = await admin.ensure_room("lobby", [])
    livekit.fault = aiohttp.ClientConnectionError()
    with structlog.testing.capture_logs() as log:
        await admin.undo(setup)
        await asyncio.sleep(10 * UNDO_LIMIT)
        await admin.close()
    assert warnings(log) == ["lobby"]
    assert livekit.tries[-1] <= UNDO_LIMIT


@pytest.mark.parametrize("delay", [0.0, 60.0], ids=["fails", "hangs"])
@virtual_time
async def test_a_shutdown_tries_once_more_at_once_and_is_not_held(delay: float) -> None:
    admin, livekit = scene()
    setup = await admin.ensure_room("lobby", [])
    livekit.fault = aiohttp.ClientConnectionError()
    await admin.undo(setup)
    livekit.delay = delay
    with structlog.testing.capture_logs() as log:
        await admin.close()
    assert asyncio.get_running_loop().time() <= 2 * UNDO_TIMEOUT
    assert len(livekit.tries) == 2
    assert warnings(log) == ["lobby"]


@virtual_time
async def test_a_teardown_that_gives_up_waiting_leaves_the_room_to_the_background() -> None:
    admin, livekit = scene()
    setup = await admin.ensure_room("lobby", [])
    livekit.delay = 60.0
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(admin.undo(setup), 0.5)
    livekit.delay = 0.0
    await asyncio.sleep(UNDO_LIMIT)
    assert not livekit.rooms
    await admin.close()


@pytest.mark.parametrize("meanwhile", ["somebody joins", "it is created anew", "a call of ours uses it"])
@virtual_time
async def test_a_room_that_somebody_uses_meanwhile_stays(meanwhile: str) -> None:
    admin, livekit = scene()
    setup = await admin.ensure_room("lobby", [])
    livekit.fault = aiohttp.ClientConnectionError()
    await admin.undo(setup)
    livekit.fault = None
    if meanwhile == "somebody joins":
        livekit.people.add("lobby")
    elif meanwhile == "it is created anew":
        livekit.rooms["lobby"] = "RM_of_somebody_else"
    else:
        # The lock is free between two tries: this does not wait.
        other = await asyncio.wait_for(admin.ensure_room("lobby", []), 0.1)
    with structlog.testing.capture_logs() as log:
        await asyncio.sleep(UNDO_LIMIT)
    assert livekit.rooms
    assert log == []
    if meanwhile == "a call of ours uses it":
        # Nobody answers that call either: the room is its own to delete.
        await admin.undo(other)
        assert not livekit.rooms
    await admin.close()


@virtual_time
async def test_a_setup_that_fails_half_way_is_taken_back_later_too() -> None:
    admin, livekit = scene()

    async def broken(setup: Any) -> None:
        await admin._create(setup, [])
        raise aiohttp.ClientConnectionError

    livekit.fault = aiohttp.ClientConnectionError()
    with pytest.raises(Unavailable):
        await admin._set_up("lobby", broken)
    livekit.fault = None
    await asyncio.sleep(UNDO_LIMIT)
    assert not livekit.rooms
    await admin.close()
