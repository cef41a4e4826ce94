"""Response time of the REST API's call list with many stored calls, and the stalls that it causes in the event loop,
which also carries audio."""

from __future__ import annotations

import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from connector.api.rest.call_operations import CallQuery, CallRest, Control, ResumeUrls
from connector.api.rest.models import Asked
from connector.model.call import CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.storage.sqlite import SqliteStore

RECORDS = 20_000
PER_PAGE = 20
QUERIES: dict[str, dict[str, str]] = {
    "the first page": {},
    "the last page": {"page": str(RECORDS // PER_PAGE)},
    "?id=": {"id": "call_00777"},
    "?search=": {"search": "0000777"},
    "?roomId=": {"roomId": "room-7"},
    "?type=": {"type": "inbound"},
}
TICK = 0.001
"""Seconds of each repeated sleep in the event loop; any longer sleep is a stall."""
ENDED = CallRecord(
    call_id="call",
    provider=Provider.TWILIO,
    direction=Direction.INBOUND,
    room="room",
    identity="caller",
    state=CallState.ENDED,
    owner="bench",
    created_at=1.0,
    to_number="+15551234567",
    end_reason=EndReason.CARRIER_HANGUP,
    timelog=(("call-started", 1.0), ("call-answered", 2.0), ("call-hangup", 3.0)),
)


@dataclass(slots=True)
class Lists:
    """Results, in seconds."""

    pages: dict[str, list[float]] = field(default_factory=dict)
    stalls: list[float] = field(default_factory=list)
    """The longest stall in each round of requests."""
    plain_stalls: list[float] = field(default_factory=list)
    """The longest stall in the same time without requests."""


async def lists(rounds: int) -> Lists:
    """Requests every page `rounds` times."""
    result = Lists()
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "connector.db")
        await store.open()
        try:
            await _fill(store)
            # The process has no active call, so all calls come from the store; lists have no resume URLs.
            rest = CallRest(cast(Control, _NoCalls()), store, cast(ResumeUrls, None))
            for _ in range(rounds):
                await _round(rest, result)
        finally:
            await store.close()
    return result


async def _fill(store: SqliteStore) -> None:
    for first in range(0, RECORDS, 1000):
        await asyncio.gather(*(store.save_call(_record(number)) for number in range(first, first + 1000)))


def _record(number: int) -> CallRecord:
    return replace(
        ENDED,
        call_id=f"call_{number:05}",
        created_at=1000.0 + number,
        room=f"room-{number % 97}",
        from_number=f"+1555{number:07}",
        direction=Direction.INBOUND if number % 2 else Direction.OUTBOUND,
    )


async def _round(rest: CallRest, result: Lists) -> None:
    async with _stalls(result.stalls):
        began = time.perf_counter()
        for name, query in QUERIES.items():
            started = time.perf_counter()
            answer = await rest.find(Asked({}, None, CallQuery.model_validate(query)))
            answer.model_dump_json(by_alias=True)
            result.pages.setdefault(name, []).append(time.perf_counter() - started)
        lasted = time.perf_counter() - began
    async with _stalls(result.plain_stalls):
        await asyncio.sleep(lasted)


@contextlib.asynccontextmanager
async def _stalls(into: list[float]) -> AsyncIterator[None]:
    longest = 0.0

    async def tick() -> None:
        nonlocal longest
        while True:
            started = time.perf_counter()
            await asyncio.sleep(TICK)
            longest = max(longest, time.perf_counter() - started - TICK)

    ticking = asyncio.create_task(tick())
    await asyncio.sleep(2 * TICK)
    try:
        yield
    finally:
        await asyncio.sleep(2 * TICK)
        ticking.cancel()
        await asyncio.wait([ticking])
    into.append(longest)


class _NoCalls:
    def freshest(self, record: CallRecord) -> CallRecord:
        return record
