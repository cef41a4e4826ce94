"""Background tasks: kept referenced until they end, logged when they fail, and cancelled at shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")


class BackgroundTasks:
    """Owner of tasks that are started without being awaited. asyncio keeps only weak references to tasks, and reports
    an unretrieved exception only when the task is garbage-collected."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[Any]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[asyncio.Task[Any]]:
        return iter(tuple(self._tasks))

    def start(
        self,
        work: Coroutine[Any, Any, T],
        name: str,
        on_done: Callable[[], object] | None = None,
        *,
        context: Context | None = None,
        awaited: bool = False,
    ) -> asyncio.Task[T]:
        """Starts a task. `on_done` is called when the task has ended, with or without an error. `awaited`: the caller
        awaits the task and gets its exception, so the exception is not logged."""
        task = asyncio.create_task(work, name=name, context=context)
        self._tasks.add(task)

        def done(_: object) -> None:
            self._tasks.discard(task)
            if not awaited and not task.cancelled() and (error := task.exception()) is not None:
                log.error("a task failed with an unexpected error", task=name, exc_info=error)
            if on_done is not None:
                on_done()

        task.add_done_callback(done)
        return task

    async def wait(self) -> None:
        """Waits until the tasks that are running now have ended."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, patience: float = 0.0) -> None:
        """Waits `patience` seconds, cancels the remaining tasks and waits until they have ended."""
        if self._tasks and patience > 0:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in self._tasks:
            task.cancel()
        await self.wait()
