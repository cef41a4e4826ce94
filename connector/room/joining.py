"""Into a LiveKit room and out of it, in bounded time, also where the SDK does not keep to a limit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import structlog
from livekit import rtc
from livekit.rtc._proto.room_pb2 import ContinualGatheringPolicy

from connector.errors import Unavailable
from connector.room.engine import engine
from connector.room.handles import free_room
from connector.room.media import media_router

log = structlog.get_logger()

JOIN_TIMEOUT = 3.5
REQUEST_TIMEOUT = 3.5
"""Seconds for one thing asked of LiveKit over the connection of a room."""
LEAVE_TIMEOUT = 5.0
ENGINE_DOWN = 0.2
"""Seconds in which the SDK, after the end of a failed join, has taken its media engine down; it does not tell."""

_T = TypeVar("_T")

_abandoned: set[asyncio.Task[None]] = set()


async def join(room: rtc.Room, url: str, token: str) -> None:
    """Connect, subscribed to nothing. Raises Unavailable; then, and when it is cancelled, nothing is left joined."""
    media_router()
    if _abandoned and not engine.is_held:
        await _after_those_given_up(url)
    options = rtc.RoomOptions(auto_subscribe=False, connect_timeout=JOIN_TIMEOUT, rtc_config=_gather_once())
    connecting = asyncio.ensure_future(room.connect(url, token, options))
    try:
        await asyncio.wait_for(asyncio.shield(connecting), JOIN_TIMEOUT)
    except rtc.ConnectError as error:
        raise Unavailable(f"livekit-server at {url} did not let the caller join: {error.message}") from error
    except TimeoutError as error:
        _abandon(room, connecting)
        raise Unavailable(f"livekit-server at {url} did not answer the join in {JOIN_TIMEOUT:g} s") from error
    except asyncio.CancelledError:
        _abandon(room, connecting)
        raise


def _gather_once() -> rtc.RtcConfiguration:
    """To look for network interfaces as long as the connection lives is for phones that move. Here it costs each call
    25 sockets, and where the names of LiveKit's STUN servers do not resolve, ten more threads that wait for them; a
    restart of ICE gathers anew in any case."""
    return rtc.RtcConfiguration(continual_gathering_policy=ContinualGatheringPolicy.GATHER_ONCE)


async def _after_those_given_up(url: str) -> None:
    """Until a room is held, no join may begin while a failed one takes the media engine down."""
    _, endless = await asyncio.wait(set(_abandoned), timeout=JOIN_TIMEOUT)
    if endless:
        raise Unavailable(f"livekit-server at {url} has not answered an earlier join yet")
    await asyncio.sleep(ENGINE_DOWN)


def _abandon(room: rtc.Room, connecting: asyncio.Future[None]) -> None:
    """Let a join that we no longer wait for finish, then leave: cancelled, it would join without an owner."""

    async def finish() -> None:
        try:
            await connecting
        except rtc.ConnectError:
            return
        except asyncio.CancelledError:
            # The SDK takes this subscription back only where a join succeeds or fails.
            media_router().unsubscribe(room._ffi_queue)
            raise
        await disconnect(room)
        free_room(room)

    task = asyncio.ensure_future(finish())
    _abandoned.add(task)
    task.add_done_callback(_abandoned.discard)


async def drain_abandoned() -> None:
    """Wait for joins that were given up, and stop the ones that do not end; for an orderly stop of the process."""
    if _abandoned:
        _, endless = await asyncio.wait(set(_abandoned), timeout=LEAVE_TIMEOUT)
        for task in endless:
            task.cancel()
        if endless:
            await asyncio.wait(endless)


async def disconnect(room: rtc.Room) -> None:
    """Raises nothing."""
    try:
        await asyncio.wait_for(room.disconnect(), LEAVE_TIMEOUT)
    except TimeoutError:
        log.warning("LiveKit did not confirm the leave", limit_seconds=LEAVE_TIMEOUT)


class Connection:
    """A joined room until it is lost or left: what is asked of LiveKit over it ends with it."""

    def __init__(self, room: rtc.Room) -> None:
        self.room = room
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Lost, or the SDK has begun to reconnect; then a new one, of the next time."""

    @property
    def is_lost(self) -> bool:
        return self.lost.done() or not self.room.isconnected()

    def lose(self) -> None:
        """The SDK has given the room up, or we have."""
        self.shake()
        if not self.lost.done():
            self.lost.set_result(None)

    def shake(self) -> None:
        if not self.shaken.done():
            self.shaken.set_result(None)

    def steady(self) -> None:
        """The SDK has reconnected."""
        if self.shaken.done() and not self.lost.done():
            self.shaken = asyncio.get_running_loop().create_future()

    async def ask(self, request: Coroutine[Any, Any, _T], what: str, end: asyncio.Future[None]) -> _T:
        """The answer to one request of the SDK. Raises Unavailable, and does not wait longer than until `end`."""
        asking = asyncio.ensure_future(request)
        try:
            waiting: set[asyncio.Future[Any]] = {asking, end}
            await asyncio.wait(waiting, timeout=REQUEST_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                why = "the connection to LiveKit is lost" if end.done() else f"no answer in {REQUEST_TIMEOUT:g} s"
                raise Unavailable(f"{what}: {why}")
            # The SDK has a bare Exception subclass for each kind of request.
            if error := asking.exception():
                raise Unavailable(f"{what}: {error!r}") from error
            return asking.result()
        finally:
            asking.cancel()
