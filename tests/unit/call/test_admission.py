"""A burst of calls: joins take turns, and nobody waits in vain."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any
from unittest.mock import patch

import pytest

from connector.call.dependencies import BUSY
from connector.errors import ResourceExhausted, Unavailable
from connector.metrics import Metrics
from connector.model.call import Direction
from connector.model.end_reason import EndReason
from connector.room import admission, rejoin
from connector.room.admission import SLOT_LIMIT, JoinAdmission
from tests.unit.call.fakes import FakeControl, FakeSocket, Faults, World
from tests.unit.call.virtual_time import virtual_time


class Joins:
    """Joins that take as long as a test says, and when each began."""

    def __init__(self, at_once: int = 2, patience: float = 8.0) -> None:
        self.admission = JoinAdmission(at_once, patience, Metrics())
        self.began: list[str] = []
        self.now = 0
        self.most = 0

    async def new(self, name: str, seconds: float = 1.0) -> None:
        async with self.admission.new_call(name):
            await self._join(name, seconds)

    async def live(self, name: str, seconds: float = 1.0, patience: float = 0.0) -> None:
        async with self.admission.live_call(name, patience):
            await self._join(name, seconds)

    async def streaming(self, name: str, seconds: float = 1.0) -> None:
        async with self.admission.streaming_call(name):
            await self._join(name, seconds)

    async def _join(self, name: str, seconds: float) -> None:
        self.began.append(name)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(seconds)
        finally:
            self.now -= 1


def _start(work: Callable[..., Coroutine[Any, Any, None]], *names: str, **options: float) -> list[asyncio.Task[None]]:
    return [asyncio.ensure_future(work(name, **options)) for name in names]


@virtual_time
async def test_so_many_join_at_once_and_the_others_in_the_order_in_which_they_came() -> None:
    joins = Joins(at_once=2)
    names = [f"call {number}" for number in range(9)]
    await asyncio.gather(*_start(joins.new, *names))
    assert joins.began == names
    assert joins.most == 2
    assert joins.admission.waiting == 0


@virtual_time
async def test_a_live_call_goes_before_the_new_ones() -> None:
    joins = Joins(at_once=1)
    new = _start(joins.new, "a", "b", "c")
    await asyncio.sleep(0.5)
    live = _start(joins.live, "moved")
    await asyncio.gather(*new, *live)
    assert joins.began == ["a", "moved", "b", "c"]


@virtual_time
async def test_one_who_is_given_up_in_the_queue_leaves_it() -> None:
    joins = Joins(at_once=1)
    first, second, third = _start(joins.new, "a", "b", "c")
    await asyncio.sleep(0.5)
    second.cancel()
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert joins.began == ["a", "c"]
    await joins.new("d")


@virtual_time
async def test_one_who_is_given_up_in_the_moment_of_the_turn_hands_it_on() -> None:
    joins = Joins(at_once=1)
    first, second, third = _start(joins.new, "a", "b", "c")
    first.add_done_callback(lambda _: second.cancel())
    await asyncio.gather(first, second, third, return_exceptions=True)
    assert "c" in joins.began
    assert joins.admission.waiting == 0
    assert joins.admission.foreseen_wait() == 0.0


@virtual_time
async def test_a_call_that_ends_in_the_queue_is_told_so() -> None:
    joins = Joins(at_once=1)
    first, second, third = _start(joins.new, "a", "b", "c")
    await asyncio.sleep(0.5)
    joins.admission.forget("b")
    with pytest.raises(Unavailable):
        await second
    await asyncio.gather(first, third)
    assert joins.began == ["a", "c"]


@virtual_time
async def test_a_call_that_would_wait_too_long_is_refused_at_once() -> None:
    joins = Joins(at_once=2, patience=3.0)
    await asyncio.gather(*_start(joins.new, *[f"earlier {number}" for number in range(30)], seconds=0.2))
    loop = asyncio.get_running_loop()
    began = loop.time()
    tasks = _start(joins.new, *[f"call {number}" for number in range(60)])
    await asyncio.sleep(0)
    refused = [task for task in tasks if task.done()]
    assert refused
    assert loop.time() == began
    for task in refused:
        with pytest.raises(ResourceExhausted, match="too many calls begin at once"):
            await task
    # By the rate of before, which nobody could know to change: so the others get at most their patience.
    await asyncio.gather(*tasks, return_exceptions=True)
    assert joins.admission.waiting == 0


@virtual_time
async def test_the_estimate_follows_the_joins_of_late() -> None:
    slow, quick = Joins(at_once=2, patience=5.0), Joins(at_once=2, patience=5.0)
    for number in range(20):
        await slow.new(f"{number}", seconds=2.0)
        await quick.new(f"{number}", seconds=0.1)
    served = []
    for joins, seconds in ((slow, 2.0), (quick, 0.1)):
        done = await asyncio.gather(
            *_start(joins.new, *[f"call {number}" for number in range(40)], seconds=seconds), return_exceptions=True
        )
        assert all(result is None or isinstance(result, ResourceExhausted) for result in done)
        served.append(done.count(None))
    assert 4 <= served[0] <= 8
    assert served[1] == 40


@virtual_time
async def test_nobody_waits_longer_than_the_bound_when_the_estimate_was_wrong() -> None:
    joins = Joins(at_once=1, patience=3.0)
    first, second, third = _start(joins.new, "a", "b", "c", seconds=3.9)
    began = asyncio.get_running_loop().time()
    with pytest.raises(ResourceExhausted, match="no turn to join came in 3 s"):
        await second
    assert asyncio.get_running_loop().time() - began == pytest.approx(3.0)
    await asyncio.gather(first, third, return_exceptions=True)
    assert joins.admission.waiting == 0


@virtual_time
async def test_where_joins_take_long_fewer_begin_at_once_until_they_are_quick_again() -> None:
    """Each takes 0.3 s for each that is under way, as on a processor that they share."""
    joins = Joins(at_once=8, patience=100.0)

    async def on_a_busy_machine(name: str) -> None:
        async with joins.admission.new_call(name):
            joins.now += 1
            joins.most = max(joins.most, joins.now)
            done = 0.0
            while done < 0.6:
                await asyncio.sleep(0.05)
                done += 0.1 / joins.now
            joins.now -= 1

    await asyncio.gather(*_start(on_a_busy_machine, *[f"first {number}" for number in range(30)]))
    assert joins.most == 8
    joins.most = 0
    await asyncio.gather(*_start(on_a_busy_machine, *[f"second {number}" for number in range(30)]))
    assert joins.most == 6
    await asyncio.gather(*_start(joins.new, *[f"quick {number}" for number in range(30)], seconds=0.1))
    assert joins.most == 8


@virtual_time
async def test_joins_that_hang_hold_the_others_up_for_no_longer_than_their_limit() -> None:
    joins = Joins(at_once=2)
    hanging = _start(joins.new, "hangs", "hangs too", seconds=1000.0)
    await asyncio.sleep(0)
    began = asyncio.get_running_loop().time()
    await joins.new("next")
    assert asyncio.get_running_loop().time() - began == pytest.approx(SLOT_LIMIT + 1.0)
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)
    # What has been given back once is not given back again.
    await asyncio.gather(*_start(joins.new, "a", "b", "c", "d"))
    assert joins.most == 3


@virtual_time
async def test_while_joins_hang_the_next_ones_are_not_made_to_believe_in_the_rate_of_before() -> None:
    joins = Joins(at_once=2, patience=8.0)
    for number in range(20):
        await joins.new(f"{number}", seconds=0.1)
    hanging = _start(joins.new, "hangs", "hangs too", seconds=1000.0)
    await asyncio.sleep(3.0)
    done = await asyncio.gather(
        *_start(joins.new, *[f"call {number}" for number in range(40)], seconds=0.1), return_exceptions=True
    )
    assert done.count(None) == 5
    for task in hanging:
        task.cancel()
    await asyncio.gather(*hanging, return_exceptions=True)


@virtual_time
async def test_a_call_that_is_announced_counts_until_its_stream_comes_or_is_late() -> None:
    joins = Joins(at_once=1, patience=1.0)
    for name in ("a", "b", "c", "d"):
        joins.admission.expect(name)
    with pytest.raises(ResourceExhausted):
        joins.admission.expect("e")
    # Who was announced has a turn that is sure, whatever else is asked for.
    await joins.streaming("a", seconds=0.1)
    joins.admission.forget("b")
    joins.admission.expect("e")
    joins.admission.expect("f")
    with pytest.raises(ResourceExhausted):
        joins.admission.expect("g")
    await asyncio.sleep(5.1)
    assert joins.admission.foreseen_wait() == 0.0


@virtual_time
async def test_a_caller_who_was_let_in_waits_three_times_as_long_when_the_estimate_was_wrong() -> None:
    joins = Joins(at_once=1, patience=3.0)
    names = ("a", "b", "c", "d", "e")
    for name in names:
        joins.admission.expect(name)
    results = await asyncio.gather(*_start(joins.streaming, *names, seconds=2.9), return_exceptions=True)
    assert [type(result) for result in results] == [type(None)] * 4 + [ResourceExhausted]
    results = await asyncio.gather(
        *_start(joins.streaming, "never announced", "nor this", "nor this one", seconds=2.9), return_exceptions=True
    )
    assert [type(result) for result in results] == [type(None)] * 2 + [ResourceExhausted]


# Whole calls


@virtual_time
async def test_the_time_in_the_queue_is_not_the_joins_own() -> None:
    world = World(joins_at_once=1)
    world.faults.delays["room.join_hidden"] = 2.0
    calls = await asyncio.gather(*(world.manager.create(world.request(f"call_{number}")) for number in range(4)))
    assert [call.state for call in calls] == ["ringing"] * 4
    assert asyncio.get_running_loop().time() == pytest.approx(8.0)
    await world.manager.drain(0.0)


@virtual_time
async def test_an_outbound_call_too_many_is_refused_before_anything_is_done_for_it() -> None:
    world = World(joins_at_once=1, max_calls=100)
    world.faults.delays["room.join_hidden"] = 0.2
    done = await asyncio.gather(
        *(world.manager.create(world.request(f"call_{number}")) for number in range(60)), return_exceptions=True
    )
    refused = [result for result in done if isinstance(result, ResourceExhausted)]
    assert 0 < len(refused) < 40
    assert world.faults.steps.count("room.join_hidden") == 60 - len(refused)
    assert not world.endings()
    await world.manager.drain(0.0)


@virtual_time
async def test_a_drain_ends_calls_that_wait_for_their_turn() -> None:
    world = World(joins_at_once=1)
    world.faults.planned["room.join_hidden"] = None
    opening = [asyncio.ensure_future(world.manager.create(world.request(f"call_{number}"))) for number in range(3)]
    await world.faults.reached.wait()
    await world.manager.drain(0.0)
    results = await asyncio.gather(*opening, return_exceptions=True)
    assert [isinstance(result, Unavailable) for result in results] == [True] * 3
    assert world.faults.steps.count("room.join_hidden") == 1
    assert world.counted() == {EndReason.SHUTDOWN.value: 3.0}
    assert world.joins.waiting == 0


@virtual_time
async def test_a_client_that_goes_away_frees_its_place_in_the_queue() -> None:
    world = World(joins_at_once=1)
    world.faults.delays["room.join_hidden"] = 2.0
    first, second, third = (
        asyncio.ensure_future(world.manager.create(world.request(f"call_{number}"))) for number in range(3)
    )
    await asyncio.sleep(0.5)
    second.cancel()
    await asyncio.gather(first, third)
    assert world.faults.steps.count("room.join_hidden") == 2
    assert asyncio.get_running_loop().time() == pytest.approx(4.0)
    await world.manager.drain(0.0)


async def _stream(world: World, number: int) -> FakeSocket:
    socket = FakeSocket(world.faults)
    call = await world.manager.claim(f"call_{number}")
    world.carrying.append(asyncio.ensure_future(call.carry(socket)))
    socket.feed(f"start CA{number}")
    return socket


@virtual_time
async def test_streams_that_start_together_take_turns_and_a_caller_who_hangs_up_frees_the_place() -> None:
    world = World(direction=Direction.INBOUND, joins_at_once=1)
    world.faults.delays["room.join_visible"] = 2.0
    for number in range(3):
        await world.manager.create(world.request(f"call_{number}"))
    sockets = [await _stream(world, number) for number in range(3)]
    await asyncio.sleep(0.5)
    sockets[1].feed("stop")
    await asyncio.sleep(4.0)
    assert [call.state for call in world.manager.live()] == ["active"] * 2
    assert asyncio.get_running_loop().time() == pytest.approx(4.5)
    assert world.faults.steps.count("room.join_visible") == 2
    await world.manager.drain(0.0)
    await asyncio.gather(*world.carrying)


@virtual_time
async def test_a_stream_without_a_turn_in_time_ends_its_call_as_overloaded_and_the_caller_hears_why() -> None:
    faults = Faults()
    control = FakeControl(faults)
    world = World(direction=Direction.INBOUND, joins_at_once=1, faults=faults, control=control)
    await world.manager.create(world.request("call_0"))
    with patch.object(admission, "SLOT_LIMIT", 1000.0):
        async with world.joins.live_call("another"):
            await _stream(world, 0)
            # Twice the time of a new call: the carrier was told that somebody would answer.
            await asyncio.sleep(15.9)
            assert world.counted() == {}
            await asyncio.gather(*world.carrying)
    assert world.counted() == {EndReason.OVERLOADED.value: 1.0}
    assert control.said == [BUSY]
    assert "room.join_visible" not in faults.steps


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_caller_hears_that_livekit_is_away_and_a_callee_does_not(direction: Direction) -> None:
    faults = Faults()
    control = FakeControl(faults)
    world = World(direction=direction, faults=faults, control=control)
    await world.manager.create(world.request("call_0"))
    step = "room.join_visible" if direction is Direction.INBOUND else "admin.reveal"
    faults.planned[step] = Unavailable("no answer")
    await _stream(world, 0)
    await asyncio.gather(*world.carrying)
    assert world.counted() == {EndReason.LIVEKIT_UNAVAILABLE.value: 1.0}
    assert control.said == ([BUSY] if direction is Direction.INBOUND else [])


@virtual_time
async def test_without_credentials_the_log_says_what_the_caller_has_not_heard() -> None:
    world = World(direction=Direction.INBOUND)
    await world.manager.create(world.request("call_0"))
    world.faults.planned["room.join_visible"] = Unavailable("no answer")
    await _stream(world, 0)
    await asyncio.gather(*world.carrying)
    (line,) = [entry for entry in world.log.entries if "a setting is missing" in entry["event"]]
    assert line["event"] == "the phone hears no last sentence: a setting is missing"


@virtual_time
async def test_a_livekit_that_has_started_again_is_joined_by_so_many_calls_at_once_before_any_new_one() -> None:
    rejoin._Failures.latest = float("-inf")
    joins = Joins(at_once=8)

    async def comes_back(name: str) -> None:
        turn = partial(joins.admission.live_call, name, 20.0)
        await rejoin.until_joined(lambda: joins._join(name, 1.0), turn)

    tasks = [asyncio.ensure_future(comes_back(f"call {number}")) for number in range(60)]
    await asyncio.sleep(rejoin.SPREAD)
    new = _start(joins.new, "new")
    await asyncio.gather(*tasks, *new)
    assert joins.most == 8
    assert len(joins.began) == 61
    assert joins.began[-1] == "new"
