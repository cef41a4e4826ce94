"""Tasks that run beside whoever starts them: kept until they are done, told of when they break, never left behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextvars import Context
from typing import Any, TypeVar

import structlog

log = structlog.get_logger()

T = TypeVar("T")


class BackgroundTasks:
    """asyncio keeps only weak references to its tasks, and tells of an exception nobody asked for when the task is
    collected: so whoever starts a task without awaiting it starts it here."""

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
        """`on_done` is called when the task is over, however it ended. `awaited`: the caller awaits the task and sees
        its exception, which is not logged then."""
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
        """Until those that run now are over."""
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def close(self, patience: float = 0.0) -> None:
        """Give them so many seconds, cancel what is left, and wait until that is over."""
        if self._tasks and patience > 0:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in self._tasks:
            task.cancel()
        await self.wait()
