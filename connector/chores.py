"""Periodic work of a process. A failure is logged, and the repetition continues."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import structlog

from connector.errors import ConnectorError

log = structlog.get_logger()

REMIND_EVERY = 60.0
"""Minimum interval in seconds between log lines about the same repeated failure."""


class Chore:
    """One periodic task. Expected failures are logged as one line, others with a traceback. A repeated failure is
    logged once in REMIND_EVERY seconds."""

    def __init__(self, name: str, work: Callable[[], Awaitable[object]]) -> None:
        self.name = name
        self._work = work
        self._said = ""
        self._said_at = 0.0

    async def repeat(self, every: float, first: float = 0.0) -> None:
        """Runs the work after `first` seconds, then `every` seconds after each end, until cancelled."""
        await asyncio.sleep(first)
        while True:
            await self.once()
            if _is_cancelled():
                # The work replaced CancelledError by another error, as store clients do when a connection breaks.
                raise asyncio.CancelledError
            await asyncio.sleep(every)

    async def once(self) -> bool:
        """Runs the work once; returns whether it succeeded. Raises only CancelledError, if this task is cancelled."""
        try:
            await self._work()
        except (ConnectorError, TimeoutError) as error:
            self._complain(str(error) or "no answer in time")
        except asyncio.CancelledError:
            if _is_cancelled():
                raise
            log.exception("periodic task cancelled by its own code", chore=self.name)
        except Exception:
            log.exception("periodic task failed", chore=self.name)
        else:
            if self._said:
                log.info("periodic task works again", chore=self.name)
                self._said = ""
            return True
        return False

    def _complain(self, error: str) -> None:
        if error == self._said and time.monotonic() < self._said_at + REMIND_EVERY:
            return
        self._said, self._said_at = error, time.monotonic()
        log.warning("periodic task failed", chore=self.name, error=error)


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
