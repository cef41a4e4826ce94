"""One of the processes that race for a store: `python -m tests.contract.racer`, one race after the other.

For each race it reads its arguments as a line of JSON, says `ready`, waits for a line, opens the store, races, and
prints what it won as JSON. It exits at the end of its input."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace

from connector.model.call import CallRecord, CallRequest, CallState, Direction, ParticipantSpec, WaitingCall
from connector.model.connector import ConnectorEntry
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.rule import RoutingRule, RuleType
from connector.model.webhook import Delivery, LifecycleEvent
from connector.storage.base import DEFAULT_PREFIX, NameTaken, Store
from connector.storage.stores import store_at
from connector.storage.vault import Vault

TASKS = 8
"""At once in each process: tasks of one process race as well."""
LIVE = CallRecord("call", Provider.TWILIO, Direction.INBOUND, "room", "caller", CallState.ACTIVE, "here", 1000.0)

RULE = RoutingRule("rule", "Rule", RuleType.INBOUND, 1.0, 1.0)
WAITING = WaitingCall(
    "call", CallRequest("call", Provider.PLIVO, Direction.INBOUND, "room", ParticipantSpec("caller")), "here", 1.0, 2.0
)


def store_from(address: str) -> Store:
    """Behind a `#` the beginning of every key in Redis; a store seals what is secret, as the service's does."""
    url, _, prefix = address.partition("#")
    return store_at(url, Vault("the secret of the tests"), prefix or DEFAULT_PREFIX)


async def claim(store: Store, _: int, item: int) -> bool:
    return await store.waiting.delete(f"call_{item}")


async def name(store: Store, number: int, item: int) -> bool:
    entry = ConnectorEntry(f"cn_{item}_{number}", Provider.TWILIO, f"hash-{item}", "nonce", 1.0)
    try:
        await store.connectors.insert(entry)
    except NameTaken:
        return False
    return True


async def rotate(store: Store, number: int, item: int) -> bool:
    """Everybody wants to give another document of their own the same name."""
    entry = ConnectorEntry(f"cn_{item}_{number}", Provider.TWILIO, f"own-{item}-{number}", "nonce", 1.0)
    await store.connectors.insert(entry)
    try:
        return await store.connectors.replace(replace(entry, key_hash=f"hash-{item}"))
    except NameTaken:
        return False


async def end(store: Store, number: int, item: int) -> bool:
    """The first process ends each call, the others still save it as live: it must have ended after that."""
    record = replace(LIVE, call_id=f"call_{item}")
    if number == 0:
        record = replace(record, state=CallState.ENDED, end_reason=EndReason.CARRIER_HANGUP)
    await store.save_call(record)
    return number == 0


async def end_once(store: Store, number: int, item: int) -> bool:
    """Every process ends each call in its own way."""
    reason = list(EndReason)[number]
    record = replace(LIVE, call_id=f"call_{item}", state=CallState.ENDED, end_reason=reason, end_id=f"{item} {number}")
    return await store.end_call(record)


async def take(store: Store, _: int, item: int) -> bool:
    return await store.waiting.take(f"call_{item}") is not None


async def change(store: Store, number: int, item: int) -> bool:
    """Several want to make one call active."""
    record = await store.get_call(f"call_{item}")
    assert record is not None
    if record.started_at:
        return False
    return await store.change_call(record, replace(record, started_at=1.0 + number))


async def edit(store: Store, number: int, item: int) -> bool:
    """Each process adds its own word to each rule; what comes too late reads again."""
    while True:
        rule = await store.rules.get(f"rule_{item}")
        assert rule is not None
        if await store.rules.replace(replace(rule, tags=(*rule.tags, str(number))), rule):
            return rule.tags == ()


RACES: dict[str, Callable[[Store, int, int], Awaitable[bool]]] = {
    "claim": claim,
    "name": name,
    "rotate": rotate,
    "end": end,
    "end once": end_once,
    "take": take,
    "change": change,
    "edit": edit,
}


async def race(store: Store, kind: str, count: int, number: int) -> list[int]:
    items = random.sample(range(count), count)
    won: list[int] = []

    async def work() -> None:
        while items:
            item = items.pop()
            if await RACES[kind](store, number, item):
                won.append(item)

    await asyncio.gather(*(work() for _ in range(TASKS)))
    return won


async def lease(store: Store, count: int) -> list[int]:
    """Take until nothing is left. Nothing is settled, so each can be had once."""
    won: list[int] = []
    while some := await store.deliveries.take(100.0, 1e9, 1 + count // 50):
        won += [int(one.id.removeprefix("d")) for one in some]
    return won


async def write(store: Store) -> None:
    """Say each one that is kept, until it is killed."""
    for number in range(100_000):
        await store.waiting.insert(replace(WAITING, id=f"call_{number}"))
        await store.deliveries.put([Delivery(f"d{number}", "wh", "call", LifecycleEvent.STARTED, "{}", 1.0, 1.0)])
        print(number, flush=True)


async def run(address: str, kind: str, count: int, number: int) -> None:
    store = store_from(address)
    await store.open()
    if kind == "write":
        await write(store)
    else:
        won = await lease(store, count) if kind == "lease" else await race(store, kind, count, number)
        print(json.dumps(won), flush=True)
    await store.close()


if __name__ == "__main__":
    for line in sys.stdin:
        arguments = json.loads(line)
        print("ready", flush=True)
        sys.stdin.readline()
        asyncio.run(run(*arguments))
