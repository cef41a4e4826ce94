"""Real processes race for one store: what may be won once is won by exactly one."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from connector.model import Delivery, EndReason, LifecycleEvent
from connector.storage.base import Store
from tests.contract.racer import LIVE
from tests.contract.test_store_documents import WAITING

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 2
COUNT = 150
PATIENCE = 45.0


async def run_race(address: str, kind: str) -> list[list[int]]:
    """What each process won. They start together, on a store that may have to be made yet."""
    racers = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.contract.racer", address, kind, str(COUNT), str(number)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]
    try:
        async with asyncio.timeout(PATIENCE):
            for racer in racers:
                assert racer.stdout is not None
                assert await racer.stdout.readline() == b"ready\n"
            told = await asyncio.gather(*(racer.communicate(b"go\n") for racer in racers))
    finally:
        for racer in racers:
            with contextlib.suppress(ProcessLookupError):
                racer.kill()
            await racer.wait()
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


async def test_an_end_stands_whoever_saves_last(address: str, store: Store) -> None:
    await run_race(address, "end")
    calls = await store.list_calls(COUNT + 1)
    assert len(calls) == COUNT
    assert {call.end_reason for call in calls} == {EndReason.CARRIER_HANGUP}
    assert await store.end_orphans(LIVE.owner, 1.0) == 0
