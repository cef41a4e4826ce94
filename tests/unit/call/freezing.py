"""`kill -9` for a process that is played in the event loop of the test."""

from __future__ import annotations

import asyncio

from connector.call.session.call_session import CallSession
from tests.unit.call.fakes import World


async def freeze(world: World, call: CallSession, carrying: asyncio.Task[None]) -> None:
    """What is left of a process after `kill -9`, in the same event loop: nothing of it runs any more."""
    world.manager.held._calls.clear()
    line, call.streams.current = call.streams.current, None
    assert line is not None
    line.stop()
    call.watch.stop()
    call.wait.stop()
    call._life.stop_timers()
    tasks = [*call._life.tasks, *call.watch.tasks, call._supervisor, carrying]
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
