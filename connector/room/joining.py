"""Joins and leaves a LiveKit room in bounded time, also when the SDK exceeds its own time limits."""

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
"""Seconds for one request to LiveKit over a room's connection."""
LEAVE_TIMEOUT = 5.0
ENGINE_DOWN = 0.2
"""Seconds that the SDK needs, after a failed join, to shut its media engine down. It gives no signal when done."""

_T = TypeVar("_T")

_abandoned: set[asyncio.Task[None]] = set()


async def join(room: rtc.Room, url: str, token: str) -> None:
    """Connect without any subscription. Raises Unavailable. After that error, or a cancellation, the participant does
    not stay in the room."""
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
    """Gather ICE candidates once instead of for the whole life of the connection. Continual gathering is for mobile
    clients that change networks. Here it costs 25 sockets a call, and ten more threads where the names of LiveKit's
    STUN servers do not resolve. An ICE restart gathers again in any case."""
    return rtc.RtcConfiguration(continual_gathering_policy=ContinualGatheringPolicy.GATHER_ONCE)


async def _after_those_given_up(url: str) -> None:
    """While no room keeps the media engine up, wait until no abandoned join can shut it down (see
    `connector.room.engine`). Raises Unavailable."""
    _, endless = await asyncio.wait(set(_abandoned), timeout=JOIN_TIMEOUT)
    if endless:
        raise Unavailable(f"livekit-server at {url} has not answered an earlier join yet")
    await asyncio.sleep(ENGINE_DOWN)


def _abandon(room: rtc.Room, connecting: asyncio.Future[None]) -> None:
    """Let an abandoned join finish in the background, then leave. If it were cancelled, the SDK would still join, and
    nobody would leave that room."""

    async def finish() -> None:
        try:
            await connecting
        except rtc.ConnectError:
            return
        except asyncio.CancelledError:
            # The SDK removes this subscription when a join succeeds or fails, but not when it is cancelled.
            media_router().unsubscribe(room._ffi_queue)
            raise
        await disconnect(room)
        free_room(room)

    task = asyncio.ensure_future(finish())
    _abandoned.add(task)
    task.add_done_callback(_abandoned.discard)


async def drain_abandoned() -> None:
    """At process shutdown: wait for abandoned joins, and cancel those that do not end in time."""
    if _abandoned:
        _, endless = await asyncio.wait(set(_abandoned), timeout=LEAVE_TIMEOUT)
        for task in endless:
            task.cancel()
        if endless:
            await asyncio.wait(endless)


async def disconnect(room: rtc.Room) -> None:
    """Leave the room, within `LEAVE_TIMEOUT` seconds. Raises nothing."""
    try:
        await asyncio.wait_for(room.disconnect(), LEAVE_TIMEOUT)
    except TimeoutError:
        log.warning("LiveKit did not confirm the leave", limit_seconds=LEAVE_TIMEOUT)


class Connection:
    """The connection of one joined room, until it is lost or left. Pending requests fail when it ends."""

    def __init__(self, room: rtc.Room) -> None:
        self.room = room
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.shaken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the connection is lost or the SDK has begun to reconnect. Replaced after a reconnect."""

    @property
    def is_lost(self) -> bool:
        return self.lost.done() or not self.room.isconnected()

    def lose(self) -> None:
        """The SDK has given up the connection, or we leave."""
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
        """Run one SDK request and return its result. Raises Unavailable when it fails, when it gets no answer within
        `REQUEST_TIMEOUT` seconds, or as soon as `end` is done. `what` begins the error message."""
        asking = asyncio.ensure_future(request)
        try:
            waiting: set[asyncio.Future[Any]] = {asking, end}
            await asyncio.wait(waiting, timeout=REQUEST_TIMEOUT, return_when=asyncio.FIRST_COMPLETED)
            if not asking.done():
                why = "the connection to LiveKit is lost" if end.done() else f"no answer in {REQUEST_TIMEOUT:g} s"
                raise Unavailable(f"{what}: {why}")
            # The SDK has a separate exception class for each kind of request, derived directly from Exception.
            if error := asking.exception():
                raise Unavailable(f"{what}: {error!r}") from error
            return asking.result()
        finally:
            asking.cancel()
