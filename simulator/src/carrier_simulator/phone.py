"""The caller's telephone: a mouth that speaks what it is told, an ear that keeps what it hears. Pure.

Both count in samples from the start of the stream, so what was said and what was heard can be laid over each
other. Time is passed in. Audio is kept as the stream codes it.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from carrier_simulator.resample import resample
from carrier_simulator.sounds import MULAW, Sound

RATE = 8000
"""Samples a second of speech, where nothing else is said."""
SILENCE = b"\xff"


class Mouth:
    """Plays the queued sounds in order, and silence when the queue is empty."""

    def __init__(self) -> None:
        self._sound = MULAW
        self._waiting = bytearray()

    @property
    def waiting(self) -> int:
        """Samples not said yet."""
        return len(self._waiting) // self._sound.width

    @property
    def seconds(self) -> float:
        return self.waiting / self._sound.rate

    def say(self, pcm: NDArray[np.int16], rate: int = RATE) -> None:
        self._waiting += self._sound.encode(resample(pcm, rate, self._sound.rate))

    def speak_as(self, sound: Sound) -> None:
        """Use this coding from now on, also for queued sounds."""
        if sound is self._sound:
            return
        pcm, rate = self._sound.decode(bytes(self._waiting)), self._sound.rate
        self._sound = sound
        self._waiting = bytearray()
        self.say(pcm, rate)

    def next(self, samples: int) -> bytes:
        size = samples * self._sound.width
        said = bytes(self._waiting[:size])
        del self._waiting[:size]
        return said + self._sound.silence * (samples - len(said) // self._sound.width)


class Ear:
    """Plays what arrives, in order, at playback speed; silence where nothing is there.

    `heard` is the timeline up to the last moment anybody passed in. A mark is reached when everything that
    came before it has been played; then it is in `reached`.
    """

    def __init__(self, started: float, sound: Sound = MULAW) -> None:
        self.heard = bytearray()
        self.reached: deque[str] = deque()
        self.sound = sound
        self._started = started
        self._buffer = bytearray()
        self._marks: deque[tuple[int, str]] = deque()

    def buffered(self, now: float) -> int:
        """Samples that wait to be played."""
        self.advance(now)
        return len(self._buffer) // self.sound.width

    def receive(self, now: float, coded: bytes) -> None:
        """A whole number of samples."""
        self.advance(now)
        self._buffer += coded

    def mark(self, now: float, name: str) -> None:
        self.advance(now)
        self._marks.append((len(self.heard) + len(self._buffer), name))
        self._reach()

    def clear(self, now: float) -> list[str]:
        """Drop the queue; return the names of its marks, in order."""
        self.advance(now)
        self._buffer.clear()
        names = [name for _, name in self._marks]
        self._marks.clear()
        return names

    def advance(self, now: float) -> None:
        """Play up to `now`."""
        # A timer asked for the exact moment of a sample may be called a rounding error early.
        span = int((now - self._started) * self.sound.rate + 1e-3) * self.sound.width - len(self.heard)
        if span <= 0:
            return
        played = self._buffer[:span]
        del self._buffer[:span]
        self.heard += played
        self.heard += self.sound.silence * ((span - len(played)) // self.sound.width)
        self._reach()

    def next_mark_at(self) -> float | None:
        """When playback will reach the first mark that waits; None without one."""
        if not self._marks:
            return None
        return self._started + self._marks[0][0] // self.sound.width / self.sound.rate

    def _reach(self) -> None:
        while self._marks and self._marks[0][0] <= len(self.heard):
            self.reached.append(self._marks.popleft()[1])
