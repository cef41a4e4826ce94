"""Whether the peer of a media socket still lives: by its messages, and by its answers to pings."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from connector.call.ports import CarrierSocket
from connector.model import EndReason

PING_EVERY = 3.0
"""Seconds without a message after which the peer is pinged, again and again."""
DEAD_AFTER = 10.0
"""Seconds without any sign of life after which a peer that answers pings is dead."""
_LATE = 1.0
"""A look that comes so much late, in seconds, concludes nothing: it was this process that stood still, and what the
peer has sent meanwhile is yet to be read."""

_SOON = 0.01

OnDead = Callable[[EndReason, str], None]


class Liveness:
    """Looks after one socket, with one timer that is moved only when it fires.

    A carrier that holds a call may send no media, so a peer that answers pings lives. One that has never answered any
    (a proxy may swallow them) lives by its messages alone. Before the stream has started, pings are no sign of a call.
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
        """Set by whoever reads the socket."""
        self.has_started = False
        """So is this: the stream is one of a call."""

    def begin(self, socket: CarrierSocket) -> None:
        self._socket = socket
        self.last_message = self._loop.time()
        # At once, to know whether this peer is one that answers.
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
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
        if self._pinging is not None:
            self._pinging.cancel()


async def _ping(socket: CarrierSocket) -> None:
    # A socket that is gone tells so to its reader.
    with contextlib.suppress(OSError):
        await socket.ping()
