"""A call whose connection to LiveKit breaks: it is regained in time, or the call ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from connector.errors import ConnectorError
from connector.model import EndReason

log = structlog.get_logger()

_LOOK_TIMEOUT = 1.0
"""Seconds for a look at whether the room is still there."""

_LEARN_AGAIN = (0.25, 0.5, 1.0, 2.0, 4.0, 0.0)
"""Pauses between looks at which room it is, after an outage: LiveKit's API may be back later than its rooms."""

_STABLE = 10.0
"""Seconds that a regained connection must last for the next loss to be another outage, with all its time."""

STOPPING = "SERVER_SHUTDOWN"
"""LiveKit's reason for the end of a connection when it is being stopped."""
FindRoom = Callable[[], Coroutine[Any, Any, str]]
"""The SID of the room of this name as LiveKit's API has it now, "" when there is none. Raises ConnectorError."""


class Outage:
    """The SDK reconnects by itself, or gives up and the gateway joins again. This class says when it has taken too
    long, and when there is nothing to go back to: a LiveKit that deletes a room may close a connection before it has
    told why, and our token, which opens rooms, would have the caller sit in a new and empty one for ever.

    A LiveKit that has started again looks the same, with all its rooms gone; but then the others come back, too.
    """

    def __init__(
        self,
        limit: float,
        find_room: FindRoom,
        is_alone: Callable[[], bool],
        on_end: Callable[[EndReason, str], None],
        on_regained: Callable[[bool], None],
    ) -> None:
        """`limit`: seconds until the call ends as lost, and that the others have to come back; `is_alone`: whether the
        caller is by itself in the room now; `on_regained`: told whether the room is the same one as before."""
        self._limit = limit
        self._find_room = find_room
        self._is_alone = is_alone
        self._had_company = False
        self._on_end = on_end
        self._on_regained = on_regained
        self.may_be_deleted = False
        """LiveKit was there when the connection broke, and the room was not: somebody may have deleted it."""
        self._sid = ""
        """Of the room that the caller is in, as far as it is known."""
        self._regained = asyncio.Event()
        self._regained_at = self._began = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._alone: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def is_on(self) -> bool:
        return self._timer is not None

    def joined(self, sdk_sid: FindRoom) -> None:
        """The room is joined; `sdk_sid` returns its SID as soon as the SDK knows it."""
        self._ask(self._learn(sdk_sid))

    def company_came(self) -> None:
        """Somebody is there to talk with."""
        self._had_company = True

    def begins(self, why: str = "") -> None:
        if self._timer is not None:
            return
        if self._alone is not None:
            self._alone.cancel()
        loop = asyncio.get_running_loop()
        if loop.time() - self._regained_at > _STABLE:
            self._began = loop.time()
        log.warning("LiveKit connection lost, reconnecting", why=why, limit_seconds=self._limit)
        self._timer = loop.call_at(self._began + self._limit, self._not_regained)
        self._regained.clear()
        self._ask(self._follow(self._sid, is_stopping=why == STOPPING))

    def ends(self) -> None:
        if self._timer is None:
            return
        log.info("LiveKit connection regained")
        self._timer.cancel()
        self._timer = None
        self._regained_at = asyncio.get_running_loop().time()
        self._regained.set()

    async def over(self) -> None:
        """Wait until the outage has ended, either way."""
        if self.is_on:
            await self._regained.wait()

    def close(self) -> None:
        """Nothing is said from now on."""
        self._regained.set()
        for waiting in (self._timer, self._alone, self._asking):
            if waiting is not None:
                waiting.cancel()
        self._timer = self._alone = self._asking = None

    def _ask(self, what: Coroutine[Any, Any, None]) -> None:
        if self._asking is not None:
            self._asking.cancel()
        self._asking = asyncio.create_task(what, name="ask for the room")

    async def _follow(self, sid: str, is_stopping: bool) -> None:
        """One outage of the room that had this SID, from its beginning; the SDK may be back before LiveKit's answer."""
        # A LiveKit that stops may answer for a moment with its rooms gone: nobody has deleted them.
        was_gone = bool(sid) and not is_stopping and await self._is_gone(sid)
        await self._regained.wait()
        self.may_be_deleted = was_gone and self._had_company
        if self.may_be_deleted:
            self._alone = asyncio.get_running_loop().call_later(self._limit, self._nobody_came_back)
        # A LiveKit that has started again has a room of the same name, and another SID for it.
        for pause in _LEARN_AGAIN:
            await self._learn(self._find_room)
            if self._sid:
                break
            await asyncio.sleep(pause)
        # Where LiveKit's API does not say, nothing is known against the room.
        self._on_regained(not sid or not self._sid or sid == self._sid)

    async def _is_gone(self, sid: str) -> bool:
        """Whether the room was not there any more when the connection broke; not where LiveKit cannot say."""
        with contextlib.suppress(ConnectorError, TimeoutError):
            async with asyncio.timeout(_LOOK_TIMEOUT):
                return await self._find_room() != sid
        return False

    async def _learn(self, find: FindRoom) -> None:
        self._sid = ""
        with contextlib.suppress(ConnectorError):
            self._sid = await find()

    def _nobody_came_back(self) -> None:
        if self._is_alone():
            self._on_end(EndReason.ROOM_DELETED, "the room was gone when the connection to LiveKit broke")

    def _not_regained(self) -> None:
        self._on_end(EndReason.LIVEKIT_LOST, f"no connection to LiveKit for {self._limit:g} s")
