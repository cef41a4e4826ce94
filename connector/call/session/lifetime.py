"""The lifetime of one call: its one end, and the tasks and timers that stop with it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import structlog

from connector.call.dependencies import CLOSE_CODES, CLOSE_NORMAL, End
from connector.model.end_reason import EndReason

log = structlog.get_logger()


class Lifetime:
    """A call ends once. Any part that notices the end calls `end(reason)`; the first reason is kept, and the call's
    supervisor, which waits in `until_end`, runs the teardown."""

    def __init__(self, call_id: str) -> None:
        self._call_id = call_id
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[End] = self._loop.create_future()
        self.finished = asyncio.Event()
        """Set when all resources of the call are released."""
        self.tasks: list[asyncio.Task[None]] = []
        self._timers: list[asyncio.TimerHandle] = []

    def end(self, reason: EndReason, detail: str = "", close_code: int | None = None, say: str = "") -> None:
        """See `CallSession.end`."""
        if not self._ended.done():
            self._ended.set_result(End(reason, detail, close_code or CLOSE_CODES.get(reason, CLOSE_NORMAL), say))

    def taken_over(self) -> None:
        """End the call here: another process has it."""
        self.end(EndReason.INTERRUPTED, "another process has claimed the call")

    @property
    def is_ending(self) -> bool:
        return self._ended.done()

    @property
    def ended(self) -> End | None:
        """The first end that was requested."""
        return self._ended.result() if self._ended.done() else None

    async def until_end(self) -> End:
        return await self._ended

    async def until_finished(self, seconds: float) -> None:
        """Wait until all resources are released, at most so many seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.finished.wait()

    def begin(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task of the call. If one of these tasks fails, the whole call ends."""
        task = asyncio.create_task(work, name=f"{what} {self._call_id}")
        task.add_done_callback(self._on_task_done)
        self.tasks.append(task)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the call failed with an unexpected error", task=task.get_name(), exc_info=error)
            self.end(EndReason.INTERNAL_ERROR, repr(error))

    def end_in(self, seconds: float, reason: EndReason) -> None:
        """End the call after so many seconds."""
        self._timers.append(self._loop.call_later(seconds, self.end, reason))

    def stop_timers(self) -> None:
        for timer in self._timers:
            timer.cancel()
