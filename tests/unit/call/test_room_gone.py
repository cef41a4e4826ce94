"""The end of a call whose room, or whose place in it, is gone waits for nothing that the room would have to answer."""

from __future__ import annotations

import asyncio

import pytest

from connector.call.dependencies import STEP_TIMEOUT
from connector.call.session.call_session import CallSession
from connector.model.end_reason import EndReason
from tests.unit.call.fakes import World
from tests.unit.call.virtual_time import virtual_time


async def active_call(world: World) -> CallSession:
    call = world.session()
    await call.open()
    await call.claim()
    world.carrying.append(asyncio.create_task(call.carry(world.socket)))
    world.socket.feed("connected", "start")
    await asyncio.sleep(1)
    assert call.state == "active"
    return call


GONE = [EndReason.ROOM_DELETED, EndReason.PARTICIPANT_REMOVED]


@pytest.mark.parametrize("reason", GONE)
@pytest.mark.parametrize("order", ["room first", "phone first", "at once", "alone"])
@virtual_time
async def test_the_end_waits_for_no_attribute_of_a_room_that_is_gone(order: str, reason: EndReason) -> None:
    world = World()
    call = await active_call(world)
    world.faults.planned["room.set_attributes"] = None
    began = asyncio.get_running_loop().time()
    match order:
        case "room first":
            world.room.goes(reason)
            await asyncio.sleep(0)
            world.socket.feed("stop")
        case "phone first":
            world.socket.feed("stop")
            await asyncio.sleep(0)
            world.room.goes(reason)
        case "at once":
            world.socket.feed("stop")
            world.room.goes(reason)
        case _:
            world.room.goes(reason)
    await call.finished.wait()
    assert asyncio.get_running_loop().time() == began
    await asyncio.gather(*world.carrying)
    world.assert_ended_once(call, call.record.end_reason or EndReason.INTERNAL_ERROR)
    assert call.record.end_reason in (reason, EndReason.CARRIER_HANGUP)
    assert not [entry for entry in world.log.entries if entry["event"] == "teardown step failed"]


@pytest.mark.parametrize("reason", GONE)
@virtual_time
async def test_the_end_stops_waiting_for_an_attribute_once_the_room_is_gone(reason: EndReason) -> None:
    """The phone hangs up, and the room goes while it is being told so."""
    world = World()
    call = await active_call(world)
    world.faults.planned["room.set_attributes"] = None
    world.socket.feed("stop")
    await world.faults.reached.wait()
    began = asyncio.get_running_loop().time()
    world.room.goes(reason)
    await call.finished.wait()
    assert asyncio.get_running_loop().time() == began
    await asyncio.gather(*world.carrying)
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_stuck_former_room_holds_neither_the_present_one_nor_the_phone() -> None:
    world = World()
    call = await active_call(world)
    world.faults.planned["room.leave"] = None
    await call.switch_room("office")
    await world.faults.reached.wait()
    del world.faults.planned["room.leave"]
    began = asyncio.get_running_loop().time()
    world.socket.feed("stop")
    for _ in range(100):
        await asyncio.sleep(0)
    assert not world.rooms[1].connected
    assert world.socket.closed_with
    assert asyncio.get_running_loop().time() == began
    await call.finished.wait()
    assert asyncio.get_running_loop().time() <= began + STEP_TIMEOUT
    await asyncio.gather(*world.carrying)
    assert [room.left for room in world.rooms] == [1, 1]
    assert call.record.end_reason is EndReason.CARRIER_HANGUP
