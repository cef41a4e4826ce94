"""Work that a process repeats for as long as it lives: what goes wrong once is logged, and it goes on."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from connector.errors import ConnectorError

log = structlog.get_logger()

REMIND_EVERY = 60.0
"""Seconds after which a chore that fails again and again for the same reason says so once more."""


class Chore:
    """One piece of work. Its failures are logged: the foreseen ones as a line, the others with their traceback; one
    that only repeats itself now and then."""

    def __init__(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        self.name = name
        self._work = work
        self._said = ""
        self._said_at = 0.0

    async def repeat(self, every: float, first: float = 0.0) -> None:
        """Do it after `first` seconds, and `every` seconds after it was done, until cancelled."""
        await asyncio.sleep(first)
        while True:
            await self.once()
            if _is_cancelled():
                # What was asked has made another error of it, as clients of stores do when a connection breaks.
                raise asyncio.CancelledError
            await asyncio.sleep(every)

    async def once(self) -> bool:
        """Do it; whether it went well. Raises CancelledError alone, when this task is cancelled."""
        try:
            await self._work()
        except (ConnectorError, TimeoutError) as error:
            self._complain(str(error) or "no answer in time")
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            log.exception("a chore was cancelled by its own code", chore=self.name)
        except Exception:
            log.exception("a chore failed", chore=self.name)
        else:
            if self._said:
                log.info("a chore works again", chore=self.name)
                self._said = ""
            return True
        return False

    def _complain(self, error: str) -> None:
        if error == self._said and time.monotonic() < self._said_at + REMIND_EVERY:
            return
        self._said, self._said_at = error, time.monotonic()
        log.warning("a chore failed", chore=self.name, error=error)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
