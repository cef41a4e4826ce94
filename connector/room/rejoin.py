"""Joining again after LiveKit has given a connection up: many calls of a process at once, spread over time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from weakref import WeakKeyDictionary

import structlog

from connector.errors import Unavailable

log = structlog.get_logger()

SPREAD = 0.5
"""Seconds over which the first attempts of all calls are spread."""
MAX_PAUSE = 2.0
AT_ONCE = 8
"""Joins of one process at a time: more choke each other."""
GIVEN_UP_FOR = 0.5
"""Seconds after a failed attempt of one call in which no other call tries: LiveKit is not there yet."""


class _Turns:
    def __init__(self) -> None:
        self.slots = asyncio.Semaphore(AT_ONCE)
        self.failed_at = float("-inf")


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, _Turns] = WeakKeyDictionary()


async def until_joined(attempt: Callable[[], Awaitable[None]]) -> None:
    """Repeat `attempt`, which raises Unavailable, until it succeeds; the caller bounds the time."""
    turns = _turns.setdefault(asyncio.get_running_loop(), _Turns())
    pause = SPREAD
    await asyncio.sleep(random.uniform(0, SPREAD))
    while True:
        async with turns.slots:
            if time.monotonic() - turns.failed_at >= GIVEN_UP_FOR:
                try:
                    await attempt()
                    return
                except Unavailable as error:
                    turns.failed_at = time.monotonic()
                    log.debug("LiveKit cannot be joined again yet", error=error.message)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(MAX_PAUSE, 1.5 * pause)
