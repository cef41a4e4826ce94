"""Real processes race for one store: what may be won once is won by exactly one."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
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
RunRace = Callable[[str], Awaitable[list[list[int]]]]


class Racer:
    """One process (tests/contract/racer.py), which runs one race after the other."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.contract.racer"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    async def line(self) -> str:
        """The next that it prints; empty when it is gone. Killed when it prints nothing."""
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(PATIENCE):
                return await asyncio.to_thread(self.process.stdout.readline)
        except BaseException:
            self.process.kill()
            raise

    async def prepare(self, address: str, kind: str, number: int) -> None:
        self.say(json.dumps([address, kind, COUNT, number]))
        assert await self.line() == "ready\n"

    def kill(self) -> None:
        self.process.kill()
        self.close()

    def close(self) -> int:
        """Its return code."""
        with self.process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                return process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise


@pytest.fixture(scope="module")
def racers() -> Iterator[list[Racer]]:
    """The same processes for all races: most of a short race's time is a process's start."""
    racers = [Racer() for _ in range(PROCESSES)]
    yield racers
    assert [racer.close() for racer in racers] == [0] * PROCESSES


@pytest.fixture
def run_race(racers: list[Racer], address: str) -> RunRace:
    """What each process won. They start together, on a store that may have to be made yet."""

    async def run(kind: str) -> list[list[int]]:
        try:
            for number, racer in enumerate(racers):
                await racer.prepare(address, kind, number)
            for racer in racers:
                racer.say("go")
            return [json.loads(line) for line in await asyncio.gather(*(racer.line() for racer in racers))]
        except BaseException:
            # They are in the middle of something: the next race has new ones.
            for number, racer in enumerate(racers):
                racer.kill()
                racers[number] = Racer()
            raise

    return run


def assert_each_was_won_once(won: list[list[int]]) -> None:
    assert sorted(item for some in won for item in some) == list(range(COUNT))


async def test_a_claim_is_won_by_one_process(run_race: RunRace, store: Store) -> None:
    for number in range(COUNT):
        await store.waiting.insert(replace(WAITING, id=f"call_{number}"))
    assert_each_was_won_once(await run_race("claim"))
    assert await store.waiting.list() == []


@pytest.mark.parametrize("kind", ["name", "rotate"])
async def test_a_name_is_had_by_one_process_also_in_a_store_that_both_make(
    run_race: RunRace, make: Callable[[], Store], kind: str
) -> None:
    won = await run_race(kind)
    assert_each_was_won_once(won)
    store = make()
    await store.open()
    owner = {item: number for number, items in enumerate(won) for item in items}
    for item in range(COUNT):
        entry = await store.connectors.find(f"key:hash-{item}")
        assert entry is not None
        assert entry.id == f"cn_{item}_{owner[item]}"
    await store.close()


async def test_a_delivery_is_leased_by_one_process(run_race: RunRace, store: Store) -> None:
    await store.deliveries.put(
        [
            Delivery(f"d{number}", f"wh_{number % 3}", f"call_{number}", LifecycleEvent.STARTED, "{}", 1.0, 1.0)
            for number in range(COUNT)
        ]
    )
    assert_each_was_won_once(await run_race("lease"))
    assert await store.deliveries.pending() == COUNT
    assert await store.deliveries.next_due() == 1e9


async def test_a_waiting_call_is_taken_by_one_process(run_race: RunRace, store: Store) -> None:
    for number in range(COUNT):
        await store.waiting.insert(replace(WAITING, id=f"call_{number}"))
    assert_each_was_won_once(await run_race("take"))
    assert await store.waiting.list() == []


async def test_a_call_is_ended_by_one_process(run_race: RunRace, store: Store) -> None:
    """Half of them were saved before, as live."""
    for number in range(0, COUNT, 2):
        await store.save_call(replace(LIVE, call_id=f"call_{number}"))
    won = await run_race("end once")
    assert_each_was_won_once(won)
    for number, items in enumerate(won):
        for item in items:
            record = await store.get_call(f"call_{item}")
            assert record is not None
            assert (record.end_reason, record.end_id) == (list(EndReason)[number], f"{item} {number}")


async def test_a_change_of_a_call_is_made_by_one_process(run_race: RunRace, store: Store) -> None:
    for number in range(COUNT):
        await store.save_call(replace(LIVE, call_id=f"call_{number}"))
    assert_each_was_won_once(await run_race("change"))


async def test_edits_of_two_processes_are_both_kept(run_race: RunRace, store: Store) -> None:
    for number in range(COUNT):
        await store.rules.insert(replace(RULE, id=f"rule_{number}"))
    assert_each_was_won_once(await run_race("edit"))
    assert {tuple(sorted(rule.tags)) for rule in await store.rules.list()} == {("0", "1")}


async def test_an_end_stands_whoever_saves_last(run_race: RunRace, store: Store) -> None:
    await run_race("end")
    calls = await store.list_calls(COUNT + 1)
    assert len(calls) == COUNT
    assert {call.end_reason for call in calls} == {EndReason.CARRIER_HANGUP}
    assert await store.forget_before(1e12) == COUNT, "none is still counted among the open ones"


async def test_what_a_killed_process_was_told_is_kept_is_kept(address: str, make: Callable[[], Store]) -> None:
    writer = Racer()
    try:
        await writer.prepare(address, "write", 0)
        writer.say("go")
        lines = [await writer.line() for _ in range(40)]
    finally:
        writer.process.kill()
    while line := await writer.line():
        lines.append(line)
    writer.close()
    told = [int(line) for line in lines]
    store = make()
    await store.open()
    assert {call.id for call in await store.waiting.list()} >= {f"call_{number}" for number in told}
    assert await store.deliveries.pending() in (len(told), len(told) + 1)
    (first,) = await store.deliveries.take(2.0, 3.0, 5)
    assert first.id == "d0"
    await store.waiting.insert(replace(WAITING, id="after"))
    await store.close()
