"""Keeps the SDK's media engine running: there is one in a process, and it runs while any room object exists.

The SDK stops it with the last room and starts it with the next. If both happen at the same moment (a call ends, or a
join fails, while another call begins), it may start without the clock that drives received audio (SDK 1.1.21,
`SyntheticAudioDevice`), and then no call of the process hears its room. So one room that was left is kept for the life
of the process, which keeps the engine running. While the clock is known to be missing, joins are refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from livekit import rtc

from connector.errors import Unavailable

_THREADS = "/proc/self/task"
_CLOCK = "SyntheticAudioD"
"""Name of the clock's thread, cut to the fifteen characters that Linux keeps."""


class MediaEngine:
    def __init__(self) -> None:
        self._held: rtc.Room | None = None
        self._seen = False
        """The clock's thread has been found once. On other systems than Linux it never is, and no join is refused."""

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def holds(self, room: rtc.Room) -> bool:
        return self._held is room

    async def require_clock(self) -> None:
        """Check after a join. Raises Unavailable when the clock is missing: the caller would hear nothing. The engine
        restarts, with a new clock, once all calls have left."""
        if await asyncio.to_thread(_has_clock):
            self._seen = True
        elif self._seen:
            raise Unavailable(
                "LiveKit's SDK has lost its audio clock; it gets a new one when the present calls have ended"
            )

    async def left(self, room: rtc.Room) -> None:
        """To be called after each leave: keeps the first room that was left while the clock runs."""
        if self._held is None and not room.isconnected():
            has_clock = await asyncio.to_thread(_has_clock)
            if has_clock and self._held is None:
                self._held = room


def _has_clock() -> bool:
    """Reads one file per thread of the process, up to a thousand: must not run on the event loop."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(_THREADS):
            # A thread may end between the listing and the open.
            with contextlib.suppress(OSError), open(f"{_THREADS}/{thread}/comm") as name:
                if name.read().startswith(_CLOCK):
                    return True
    return False


engine = MediaEngine()
