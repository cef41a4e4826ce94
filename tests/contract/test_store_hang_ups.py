"""What every store must do with phones that are to be hung up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from connector.model.call import CarrierCall, HangUp
from connector.model.provider import Provider
from connector.storage.base import Store


def hang_up(number: int = 1) -> HangUp:
    return HangUp(
        id=f"telnyx:v3:{number}",
        call_id=f"call_{number}",
        provider=Provider.TELNYX,
        call=CarrierCall(f"v3:{number}", "the-account", "control"),
        created_at=1_790_000_000.123456,
        say="Grüße & <bye>",
    )


async def take(store: Store, now: float, leased_until: float = 1e9, limit: int = 10) -> list[HangUp]:
    return await store.hang_ups.take(now, leased_until, limit)


async def test_one_comes_as_it_was_put(store: Store) -> None:
    assert await store.hang_ups.put(hang_up(), 10.0)
    assert await take(store, 10.0) == [hang_up()]


async def test_an_empty_queue_has_nothing(store: Store) -> None:
    assert await take(store, 1e9) == []
    assert await store.hang_ups.next_due() is None
    assert await store.hang_ups.pending() == 0
    await store.hang_ups.settle("nobody")
    await store.hang_ups.retry("nobody", 1.0, 1)
    assert await store.hang_ups.pending() == 0


async def test_one_phone_is_kept_once(store: Store) -> None:
    assert await store.hang_ups.put(hang_up(), 10.0)
    assert not await store.hang_ups.put(replace(hang_up(), say="something else"), 1.0)
    assert await store.hang_ups.next_due() == 10.0
    assert await take(store, 10.0) == [hang_up()]
    await store.hang_ups.settle(hang_up().id)
    assert await store.hang_ups.put(hang_up(), 10.0)


async def test_a_lease_keeps_others_away_until_it_has_passed(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    await store.hang_ups.put(hang_up(), 40.5)
    assert await take(other, 40.25) == []
    assert await other.hang_ups.next_due() == 40.5
    assert await other.hang_ups.pending() == 1
    assert [one.id for one in await take(other, 40.5, 70.25)] == [hang_up().id]
    assert await take(store, 70.0) == []
    assert await store.hang_ups.next_due() == 70.25
    await other.close()


async def test_of_several_processes_one_gets_it(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    for number in range(5):
        await store.hang_ups.put(hang_up(number), 1.0)
    rounds = await asyncio.gather(*(take(which, 1.0, limit=1) for _ in range(5) for which in (store, other)))
    assert sorted(one.id for taken in rounds for one in taken) == sorted(hang_up(number).id for number in range(5))
    await other.close()


async def test_the_longest_due_comes_first_and_no_more_than_asked_for(store: Store) -> None:
    for number, due in ((1, 30.0), (2, 10.0), (3, 20.0), (4, 99.0)):
        await store.hang_ups.put(hang_up(number), due)
    assert [one.call_id for one in await take(store, 50.0, limit=2)] == ["call_2", "call_3"]
    assert [one.call_id for one in await take(store, 50.0, limit=9)] == ["call_1"]


async def test_a_retry_is_due_at_its_time_and_counts(store: Store) -> None:
    await store.hang_ups.put(hang_up(), 1.0)
    await take(store, 1.0, 30.0)
    await store.hang_ups.retry(hang_up().id, 5.125, 1)
    assert await store.hang_ups.next_due() == 5.125
    assert await take(store, 5.125) == [replace(hang_up(), attempts=1)]
    # A try that ends late does not take back what another process has counted.
    await store.hang_ups.retry(hang_up().id, 9.0, 12)
    await store.hang_ups.retry(hang_up().id, 9.0, 2)
    assert await take(store, 9.0) == [replace(hang_up(), attempts=12)]


async def test_what_is_settled_is_gone_and_no_late_retry_brings_it_back(store: Store) -> None:
    await store.hang_ups.put(hang_up(), 1.0)
    await store.hang_ups.settle(hang_up().id)
    await store.hang_ups.retry(hang_up().id, 1.0, 3)
    assert await take(store, 1e9) == []
    assert await store.hang_ups.pending() == 0


async def test_it_survives_the_process(make: Callable[[], Store], store: Store) -> None:
    await store.hang_ups.put(hang_up(), 1.0)
    await store.close()
    other = make()
    await other.open()
    assert await take(other, 1.0) == [hang_up()]
    await other.close()


async def test_one_that_is_withdrawn_is_gone_and_is_not_kept_again(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    await store.hang_ups.put(hang_up(1), 1.0)
    await store.hang_ups.put(hang_up(2), 1.0)
    for number in (1, 3):
        await other.hang_ups.withdraw(hang_up(number).id, 100.25, 200.5)
        assert not await store.hang_ups.put(hang_up(number), 1.0)
    await store.hang_ups.retry(hang_up(1).id, 1.0, 3)
    assert [one.id for one in await take(store, 1e9)] == [hang_up(2).id]
    assert await store.hang_ups.pending() == 1
    await other.hang_ups.allow(hang_up(1).id)
    assert await store.hang_ups.put(hang_up(1), 1.0)
    # What was withdrawn long ago is forgotten with the next.
    await store.hang_ups.withdraw(hang_up(4).id, 200.25, 300.5)
    assert not await store.hang_ups.put(hang_up(3), 1.0)
    await store.hang_ups.withdraw(hang_up(4).id, 200.75, 300.5)
    assert await store.hang_ups.put(hang_up(3), 1.0)
    await other.close()
