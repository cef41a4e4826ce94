"""What every store must do with webhooks on their way."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from connector.model.webhook import Attempt, Delivery, LifecycleEvent
from connector.storage.base import Store, StoreError

LATER = 1_000_000.0
"""A time at which everything is due."""


def delivery(number: int, endpoint: str = "wh_1", call: str = "call_1", due_at: float = 10.0) -> Delivery:
    return Delivery(
        id=f"d{number}",
        endpoint_id=endpoint,
        call_id=call,
        event=LifecycleEvent.STARTED,
        body=f'{{"number": {number}, "text": "Grüße"}}',
        created_at=5.125,
        due_at=due_at,
    )


def attempt(of: Delivery, at: float = 20.0, **changes: Any) -> Attempt:
    made = Attempt(of.id, of.endpoint_id, of.call_id, of.event, of.attempts + 1, at, 0.25, 200)
    return replace(made, **changes)


async def take(store: Store, now: float = LATER, leased_until: float = LATER + 30, limit: int = 50) -> list[str]:
    return [one.id for one in await store.deliveries.take(now, leased_until, limit)]


async def test_a_delivery_comes_as_it_was_put(store: Store) -> None:
    await store.deliveries.put([delivery(1)])
    assert await store.deliveries.take(10.0, 40.0, 5) == [delivery(1)]


async def test_an_empty_queue_has_nothing(store: Store) -> None:
    await store.deliveries.put([])
    assert await take(store) == []
    assert await store.deliveries.next_due() is None
    assert await store.deliveries.pending() == 0
    assert await store.deliveries.attempts() == []
    assert await store.deliveries.drop_endpoint("wh_1") == 0


async def test_what_is_not_due_stays(store: Store) -> None:
    await store.deliveries.put([delivery(1, due_at=10.0)])
    assert await take(store, now=9.999) == []
    assert await store.deliveries.next_due() == 10.0
    assert await take(store, now=10.0) == ["d1"]


async def test_a_lease_keeps_others_away_until_it_has_passed(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    await store.deliveries.put([delivery(1)])
    assert await take(store, now=10.0, leased_until=40.5) == ["d1"]
    assert await take(other, now=40.25) == []
    assert await other.deliveries.next_due() == 40.5
    assert await other.deliveries.pending() == 1
    assert await take(other, now=40.5, leased_until=70.0) == ["d1"]
    await other.close()


async def test_those_of_a_call_go_to_an_endpoint_in_order_one_at_a_time(store: Store) -> None:
    # The third is due first; it waits for its turn all the same.
    line = [delivery(3, due_at=30.0), delivery(1, due_at=20.0), delivery(2, due_at=1.0)]
    await store.deliveries.put(line[:2])
    await store.deliveries.put(line[2:])
    for one in line:
        assert await take(store) == [one.id]
        assert await take(store) == []
        await store.deliveries.settle(attempt(one), None)
    assert await store.deliveries.pending() == 0


async def test_a_failed_one_holds_up_its_own_line_alone(store: Store) -> None:
    await store.deliveries.put([delivery(1), delivery(2), delivery(3, call="call_2"), delivery(4, endpoint="wh_2")])
    assert await take(store, now=10.0, leased_until=600.0) == ["d1", "d3", "d4"]
    await store.deliveries.settle(attempt(delivery(1)), 500.0)
    assert await store.deliveries.next_due() == 500.0
    assert await take(store, now=499.0) == []
    assert await store.deliveries.take(500.0, 600.0, 50) == [replace(delivery(1), due_at=500.0, attempts=1)]
    assert await take(store, now=600.0) == ["d1", "d3", "d4"]


async def test_another_one_in_the_line_frees_neither_a_leased_nor_a_failed_one(store: Store) -> None:
    await store.deliveries.put([delivery(1)])
    assert await take(store, now=10.0, leased_until=40.0) == ["d1"]
    await store.deliveries.put([delivery(2)])
    assert await take(store, now=39.0) == []
    await store.deliveries.settle(attempt(delivery(1)), 500.0)
    await store.deliveries.put([delivery(3)])
    assert await take(store, now=499.0) == []
    assert await store.deliveries.next_due() == 500.0


async def test_attempts_count_up(store: Store) -> None:
    await store.deliveries.put([delivery(1)])
    for number in range(1, 4):
        (one,) = await store.deliveries.take(LATER * number, LATER * number + 30, 5)
        assert one.attempts == number - 1
        await store.deliveries.settle(attempt(one), LATER * (number + 1))
    (one,) = await store.deliveries.take(LATER * 4, LATER * 5, 5)
    assert (one.attempts, one.due_at) == (3, LATER * 4)


async def test_a_given_up_one_lets_the_next_go(store: Store) -> None:
    await store.deliveries.put([delivery(1), delivery(2, due_at=30.0)])
    assert await take(store, now=10.0) == ["d1"]
    await store.deliveries.settle(attempt(delivery(1), status=500), None)
    assert await store.deliveries.next_due() == 30.0
    assert await take(store, now=30.0) == ["d2"]


async def test_the_longest_due_come_first_and_no_more_than_wanted(store: Store) -> None:
    for number, due_at in ((1, 30.0), (2, 10.5), (3, 20.0), (4, 10.25)):
        await store.deliveries.put(
            [delivery(number, call=f"call_{number}", endpoint=f"wh_{number % 2}", due_at=due_at)]
        )
    assert await take(store, now=30.0, limit=3) == ["d4", "d2", "d3"]
    assert await take(store, now=30.0, limit=3) == ["d1"]


async def test_busy_endpoints_are_passed_over(store: Store) -> None:
    await store.deliveries.put(
        [delivery(number, f"wh_{number}", due_at=due_at) for number, due_at in ((1, 1.0), (2, 2.0), (3, 3.0))]
    )
    assert await store.deliveries.next_due(["wh_1", "wh_9"]) == 2.0
    assert await store.deliveries.next_due({"wh_1", "wh_2", "wh_3"}) is None
    assert [one.id for one in await store.deliveries.take(9.0, 99.0, 1, ["wh_1"])] == ["d2"]
    assert [one.id for one in await store.deliveries.take(9.0, 99.0, 9, {"wh_1"})] == ["d3"]
    assert [one.id for one in await store.deliveries.take(9.0, 99.0, 9)] == ["d1"]


async def test_putting_one_again_does_not_double_it(store: Store) -> None:
    await store.deliveries.put([delivery(1)])
    await store.deliveries.put([replace(delivery(1), due_at=99.0), delivery(2)])
    assert await store.deliveries.pending() == 2
    assert await store.deliveries.take(10.0, LATER, 5) == [delivery(1)]


async def test_endpoints_and_calls_with_like_names_are_not_mixed_up(store: Store) -> None:
    """Whatever joins the two parts of a line's name must not make one line of two."""
    await store.deliveries.put([delivery(1, "wh:1", "2:x"), delivery(2, "wh:1:2", "x"), delivery(3, "wh", "1:2:x")])
    assert await take(store) == ["d1", "d2", "d3"]


async def test_dropping_an_endpoint_forgets_its_deliveries_alone(store: Store) -> None:
    await store.deliveries.put([delivery(1), delivery(2), delivery(3, call="call_2"), delivery(4, endpoint="wh_2")])
    (leased,) = await store.deliveries.take(10.0, LATER, 1, ["wh_2"])
    assert await store.deliveries.drop_endpoint("wh_1") == 3
    assert await store.deliveries.pending() == 1
    assert await store.deliveries.next_due() == 10.0
    # Whoever had it in hand may still say how it went, and it does not come back.
    await store.deliveries.settle(attempt(leased), 50.0)
    assert await take(store) == ["d4"]
    assert [line.delivery_id for line in await store.deliveries.attempts()] == ["d1"]
    await store.deliveries.put([delivery(5)])
    assert await take(store) == ["d5"]


async def test_the_log_has_every_field_newest_first(store: Store) -> None:
    lines = [
        attempt(delivery(1), at=20.5),
        attempt(delivery(1), at=1763734740.123456, number=2, status=0, error="refused: Grüße", seconds=10.0625),
        attempt(delivery(2, "wh_2", "call_2"), at=20.5, event=LifecycleEvent.HANGUP, status=301),
    ]
    for line in lines:
        await store.deliveries.settle(line, None)
    assert await store.deliveries.attempts() == [lines[1], lines[2], lines[0]]
    assert await store.deliveries.attempts(limit=1) == [lines[1]]


async def test_the_log_can_be_of_one_endpoint_or_call(store: Store) -> None:
    for number in range(8):
        one = delivery(number, endpoint=f"wh_{number % 2}", call=f"call_{number // 4}")
        await store.deliveries.settle(attempt(one, at=float(number)), None)

    async def told(**where: Any) -> list[str]:
        return [line.delivery_id for line in await store.deliveries.attempts(**where)]

    assert await told(endpoint_id="wh_1") == ["d7", "d5", "d3", "d1"]
    assert await told(call_id="call_0") == ["d3", "d2", "d1", "d0"]
    assert await told(endpoint_id="wh_0", call_id="call_1") == ["d6", "d4"]
    assert await told(endpoint_id="wh_0", call_id="call_1", limit=1) == ["d6"]
    assert await told(endpoint_id="wh_9") == []


async def test_old_log_lines_are_forgotten(store: Store) -> None:
    for number in range(5):
        await store.deliveries.settle(attempt(delivery(number), at=float(number)), None)
    assert await store.deliveries.forget_before(3.0) == 3
    for endpoint_id, call_id in (("", ""), ("wh_1", ""), ("", "call_1")):
        left = await store.deliveries.attempts(50, endpoint_id, call_id)
        assert [line.delivery_id for line in left] == ["d4", "d3"]
    assert await store.deliveries.forget_before(3.0) == 0


async def test_many_lines_are_forgotten_in_one_go(store: Store) -> None:
    for number in range(1100):
        await store.deliveries.settle(attempt(delivery(number), at=1.0), None)
    assert len(await store.deliveries.attempts(limit=1050, endpoint_id="wh_1", call_id="call_1")) == 1050
    assert await store.deliveries.forget_before(2.0) == 1100
    assert await store.deliveries.attempts() == []


async def test_the_queue_outlives_the_process(make: Callable[[], Store], store: Store) -> None:
    await store.deliveries.put([delivery(1), delivery(2)])
    await take(store, now=10.0, leased_until=40.0)
    await store.close()
    again = make()
    await again.open()
    assert await again.deliveries.pending() == 2
    assert await again.deliveries.next_due() == 40.0
    assert await take(again, now=40.0) == ["d1"]
    await again.deliveries.settle(attempt(delivery(1)), None)
    assert await take(again) == ["d2"]
    await again.close()


async def test_what_is_put_at_once_is_all_there_and_each_is_leased_once(
    make: Callable[[], Store], store: Store
) -> None:
    other = make()
    await other.open()
    await asyncio.gather(
        *(
            each.deliveries.put([delivery(number, call=f"call_{number}")])
            for number in range(30)
            for each in (store, other)
        )
    )
    assert await store.deliveries.pending() == 30
    taken = await asyncio.gather(*(take(each, limit=4) for _ in range(6) for each in (store, other)))
    every = [one for some in taken for one in some]
    assert sorted(every) == sorted(f"d{number}" for number in range(30))
    await other.close()


async def test_an_unreadable_put_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.deliveries.put([delivery(1), replace(delivery(2), body="\ud800")])
    assert await store.deliveries.pending() == 0
    assert await take(store) == []


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    queue = store.deliveries
    for use in (
        queue.put([delivery(1)]),
        queue.take(1.0, 2.0, 3),
        queue.settle(attempt(delivery(1)), None),
        queue.next_due(),
        queue.pending(),
        queue.drop_endpoint("wh_1"),
        queue.attempts(),
        queue.forget_before(1.0),
    ):
        with pytest.raises(StoreError, match="not open"):
            await use
