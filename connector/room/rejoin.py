"""Joins rooms again after lost connections, with the attempts of all calls of the process spread over time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import structlog

from connector.errors import ResourceExhausted, Unavailable
from connector.room.admission import CallIsOver

log = structlog.get_logger()

SPREAD = 0.5
"""Seconds over which the first attempts of all calls are spread."""
MAX_PAUSE = 2.0
QUIET = 0.5
"""Seconds after a failed attempt in which no call of the process tries: LiveKit is not back yet."""

Turn = Callable[[], AbstractAsyncContextManager[None]]
"""Limits concurrent joins of the process. Raises ResourceExhausted when no turn came in time."""


class _Failures:
    latest = float("-inf")
    """Monotonic time of the latest failed attempt of any call."""


async def until_joined(attempt: Callable[[], Awaitable[None]], turn: Turn) -> None:
    """Repeat `attempt`, which raises Unavailable, until it succeeds; the caller limits the time. Raises CallIsOver when
    the call has ended meanwhile; that is no failure of LiveKit, so it does not delay other calls."""
    pause = SPREAD
    await asyncio.sleep(random.uniform(0, SPREAD))
    while True:
        if time.monotonic() - _Failures.latest >= QUIET:
            try:
                async with turn():
                    await attempt()
                return
            except CallIsOver:
                raise
            except (ResourceExhausted, Unavailable) as error:
                _Failures.latest = time.monotonic()
                log.debug("LiveKit cannot be joined again yet", error=error.message)
        await asyncio.sleep(pause * random.uniform(0.5, 1.0))
        pause = min(MAX_PAUSE, 1.5 * pause)
