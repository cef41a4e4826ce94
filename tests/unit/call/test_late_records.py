"""Calls that end while the store is away: what their record says in the end is not lost, and overwrites nothing."""

from __future__ import annotations

import asyncio
from typing import cast

from connector.call.ports import Peers
from connector.call.record.late_ends import KEEP_FOR, LONGEST_DELAY
from connector.call.registry.control import CallControl
from connector.call.registry.dialled import DialledCalls
from connector.call.session.call_session import CallSession
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from connector.storage.base import StoreError
from tests.unit.call.fakes import World
from tests.unit.call.virtual_time import virtual_time

AWAY = StoreError("the store is away")


async def active_call(world: World) -> CallSession:
    call = await world.manager.create(world.request())
    await world.manager.claim(call.call_id)
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start")
    await asyncio.sleep(1)
    assert world.store.records[call.call_id].state is CallState.ACTIVE
    carrying.add_done_callback(lambda task: task.exception())
    return call


async def ended_without_store(world: World, fault: BaseException | None = AWAY) -> CallSession:
    call = await active_call(world)
    world.faults.planned["store.save"] = fault
    call.end(EndReason.ENDED_BY_API)
    await call.finished.wait()
    assert world.store.records[call.call_id].state is CallState.ACTIVE
    return call


def events(world: World, level: str) -> list[str]:
    return [line["event"] for line in world.log.entries if line["log_level"] == level]


@virtual_time
async def test_the_record_is_saved_when_the_store_is_back() -> None:
    for fault in (AWAY, None):
        world = World()
        call = await ended_without_store(world, fault)
        await asyncio.sleep(300)
        del world.faults.planned["store.save"]
        await asyncio.sleep(2 * LONGEST_DELAY)
        assert world.store.records[call.call_id] == call.record
        assert call.record.end_reason is EndReason.ENDED_BY_API
        saves = world.store.saves
        await asyncio.sleep(KEEP_FOR)
        assert world.store.saves == saves
        assert "a call's last record is saved after a delay" in events(world, "info")


@virtual_time
async def test_until_then_the_api_tells_the_end_that_the_store_does_not_know() -> None:
    world = World()
    call = await ended_without_store(world)
    control = CallControl(world.manager, world.admin, cast(DialledCalls, None), cast(Peers, None), "test")
    saved = world.store.records[call.call_id]
    assert (
        await control.record(call.call_id) == control.freshest(saved) == await control.end(call.call_id) == call.record
    )
    await world.manager.drain(0)
    assert await control.record(call.call_id) == saved


@virtual_time
async def test_the_drain_is_its_last_chance() -> None:
    world = World()
    call = await ended_without_store(world)
    del world.faults.planned["store.save"]
    await world.manager.drain(0)
    assert world.store.records[call.call_id] == call.record


@virtual_time
async def test_a_drain_without_store_ends_and_says_what_is_lost() -> None:
    world = World()
    call = await ended_without_store(world, None)
    async with asyncio.timeout(10):
        await world.manager.drain(0)
    lost = world.log.entries[-1]
    assert (lost["event"], lost["call_id"]) == ("a call's last record is lost: the store fails", call.call_id)


@virtual_time
async def test_it_is_given_up_after_an_hour() -> None:
    world = World()
    await ended_without_store(world)
    await asyncio.sleep(KEEP_FOR + 2 * LONGEST_DELAY)
    assert events(world, "error") == ["a call's last record is lost: the store has failed for too long"]
    saves = world.store.saves
    await asyncio.sleep(KEEP_FOR)
    assert world.store.saves == saves


@virtual_time
async def test_a_call_that_another_process_may_have_by_now_is_not_written_of() -> None:
    world = World()
    call = await world.manager.create(world.request())
    before = world.store.records[call.call_id]
    world.faults.planned |= {"waiting.delete": AWAY, "store.save": AWAY}
    call.end(EndReason.CONNECT_TIMEOUT)
    await call.finished.wait()
    world.faults.planned.clear()
    await asyncio.sleep(KEEP_FOR)
    assert world.store.records[call.call_id] is before
