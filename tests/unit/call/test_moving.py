"""A move to another room, and a store that is away: other processes look for the caller in the room of its record."""

from __future__ import annotations

import asyncio

import pytest

from connector.call.session.call_session import CallSession
from connector.model.call import CallState, Direction
from connector.model.end_reason import EndReason
from connector.storage.base import StoreError
from tests.unit.call.fakes import World
from tests.unit.call.virtual_time import virtual_time


async def active(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await asyncio.wait_for(call.settled.wait(), 5)
    await asyncio.sleep(0.1)
    assert call.state is CallState.ACTIVE
    return call, carrying


async def over(world: World, call: CallSession, carrying: asyncio.Task[None], reason: EndReason) -> None:
    world.socket.feed("stop")
    await carrying
    world.assert_ended_once(call, reason)


@pytest.mark.parametrize("fault", [StoreError("away"), None], ids=["refuses", "hangs"])
@virtual_time
async def test_a_process_that_is_cut_off_from_its_store_moves_nobody(fault: StoreError | None) -> None:
    world = World(Direction.INBOUND)
    call, carrying = await active(world)
    world.faults.planned["store.save"] = fault
    with pytest.raises(StoreError):
        await call.switch_room("office")
    assert (call.record.room, len(world.rooms)) == ("lobby", 1)
    world.faults.planned.clear()
    await over(world, call, carrying, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_store_that_goes_away_in_the_moment_of_the_move_is_told_as_soon_as_it_is_back() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await active(world)
    world.faults.delays["room.publish"] = 1.0
    moving = asyncio.create_task(call.switch_room("office"))
    await asyncio.sleep(0.5)
    world.faults.planned["store.save"] = StoreError("away")
    await moving
    assert (call.record.room, world.store.records[call.call_id].room) == ("office", "lobby")
    await asyncio.sleep(3)
    world.faults.planned.clear()
    await asyncio.sleep(1.5)
    assert world.store.records[call.call_id].room == "office"
    await over(world, call, carrying, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_an_end_does_not_wait_for_a_store_that_stays_away() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await active(world)
    world.faults.delays["room.publish"] = 1.0
    moving = asyncio.create_task(call.switch_room("office"))
    await asyncio.sleep(0.5)
    world.faults.planned["store.save"] = StoreError("away")
    await moving
    world.socket.feed("stop")
    await carrying
    assert call.finished.is_set()
    await world.store_is_back()
    assert world.store.records[call.call_id].room == "office"
