"""Supervises a lost connection to LiveKit: it comes back within a time limit, or the call ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

from connector.errors import ConnectorError
from connector.model.end_reason import EndReason

log = structlog.get_logger()

_LOOK_TIMEOUT = 1.0
"""Seconds for the request that checks whether the room still exists."""

_LEARN_AGAIN = (0.25, 0.5, 1.0, 2.0, 4.0, 0.0)
"""Seconds between requests for the room's SID after an outage: LiveKit's API may be back later than its rooms."""

_STABLE = 10.0
"""Seconds that a regained connection must last. A loss after that is a new outage, with the full time limit."""

STOPPING = "SERVER_SHUTDOWN"
"""LiveKit's disconnect reason when the server shuts down."""
FindRoom = Callable[[], Coroutine[Any, Any, str]]
"""Returns the SID that the room of this name has now, "" when there is no such room. Raises ConnectorError."""


class Outage:
    """Decides when a lost connection ends the call. It does not reconnect: the SDK does, or gives up, and then the
    gateway joins again.

    The call ends in two cases. The first: the connection is not back in time. The second: the room was deleted.
    LiveKit may close the connection of a deleted room without giving the reason. The rejoin would then create a new,
    empty room, because our token permits that, and the caller would stay there alone for ever.

    After a restart of LiveKit all rooms are gone as well. The other participants then come back, so the call ends only
    if nobody has come back after the same time limit.
    """

    def __init__(
        self,
        limit: float,
        find_room: FindRoom,
        is_alone: Callable[[], bool],
        on_end: Callable[[EndReason, str], None],
        on_regained: Callable[[bool], None],
    ) -> None:
        """`limit`: seconds until the call ends as lost; the other participants have the same time to come back.
        `is_alone`: whether nobody else is in the caller's room now. `on_regained` is called with True when the room is
        the same one as before the outage."""
        self._limit = limit
        self._find_room = find_room
        self._is_alone = is_alone
        self._had_company = False
        self._on_end = on_end
        self._on_regained = on_regained
        self.may_be_deleted = False
        """When the connection broke, LiveKit answered, but the room no longer existed: it may have been deleted."""
        self._sid = ""
        """SID of the caller's room, "" while unknown."""
        self._regained = asyncio.Event()
        self._regained_at = self._began = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._alone: asyncio.TimerHandle | None = None
        self._asking: asyncio.Task[None] | None = None

    @property
    def sid(self) -> str:
        """SID of the caller's room; "" while unknown."""
        return self._sid

    @property
    def is_on(self) -> bool:
        return self._timer is not None

    def joined(self, sdk_sid: FindRoom) -> None:
        """The caller has joined the room; `sdk_sid` returns its SID as soon as the SDK knows it."""
        self._ask(self._learn(sdk_sid))

    def company_came(self) -> None:
        """Another participant publishes a track in the room."""
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
        """Wait until the outage has ended, by a regained connection or by `close`."""
        if self.is_on:
            await self._regained.wait()

    def close(self) -> None:
        """Stop all timers and requests: neither callback is called from now on."""
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
        """Follow one outage from its beginning; `sid` is the room's SID before it. The SDK may have reconnected before
        LiveKit's API answers."""
        # While LiveKit shuts down, its API may report for a moment that the room is gone: nobody has deleted it.
        was_gone = bool(sid) and not is_stopping and await self._is_gone(sid)
        await self._regained.wait()
        self.may_be_deleted = was_gone and self._had_company
        if self.may_be_deleted:
            self._alone = asyncio.get_running_loop().call_later(self._limit, self._nobody_came_back)
        # After a restart of LiveKit the room has the same name and a new SID.
        for pause in _LEARN_AGAIN:
            await self._learn(self._find_room)
            if self._sid:
                break
            await asyncio.sleep(pause)
        # If a SID is unknown, the room counts as the same one.
        self._on_regained(not sid or not self._sid or sid == self._sid)

    async def _is_gone(self, sid: str) -> bool:
        """Whether the room no longer exists; False when LiveKit's API does not answer."""
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
