"""The SDK's media engine: one for a process, up as long as any room is held.

The SDK takes it down with the last room and brings it up with the next. Where the two meet (a call ends, or a join
fails, as another begins), it may come up without the clock that drives received audio (SDK 1.1.21,
`SyntheticAudioDevice`), and then no call of the process hears its room. So one room that was left is held for the life
of the process, which keeps the engine up; and where the clock is known to be missing, nobody is let in.
"""

from __future__ import annotations

import asyncio
import contextlib
import os

from livekit import rtc

from connector.errors import Unavailable

_THREADS = "/proc/self/task"
_CLOCK = "SyntheticAudioD"
"""The clock's thread, by the fifteen characters that Linux keeps of its name."""


class MediaEngine:
    def __init__(self) -> None:
        self._held: rtc.Room | None = None
        self._seen = False
        """Whether this SDK's clock can be seen at all; elsewhere than on Linux it cannot."""

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def holds(self, room: rtc.Room) -> bool:
        return self._held is room

    async def require_clock(self) -> None:
        """After a join. Raises Unavailable when the caller would hear nothing; the engine is new once all are out."""
        if await asyncio.to_thread(_has_clock):
            self._seen = True
        elif self._seen:
            raise Unavailable("LiveKit's SDK has lost its audio clock; it gets a new one when the calls of now end")

    async def left(self, room: rtc.Room) -> None:
        """A room is done with."""
        if self._held is None and not room.isconnected():
            has_clock = await asyncio.to_thread(_has_clock)
            if has_clock and self._held is None:
                self._held = room


def _has_clock() -> bool:
    """Reads a file for each thread of the process, of which there may be a thousand: not on the event loop."""
    with contextlib.suppress(OSError):
        for thread in os.listdir(_THREADS):
            # A thread may end between the two.
            with contextlib.suppress(OSError), open(f"{_THREADS}/{thread}/comm") as name:
                if name.read().startswith(_CLOCK):
                    return True
    return False


engine = MediaEngine()
