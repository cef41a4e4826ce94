"""Moves a caller from one room to another."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import structlog

from connector.call.record.call_recorder import CallRecorder
from connector.call.session.presence import Presence
from connector.call.session.waiting_entry import STORE_PATIENCE
from connector.errors import FailedPrecondition
from connector.model.call import AgentDispatch
from connector.storage.base import StoreError

log = structlog.get_logger()

SAVE_AGAIN = 1.0
"""Seconds between two attempts to save the caller's new room."""


class Moves:
    """The moves of one call, one at a time."""

    def __init__(self, recorder: CallRecorder, presence: Presence) -> None:
        self._recorder = recorder
        self._presence = presence
        self.task: asyncio.Task[None] | None = None
        self.saving: asyncio.Task[None] | None = None
        """`task` and `saving` must be cancelled at the end of the call."""

    async def to(self, room: str, agents: Sequence[AgentDispatch]) -> None:
        """See `CallSession.switch_room`."""
        if self.task is not None:
            raise FailedPrecondition("the call is being moved to another room already")
        if room == self._recorder.record.room:
            return
        # Runs as a task so that the move is never left half done, neither if the client disconnects nor if the call
        # ends.
        moving = self.task = asyncio.create_task(self._move(room, agents), name=f"move {self._recorder.record.call_id}")
        moving.add_done_callback(self._on_moved)
        await asyncio.wait([moving])
        if moving.cancelled():
            raise FailedPrecondition("the call ended while it was moved")
        moving.result()

    async def over(self) -> None:
        """Wait until no move is running."""
        if self.task is not None:
            await asyncio.wait([self.task])

    async def _move(self, room: str, agents: Sequence[AgentDispatch]) -> None:
        started = time.monotonic()
        # If this process loses its store, other processes check whether its callers are still in the rooms of their
        # records, and otherwise take it for dead. So a caller must not move without the store.
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                await self._recorder.write()
        except TimeoutError as error:
            raise StoreError("the store does not answer, so the new room cannot be recorded") from error
        await self._presence.move(room, agents)
        log.info("call moved", room=room, milliseconds=round((time.monotonic() - started) * 1000))
        if not await self._recorder.save():
            self.saving = asyncio.create_task(self._until_saved(), name=f"save {self._recorder.record.call_id}")

    async def _until_saved(self) -> None:
        """Retry to save the record: the store failed during the move."""
        while True:
            await asyncio.sleep(SAVE_AGAIN)
            if await self._recorder.save():
                return

    def _on_moved(self, task: asyncio.Task[None]) -> None:
        self.task = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("room switch failed: the call stays in its room", error=str(error))
