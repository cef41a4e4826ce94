"""A process that dies says nothing: who ends its calls, when, at which moment, and what is left of them."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from connector.call.registry.abandoned import INTERRUPTED_DETAIL, KEEP_TRYING
from connector.call.registry.lease import ANNOUNCE_LIMIT, IDLE, LAPSE, LOOK_EVERY, UNLEASED_MARGIN, OwnerLease
from connector.errors import Internal, Unavailable
from connector.model.call import CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.storage.base import StoreError
from tests.unit.call.fakes import LIMITS, World
from tests.unit.call.virtual_time import virtual_time

NOW = time.time()
STARTED = NOW - 100.0
CALL = CallRecord(
    call_id="call_dead",
    provider=Provider.TWILIO,
    direction=Direction.INBOUND,
    room="lobby",
    identity="caller",
    state=CallState.ACTIVE,
    owner="dead",
    created_at=STARTED - 1,
    started_at=STARTED,
    timelog=(("call-started", STARTED - 1), ("call-answered", STARTED)),
)


def survivor(owner: str = "alive", **world: World) -> tuple[World, OwnerLease]:
    surviving = World(owner=owner, store=world["beside"].store) if world else World(owner=owner)
    return surviving, OwnerLease(surviving.parts, lambda: bool(surviving.manager.live()))


def with_call(world: World, *calls: CallRecord, renewed_at: float | None = STARTED + 2.9) -> None:
    world.store.records |= {call.call_id: call for call in calls or (CALL,)}
    if renewed_at is not None:
        world.store.kept_leases["dead"] = renewed_at


async def watch(lease: OwnerLease, seconds: float) -> None:
    for _ in range(round(seconds / LOOK_EVERY)):
        await lease.look()
        await asyncio.sleep(LOOK_EVERY)


@virtual_time
async def test_a_successor_ends_a_call_at_its_last_sign_of_life() -> None:
    """Killed after 2.9 s; the successor came half a minute later, and the record said 34.7 s."""
    world, lease = survivor("dead")
    with_call(world)
    assert await lease.take_up() == [CALL]
    record = world.store.records["call_dead"]
    assert record.ended_at - record.started_at == pytest.approx(2.9)
    assert (record.end_reason, record.end_detail) == (EndReason.INTERRUPTED, INTERRUPTED_DETAIL)
    assert record.timelog[-1] == ("call-hangup", record.ended_at)
    assert world.lifecycle.events == ["call-hangup"]
    assert world.counted() == {"interrupted": 1.0}
    assert world.store.kept_leases["dead"] >= NOW


@pytest.mark.parametrize("renewed_at", [None, STARTED - 10, NOW + 1e6], ids=["none", "older", "of a wrong clock"])
@virtual_time
async def test_the_moment_is_within_what_is_known(renewed_at: float | None) -> None:
    world, lease = survivor("dead")
    with_call(world, renewed_at=renewed_at)
    await lease.take_up()
    ended_at = world.store.records["call_dead"].ended_at
    assert STARTED <= ended_at <= time.time()
    if renewed_at != NOW + 1e6:
        assert ended_at == STARTED


@virtual_time
async def test_where_no_successor_comes_another_process_ends_the_calls_after_a_minute() -> None:
    world, lease = survivor()
    with_call(world)
    await watch(lease, LAPSE)
    assert world.store.records["call_dead"].end_reason is None
    await watch(lease, 2 * LOOK_EVERY)
    record = world.store.records["call_dead"]
    assert record.ended_at == pytest.approx(STARTED + 2.9)
    assert world.lifecycle.events == ["call-hangup"]
    assert "dead" not in world.store.kept_leases
    assert world.admin.ghosts == [("lobby", "caller", "call_dead")]


@virtual_time
async def test_the_calls_of_a_process_that_is_cut_off_from_the_store_alone_go_on() -> None:
    """Its callers are in their rooms: nobody ends their records, hangs their phones up or removes them."""
    world, lease = survivor()
    with_call(world, CALL, replace(CALL, call_id="call_left"))
    world.admin.there.add("call_dead")
    await watch(lease, 5 * LAPSE)
    assert world.store.records["call_dead"].end_reason is None
    assert world.store.records["call_left"].end_reason is EndReason.INTERRUPTED
    assert world.admin.ghosts == [("lobby", "caller", "call_left")]
    assert "dead" in world.store.kept_leases
    told = [entry for entry in world.log.entries if "cut off from the store" in entry["event"]]
    assert [(entry["owner"], entry["calls"]) for entry in told] == [("dead", 1)]
    world.admin.there.clear()
    await watch(lease, 2 * LOOK_EVERY)
    record = world.store.records["call_dead"]
    assert record.end_reason is EndReason.INTERRUPTED
    assert "dead" not in world.store.kept_leases


@virtual_time
async def test_while_livekit_cannot_say_who_is_there_no_call_of_another_process_ends() -> None:
    world, lease = survivor()
    with_call(world)
    world.faults.planned["admin.has_call"] = Unavailable("LiveKit is away")
    await watch(lease, 3 * LAPSE)
    assert world.store.records["call_dead"].end_reason is None
    del world.faults.planned["admin.has_call"]
    await watch(lease, 2 * LOOK_EVERY)
    record = world.store.records["call_dead"]
    assert record.end_reason is EndReason.INTERRUPTED


@virtual_time
async def test_of_several_processes_that_watch_one_ends_the_call() -> None:
    first, one = survivor()
    with_call(first)
    second, other = survivor("beside", beside=first)
    await asyncio.gather(watch(one, LAPSE + 3 * LOOK_EVERY), watch(other, LAPSE + 3 * LOOK_EVERY))
    assert sorted(first.lifecycle.events + second.lifecycle.events) == ["call-hangup"]
    assert sum([*first.counted().values(), *second.counted().values()]) == 1
    assert len(first.admin.ghosts + second.admin.ghosts) == 1


@virtual_time
async def test_a_process_that_renews_is_left_alone_also_when_its_clock_is_wrong() -> None:
    world, lease = survivor()
    with_call(world)
    for number in range(30):
        world.store.kept_leases["dead"] = 1000.0 + number
        await watch(lease, LOOK_EVERY)
    assert world.store.records["call_dead"].end_reason is None


@virtual_time
async def test_a_store_that_was_away_for_everybody_lapses_no_lease() -> None:
    """Nobody could renew: when it is back, all leases are as old as the outage."""
    world, lease = survivor()
    with_call(world)
    await watch(lease, LAPSE - LOOK_EVERY)
    world.faults.planned["store.leases"] = StoreError("away")
    for _ in range(30):
        with pytest.raises(StoreError):
            await lease.look()
        await asyncio.sleep(LOOK_EVERY)
    del world.faults.planned["store.leases"]
    await watch(lease, LAPSE)
    assert world.store.records["call_dead"].end_reason is None
    world.store.kept_leases["dead"] = NOW
    await watch(lease, LAPSE)
    assert world.store.records["call_dead"].end_reason is None


@virtual_time
async def test_calls_of_an_owner_without_a_lease_end_when_they_cannot_be_live_any_more() -> None:
    """An earlier version kept none. LiveKit SIP's calls have no process at all."""
    world, lease = survivor()
    over = NOW - LIMITS.max_duration - UNLEASED_MARGIN
    old = replace(CALL, created_at=over - 60, started_at=over - 50, timelog=())
    young = replace(old, call_id="call_young", created_at=over + 3600)
    sip = replace(old, call_id="call_sip", owner="livekit-sip")
    with_call(world, old, young, sip, renewed_at=None)
    await watch(lease, LOOK_EVERY)
    ended = {call.call_id for call in world.store.records.values() if call.end_reason is not None}
    assert ended == {"call_dead"}


@virtual_time
async def test_a_lease_is_renewed_every_second_for_all_calls_and_seldom_without_any() -> None:
    world = World(owner="alive")
    lease = OwnerLease(world.parts, lambda: bool(world.manager.live()), lambda: "http://127.0.0.1:4001")
    for _ in range(30):
        await lease.renew()
        await asyncio.sleep(1)
    assert world.faults.steps.count("store.renew") == 30 // IDLE
    assert await world.store.address_of("alive") == "http://127.0.0.1:4001"
    calls = [await world.manager.create(world.request(f"call_{number}")) for number in range(3)]
    world.faults.steps.clear()
    for _ in range(30):
        await lease.renew()
        await asyncio.sleep(1)
    assert world.faults.steps.count("store.renew") == 30
    for call in calls:
        call.end(EndReason.SHUTDOWN)
        await call.finished.wait()
    await lease.give_up()
    assert world.store.kept_leases == {}


@virtual_time
async def test_ghosts_are_removed_when_livekit_is_back_and_given_up_in_the_end() -> None:
    world, lease = survivor("dead")
    with_call(world)
    world.faults.planned["admin.remove_call"] = Unavailable("LiveKit is away")
    ended = await lease.take_up()
    lease.tidy(ended)
    await asyncio.sleep(30)
    del world.faults.planned["admin.remove_call"]
    await asyncio.sleep(30)
    assert world.admin.ghosts == [("lobby", "caller", "call_dead")]
    for fault in (Unavailable("LiveKit is away"), Internal("LiveKit refuses the credentials"), None):
        world.faults.planned["admin.remove_call"] = fault
        lease.tidy(ended)
        await asyncio.sleep(2 * KEEP_TRYING)
        assert world.log.entries[-1]["event"] == "the caller of an interrupted call may still be seen in its room"
    await lease.close()


@virtual_time
async def test_a_process_that_stops_does_not_wait_for_what_it_tidies_up() -> None:
    world, lease = survivor("dead")
    with_call(world)
    world.faults.planned["admin.remove_call"] = None
    lease.tidy(await lease.take_up())
    await world.faults.reached.wait()
    async with asyncio.timeout(1):
        await lease.close()


@pytest.mark.parametrize("state", [CallState.PENDING, CallState.RINGING])
@virtual_time
async def test_a_call_that_another_process_takes_over_at_this_moment_is_not_ended(state: CallState) -> None:
    world, lease = survivor("dead")
    waited = replace(CALL, call_id="call_taken", state=state, started_at=0.0)
    with_call(world, CALL, waited)

    async def sign() -> None:
        await asyncio.sleep(1.0)
        await world.store.save_call(replace(waited, owner="taker"))

    signing = asyncio.create_task(sign())
    assert await lease.take_up() == [CALL]
    await signing
    assert world.store.records["call_taken"].end_reason is None


@virtual_time
async def test_one_that_nobody_takes_over_is_ended() -> None:
    world, lease = survivor("dead")
    waited = replace(CALL, call_id="call_waited", state=CallState.PENDING, started_at=0.0)
    with_call(world, waited)
    assert await lease.take_up() == [waited]


@virtual_time
async def test_a_process_that_drains_says_so_at_once_and_with_each_renewal() -> None:
    world = World(owner="leaving")
    drains = False
    lease = OwnerLease(world.parts, lambda: False, is_draining=lambda: drains)
    await lease.renew()
    assert world.store.kept_draining == set()
    drains = True
    await lease.announce_drain()
    assert world.store.kept_draining == {"leaving"}
    await asyncio.sleep(IDLE)
    await lease.renew()
    assert world.store.kept_draining == {"leaving"}
    await lease.give_up()
    assert world.store.kept_draining == set()


@pytest.mark.parametrize("fault", [StoreError("away"), None], ids=["fails", "hangs"])
@virtual_time
async def test_a_drain_does_not_wait_for_a_store_that_is_away(fault: Exception | None) -> None:
    world = World(owner="leaving")
    lease = OwnerLease(world.parts, lambda: True, is_draining=lambda: True)
    world.faults.planned["store.renew"] = fault
    async with asyncio.timeout(ANNOUNCE_LIMIT + 0.1):
        await lease.announce_drain()
    assert [entry["event"] for entry in world.log.entries] == [
        "the drain of this process could not be saved in the store"
    ]
    del world.faults.planned["store.renew"]
    await lease.renew()
    assert world.store.kept_draining == {"leaving"}
