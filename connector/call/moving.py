"""A caller on its way from one room to another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from connector.call.ledger import Ledger
from connector.call.presence import Presence
from connector.errors import FailedPrecondition
from connector.model import AgentDispatch

log = structlog.get_logger()


class Moves:
    """Of one call, one at a time."""

    def __init__(self, ledger: Ledger, presence: Presence) -> None:
        self._ledger = ledger
        self._presence = presence
        self.task: asyncio.Task[None] | None = None

    async def to(self, room: str, agents: Sequence[AgentDispatch]) -> None:
        """See `CallSession.switch_room`."""
        if self.task is not None:
            raise FailedPrecondition("the call is being moved to another room already")
        if room == self._ledger.record.room:
            return
        # A task of its own, so that neither a client that goes away nor the end of the call leaves it half done.
        moving = self.task = asyncio.create_task(self._move(room, agents), name=f"move {self._ledger.record.call_id}")
        moving.add_done_callback(self._on_moved)
        await asyncio.wait([moving])
        if moving.cancelled():
            raise FailedPrecondition("the call ended while it was moved")
        moving.result()

    async def _move(self, room: str, agents: Sequence[AgentDispatch]) -> None:
        started = time.monotonic()
        await self._presence.move(room, agents)
        log.info("call moved", room=room, milliseconds=round((time.monotonic() - started) * 1000))
        await self._ledger.save()

    def _on_moved(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the call stays in its room", error=str(error))
