"""Detects a dead peer of a media socket from missing messages and missing answers to pings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from connector.call.ports import CarrierSocket
from connector.model.end_reason import EndReason

PING_EVERY = 3.0
"""Seconds without a message after which the peer is pinged, and seconds between pings."""
DEAD_AFTER = 10.0
"""Seconds without a message or pong after which a peer that answers pings counts as dead."""
_LATE = 1.0
"""If a check runs this many seconds late, its result is ignored: this process was blocked, and messages of the peer may
still be unread."""

_SOON = 0.01

OnDead = Callable[[EndReason, str], None]


class Liveness:
    """Watches one socket with one timer, which is set again only when it fires.

    A carrier may send no media while a call is on hold, so answers to pings count as signs of life. If the peer has
    never answered a ping (a proxy may drop pings), only messages count. Before the stream has started, pongs do not
    count, because there is no call yet.
    """

    def __init__(self, media_timeout: float, on_dead: OnDead) -> None:
        self._limit = media_timeout
        self._dead_after = min(DEAD_AFTER, media_timeout)
        self._ping_every = min(PING_EVERY, self._dead_after / 3)
        self._on_dead = on_dead
        self._loop = asyncio.get_running_loop()
        self._socket: CarrierSocket | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._pinging: asyncio.Task[None] | None = None
        self.last_message = 0.0
        """Time of the last message, by the event loop's clock. Set by the reader of the socket."""
        self.has_started = False
        """Whether the stream of a call has started. Set by the reader of the socket."""

    def begin(self, socket: CarrierSocket) -> None:
        self._socket = socket
        self.last_message = self._loop.time()
        # Ping at once, to learn whether this peer answers pings.
        self._ping()
        self._look_in(self._ping_every)

    def _look_in(self, seconds: float) -> None:
        self._timer = self._loop.call_later(seconds, self._look, self._loop.time() + seconds)

    def _look(self, due: float) -> None:
        assert self._socket is not None
        now = self._loop.time()
        if now - due > _LATE:
            self._look_in(self._ping_every)
            return
        pong = self._socket.last_pong
        alive = self.last_message if pong is None or not self.has_started else max(self.last_message, pong)
        silent = now - alive
        if silent >= self._limit:
            self._on_dead(EndReason.MEDIA_TIMEOUT, f"no message for {silent:.1f} s")
        elif pong is not None and self.has_started and silent >= self._dead_after:
            self._on_dead(EndReason.CARRIER_LOST, f"no message and no answer to a ping for {silent:.1f} s")
        elif silent < self._ping_every:
            self._look_in(self._ping_every - silent)
        else:
            self._ping()
            until = self._dead_after if silent < self._dead_after else self._limit
            self._look_in(max(_SOON, min(self._ping_every, until - silent)))

    def _ping(self) -> None:
        if self._pinging is None or self._pinging.done():
            assert self._socket is not None
            self._pinging = asyncio.create_task(_ping(self._socket), name="ping the carrier")

    def stop(self) -> None:
        """Stop the checks and pings."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pinging is not None:
            self._pinging.cancel()


async def _ping(socket: CarrierSocket) -> None:
    # If the socket is gone, its reader handles that.
    with contextlib.suppress(OSError):
        await socket.ping()
