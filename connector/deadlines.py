"""The deadline of a client's request: the transports set it, and a request to another process passes it on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from connector.errors import DeadlineExceeded

_ends: ContextVar[float | None] = ContextVar("deadline", default=None)
"""`time.monotonic()` of the deadline; None: the client has none."""


@asynccontextmanager
async def deadline(seconds: float | None) -> AsyncIterator[None]:
    """Cancels the block after so many seconds, like the departure of its client, and raises DeadlineExceeded. None: no
    deadline."""
    if seconds is None:
        yield
        return
    token = _ends.set(time.monotonic() + seconds)
    try:
        async with asyncio.timeout(seconds) as limit:
            yield
    except TimeoutError:
        if not limit.expired():
            raise
        raise DeadlineExceeded("the request was not finished before its deadline") from None
    finally:
        _ends.reset(token)


def remaining() -> float | None:
    """Seconds until the deadline of the current request, at least 0; None without one."""
    ends = _ends.get()
    return None if ends is None else max(0.0, ends - time.monotonic())
