"""Real processes race for one store: what may be won once is won by exactly one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from connector.model.end_reason import EndReason
from connector.model.webhook import Delivery, LifecycleEvent
from connector.storage.base import Store
from tests.contract.racer import LIVE, RULE, WAITING

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 2
COUNT = 150
PATIENCE = 45.0


@contextlib.asynccontextmanager
async def racers_for(address: str, kind: str, count: int) -> AsyncIterator[list[asyncio.subprocess.Process]]:
    """Processes that are ready to start; none is left after it."""
    racers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.contract.racer", address, kind, str(COUNT), str(number)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(count)
    ]
    try:
        async with asyncio.timeout(PATIENCE):
            for racer in racers:
                assert racer.stdout is not None
                assert await racer.stdout.readline() == b"ready\n"
            yield racers
    finally:
        for racer in racers:
            with contextlib.suppress(ProcessLookupError):
                racer.kill()
            await racer.wait()


async def run_race(address: str, kind: str) -> list[list[int]]:
    """What each process won. They start together, on a store that may have to be made yet."""
    async with racers_for(address, kind, PROCESSES) as racers:
        told = await asyncio.gather(*(racer.communicate(b"go\n") for racer in racers))
    assert [racer.returncode for racer in racers] == [0] * PROCESSES
    return [json.loads(out) for out, _ in told]


def assert_each_was_won_once(won: list[list[int]]) -> None:
    assert sorted(item for some in won for item in some) == list(range(COUNT))


async def test_a_claim_is_won_by_one_process(address: str, store: Store) -> None:
    for number in range(COUNT):
        await store.waiting.insert(replace(WAITING, id=f"call_{number}"))
    assert_each_was_won_once(await run_race(address, "claim"))
    assert await store.waiting.list() == []


@pytest.mark.parametrize("kind", ["name", "rotate"])
async def test_a_name_is_had_by_one_process_also_in_a_store_that_both_make(
    address: str, make: Callable[[], Store], kind: str
) -> None:
    won = await run_race(address, kind)
    assert_each_was_won_once(won)
    store = make()
    await store.open()
    owner = {item: number for number, items in enumerate(won) for item in items}
    for item in range(COUNT):
        entry = await store.connectors.find(f"key:hash-{item}")
        assert entry is not None
        assert entry.id == f"cn_{item}_{owner[item]}"
    await store.close()


async def test_a_delivery_is_leased_by_one_process(address: str, store: Store) -> None:
    await store.deliveries.put(
        [
            Delivery(f"d{number}", f"wh_{number % 3}", f"call_{number}", LifecycleEvent.STARTED, "{}", 1.0, 1.0)
            for number in range(COUNT)
        ]
    )
    assert_each_was_won_once(await run_race(address, "lease"))
    assert await store.deliveries.pending() == COUNT
    assert await store.deliveries.next_due() == 1e9


async def test_a_waiting_call_is_taken_by_one_process(address: str, store: Store) -> None:
    for number in range(COUNT):
        await store.waiting.insert(replace(WAITING, id=f"call_{number}"))
    assert_each_was_won_once(await run_race(address, "take"))
    assert await store.waiting.list() == []


async def test_a_call_is_ended_by_one_process(address: str, store: Store) -> None:
    """Half of them were saved before, as live."""
    for number in range(0, COUNT, 2):
        await store.save_call(replace(LIVE, call_id=f"call_{number}"))
    won = await run_race(address, "end once")
    assert_each_was_won_once(won)
    for number, items in enumerate(won):
        for item in items:
            record = await store.get_call(f"call_{item}")
            assert record is not None
            assert (record.end_reason, record.end_id) == (list(EndReason)[number], f"{item} {number}")


async def test_a_change_of_a_call_is_made_by_one_process(address: str, store: Store) -> None:
    for number in range(COUNT):
        await store.save_call(replace(LIVE, call_id=f"call_{number}"))
    assert_each_was_won_once(await run_race(address, "change"))


async def test_edits_of_two_processes_are_both_kept(address: str, store: Store) -> None:
    for number in range(COUNT):
        await store.rules.insert(replace(RULE, id=f"rule_{number}"))
    assert_each_was_won_once(await run_race(address, "edit"))
    assert {tuple(sorted(rule.tags)) for rule in await store.rules.list()} == {("0", "1")}


async def test_an_end_stands_whoever_saves_last(address: str, store: Store) -> None:
    await run_race(address, "end")
    calls = await store.list_calls(COUNT + 1)
    assert len(calls) == COUNT
    assert {call.end_reason for call in calls} == {EndReason.CARRIER_HANGUP}
    assert await store.forget_before(1e12) == COUNT, "none is still counted among the open ones"


async def test_what_a_killed_process_was_told_is_kept_is_kept(address: str, make: Callable[[], Store]) -> None:
    async with racers_for(address, "write", 1) as (writer,):
        assert writer.stdin is not None
        assert writer.stdout is not None
        writer.stdin.write(b"go\n")
        lines = [await writer.stdout.readline() for _ in range(40)]
        writer.kill()
        lines += (await writer.stdout.read()).splitlines()
    told = [int(line) for line in lines]
    store = make()
    await store.open()
    assert {call.id for call in await store.waiting.list()} >= {f"call_{number}" for number in told}
    assert await store.deliveries.pending() in (len(told), len(told) + 1)
    (first,) = await store.deliveries.take(2.0, 3.0, 5)
    assert first.id == "d0"
    await store.waiting.insert(replace(WAITING, id="after"))
    await store.close()
