"""Which of a sender's frames are too old to be wanted, and when its clock has begun anew. No clock of its own."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

from connector.audio.freshness import TransitClock

T = TypeVar("T")

_FELL_BACK = 0.2
"""Seconds by which no frame is before its neighbour, other than from a clock that was set anew."""
_WATCHED = 0.06
"""Seconds in which frames that seem late show how they come."""
_UNEVEN = 0.04
"""Seconds that frames may come closer together than they were made, in that time, and still come in real time."""


class AgeLimit(Generic[T]):
    """Frames in, in the sender's order; those that are young enough out, at once.

    A frame whose timestamp says that it is too old is doubted first. A socket that stalled delivers its backlog at
    once, so old frames come faster than they were made. Frames that come as they were made, but with timestamps that
    are behind, are of a sender that counts anew, or did not count in a hold: its clock is what has changed. They are
    let out, a few frames late.
    """

    def __init__(self, most: float) -> None:
        """`most`: seconds that a frame may be late."""
        self.late = 0.0
        """How late the last frame was, by its timestamp."""
        self.too_old = 0
        """Frames that were dropped, in all."""
        self._most = most
        self._clock = TransitClock()
        self._last = float("-inf")
        self._doubted: deque[tuple[float, T]] = deque()
        self._doubted_seconds = 0.0
        self._seen = (0.0, 0.0)
        """Arrival and timestamp of the frame with which the present look at the doubted ones began."""

    def push(self, now: float, timestamp: float, seconds: float, frame: T) -> list[T]:
        """Take one frame in, which is `seconds` long and ends at `timestamp` of the sender's clock; return those that
        are to be heard now."""
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
