"""Drops frames that are too old, and detects a restarted sender clock. It has no clock: time is passed in."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from connector.audio.freshness import TransitClock

T = TypeVar("T")

_FELL_BACK = 0.2
"""A timestamp that falls back by more seconds than this means that the sender's clock was reset."""
_WATCHED = 0.06
"""Seconds for which the arrival rate of apparently late frames is observed."""
_UNEVEN = 0.04
"""Within that time, seconds by which timestamps may advance more than arrivals and still count as real time."""


class AgeLimit(Generic[T]):
    """Takes frames in the sender's order; passes recent ones on immediately and drops those that are too old.

    A frame that is too old by its timestamp is held back first, until the cause is known. After a stall, a socket
    delivers its backlog in a burst, so old frames arrive faster than real time: they are dropped. Frames that arrive
    in real time, but with old timestamps, mean that the sender's clock has restarted, or stood still during a hold:
    they are passed on, a few frames late.
    """

    def __init__(self, most: float) -> None:
        """`most`: maximum lateness of a frame, in seconds."""
        self.late = 0.0
        """Lateness of the last frame by its timestamp, in seconds."""
        self.too_old = 0
        """Total number of dropped frames."""
        self._most = most
        self._clock = TransitClock()
        self._last = float("-inf")
        self._doubted: deque[tuple[float, T]] = deque()
        self._doubted_seconds = 0.0
        self._seen = (0.0, 0.0)
        """Arrival time and timestamp of the frame at which the current observation began."""

    def push(self, now: float, timestamp: float, seconds: float, frame: T) -> list[T]:
        """Take one frame, `seconds` long, that ends at `timestamp` of the sender's clock; return the frames to play
        now."""
        if timestamp < self._last - _FELL_BACK:
            self._clock = TransitClock()
        self._last = timestamp
        self.late = self._clock.lateness(now, timestamp)
        if self.late <= self._most:
            if self._doubted:
                self._forget()
            return [frame]
        return self._doubt(now, timestamp, seconds, frame)

    def _doubt(self, now: float, timestamp: float, seconds: float, frame: T) -> list[T]:
        if not self._doubted:
            self._seen = now, timestamp
        self._doubted.append((seconds, frame))
        self._doubted_seconds += seconds
        while self._doubted_seconds > self._most and len(self._doubted) > 1:
            self._doubted_seconds -= self._doubted.popleft()[0]
            self.too_old += 1
        elapsed, made = now - self._seen[0], timestamp - self._seen[1]
        if elapsed < _WATCHED:
            return []
        self._seen = now, timestamp
        if made > elapsed + _UNEVEN:
            return []
        self._clock = TransitClock()
        self.late = self._clock.lateness(now, timestamp)
        frames = [frame for _, frame in self._doubted]
        self._doubted.clear()
        self._doubted_seconds = 0.0
        return frames

    def _forget(self) -> None:
        self.too_old += len(self._doubted)
        self._doubted.clear()
        self._doubted_seconds = 0.0
