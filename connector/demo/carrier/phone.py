"""The caller's telephone: a mouth that speaks what it is told, an ear that keeps what it hears. Pure.

Both count in samples of 8 kHz from the start of the stream, so what was said and what was heard can be laid
over each other. Time is passed in. Audio is kept as μ-law bytes, one a sample.
"""

from __future__ import annotations

from collections import deque

RATE = 8000
SILENCE = b"\xff"
BUFFER_LIMIT = 600 * RATE
"""Twilio refuses more than ten minutes of audio that wait to be played (error 31931)."""


class Mouth:
    """Says what waits, in order, and silence when nothing waits."""

    def __init__(self) -> None:
        self._waiting = bytearray()

    @property
    def waiting(self) -> int:
        """Samples not said yet."""
        return len(self._waiting)

    def say(self, ulaw: bytes) -> None:
        self._waiting += ulaw

    def next(self, samples: int) -> bytes:
        said = bytes(self._waiting[:samples])
        del self._waiting[:samples]
        return said + SILENCE * (samples - len(said))


class Ear:
    """Plays what arrives, in order, at playback speed; silence where nothing is there.

    `heard` is the timeline up to the last moment anybody passed in. A mark is reached when everything that
    came before it has been played, or at once when it is cleared; then it is in `reached`.
    """

    def __init__(self, started: float) -> None:
        self.heard = bytearray()
        self.reached: deque[str] = deque()
        self._started = started
        self._buffer = bytearray()
        self._marks: deque[tuple[int, str]] = deque()

    def buffered(self, now: float) -> int:
        """Samples that wait to be played."""
        self.advance(now)
        return len(self._buffer)

    def receive(self, now: float, ulaw: bytes) -> None:
        self.advance(now)
        self._buffer += ulaw

    def mark(self, now: float, name: str) -> None:
        self.advance(now)
        self._marks.append((len(self.heard) + len(self._buffer), name))
        self._reach()

    def clear(self, now: float) -> None:
        self.advance(now)
        self._buffer.clear()
        self.reached.extend(name for _, name in self._marks)
        self._marks.clear()

    def advance(self, now: float) -> None:
        """Play up to `now`."""
        # A timer asked for the exact moment of a sample may be called a rounding error early.
        span = int((now - self._started) * RATE + 1e-3) - len(self.heard)
        if span <= 0:
            return
        played = self._buffer[:span]
        del self._buffer[:span]
        self.heard += played
        self.heard += SILENCE * (span - len(played))
        self._reach()

    def next_mark_at(self) -> float | None:
        """When playback will reach the first mark that waits; None without one."""
        return self._started + self._marks[0][0] / RATE if self._marks else None

    def _reach(self) -> None:
        while self._marks and self._marks[0][0] <= len(self.heard):
            self.reached.append(self._marks.popleft()[1])
