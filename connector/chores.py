"""Periodic work of a process, and work on a queue in the store. A failure is logged, and the repetition continues."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from contextvars import Context

import structlog

from connector.errors import ConnectorError

log = structlog.get_logger()

REMIND_EVERY = 60.0
"""Minimum interval in seconds between log lines about the same repeated failure."""
STORE_PATIENCE = 2.0
"""Seconds until a queue is read again after the store has failed."""


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


class DueWork:
    """Does the work of a queue in the store: when it is due, or as soon as somebody calls `wake`."""

    def __init__(self, what: str, work: Callable[[], Awaitable[float]]) -> None:
        """`what` names the entries of the queue, for the log. `work` starts the due entries, and returns the seconds
        until its next run, unless it is woken before."""
        self._what = what
        self._work = work
        self._woken = asyncio.Event()
        self._running: asyncio.Task[None] | None = None
        self.is_stopping = False

    def start(self) -> None:
        # Runs in an empty context, because it logs about many calls.
        self._running = asyncio.create_task(self._run(), name=f"queue of {self._what}", context=Context())

    def wake(self) -> None:
        self._woken.set()

    async def stop(self) -> None:
        """Start no more work, and wait until `work` has returned."""
        self.is_stopping = True
        self.wake()
        if self._running is not None:
            await asyncio.wait([self._running])

    async def _run(self) -> None:
        while not self.is_stopping:
            self._woken.clear()
            try:
                wait = await self._work()
            except ConnectorError as error:
                log.warning(f"{self._what} wait for the store", error=error.message)
                wait = STORE_PATIENCE
            except Exception:
                log.exception(f"{self._what} could not be read from the store")
                wait = STORE_PATIENCE
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._woken.wait()


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
