"""All calls of a process: who is let in, who is found, and how they are brought to an end."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from connector.errors import ResourceExhausted, TokenExpired, TokenInvalid, TokenUsed, Unavailable
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from tests.unit.call.fakes import World
from tests.unit.call.virtual_time import virtual_time


@virtual_time
async def test_calls_up_to_the_limit_are_let_in_and_an_end_makes_room() -> None:
    world = World(max_calls=2)
    first = await world.manager.create(world.request("call_1"))
    await world.manager.create(world.request("call_2"))
    assert world.manager.full
    with pytest.raises(ResourceExhausted):
        await world.manager.create(world.request("call_3"))
    first.end(EndReason.ENDED_BY_API)
    await first.finished.wait()
    await world.manager.create(world.request("call_4"))
    await world.manager.drain(0)
    assert not world.manager.live()


@virtual_time
async def test_a_connector_s_waiting_calls_are_those_without_a_stream() -> None:
    world = World()
    for call_id, connector in (("call_1", "cn_1"), ("call_2", "cn_1"), ("call_3", "cn_2"), ("call_4", "")):
        await world.manager.create(replace(world.request(call_id), connector_id=connector))
    assert (world.manager.waiting_of("cn_1"), world.manager.waiting_of("cn_2")) == (2, 1)
    await world.manager.claim("call_1")
    assert world.manager.waiting_of("cn_1") == 1
    await world.manager.drain(0)
    assert world.manager.waiting_of("cn_1") == 0


@virtual_time
async def test_the_record_of_a_call_is_this_process_s_own_or_else_the_stored_one() -> None:
    world = World()
    other = World(owner="other", store=world.store)
    call = await world.manager.create(world.request())
    await call.fetched("CA1", "+15550001111", "")
    assert await world.manager.record("call_1") == call.record
    assert await other.manager.record("call_1") == world.store.records["call_1"] != call.record
    assert await world.manager.record("call_2") is None
    await world.manager.drain(0)


@virtual_time
async def test_a_call_that_could_not_open_is_not_held() -> None:
    world = World()
    world.faults.planned["room.join_hidden"] = Unavailable("gone")
    with pytest.raises(Unavailable):
        await world.manager.create(world.request())
    assert not world.manager.live()
    await world.manager.drain(10)


@virtual_time
async def test_a_call_can_be_claimed_while_it_waits_once_and_is_known_to_be_over_afterwards() -> None:
    world = World()
    call = await world.manager.create(world.request())
    assert (await world.manager.expected("call_1")).deadline == call.deadline
    assert await world.manager.claim("call_1") is call
    with pytest.raises(TokenUsed):
        await world.manager.claim("call_1")
    await world.manager.drain(0)
    for refused in (world.manager.expected, world.manager.claim):
        with pytest.raises(TokenExpired if refused == world.manager.expected else Unavailable):
            await refused("call_1")
    with pytest.raises(TokenInvalid):
        await world.manager.expected("call_0")


@virtual_time
async def test_a_drain_takes_no_calls_and_waits_for_those_that_live() -> None:
    world = World()
    call = await world.manager.create(world.request())
    draining = asyncio.create_task(world.manager.drain(60))
    await asyncio.sleep(1)
    with pytest.raises(Unavailable):
        await world.manager.create(world.request("call_2"))
    assert not draining.done()
    call.end(EndReason.CARRIER_HANGUP)
    await asyncio.wait_for(draining, 1)
    assert call.record.end_reason is EndReason.CARRIER_HANGUP


@virtual_time
async def test_a_drain_ends_what_lasts_longer_than_its_limit() -> None:
    world = World()
    call = await world.manager.create(world.request())
    started = asyncio.get_running_loop().time()
    await world.manager.drain(60)
    assert asyncio.get_running_loop().time() - started == pytest.approx(60, abs=1)
    assert call.record.end_reason is EndReason.SHUTDOWN


@virtual_time
async def test_a_drain_waits_for_a_call_that_is_still_being_opened_and_leaves_nobody_in_its_room() -> None:
    world = World()
    world.faults.delays["room.join_hidden"] = 5.0
    creating = asyncio.create_task(world.manager.create(world.request()))
    await asyncio.sleep(1)
    await world.manager.drain(0)
    with pytest.raises(Unavailable):
        await creating
    assert not world.manager.live()
    assert world.counted() == {"shutdown": 1.0}


@virtual_time
async def test_the_gauge_counts_calls_by_state() -> None:
    world = World()
    await world.manager.create(world.request("call_1"))
    await world.manager.create(world.request("call_2"))
    world.manager.count_states()
    gauge = world.metrics.active
    assert gauge.labels(CallState.RINGING.value)._value.get() == 2
    await world.manager.drain(0)
    world.manager.count_states()
    assert gauge.labels(CallState.RINGING.value)._value.get() == 0
