"""Spreads bursts of audio evenly over time, and reduces the delay that results. It has no clock: time is passed in.

For the caller's voice. A socket that stalled for a second delivers that second of audio in one burst. All of it is
needed: an agent that hears a word late answers late, but an agent that does not hear it does not answer. The delay must
not last, however. So the excess of a burst waits here. As long as the queue never becomes empty, pauses in the audio
are removed, and from time to time one period of the voice (`connector.audio.shorten`).
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from connector.audio.freshness import PlayoutClock
from connector.audio.levels import QUIET, peak
from connector.audio.shorten import Standing, shorten

LEAD = 0.1
"""Seconds of audio that may be passed on in one burst: normal network jitter, for which the receivers' jitter buffers
are made."""
_MOST_LEAD = LEAD + 1e-6
"""Sums of float seconds are not exact."""
_FASTER = 1.05
"""Minimum speed at which a jitter buffer plays its excess. So the lead of a burst shrinks with time, and so does a
lead that builds up because the carrier's clock is faster than ours."""
_CHUNK = 0.02
"""Seconds of audio passed on at a time while audio waits."""
_STANDING_WINDOW = 0.2
"""Seconds after which audio that still waits counts as standing delay; longer if the carrier's messages are longer."""
_MAX_STANDING = 0.03
"""Seconds of standing delay that are tolerated: one frame waits from time to time."""
_SHORTEN_EVERY = (0.04, 0.08)
"""Seconds between removed periods, for a large and a small standing delay: speech gets a fifth or a tenth faster."""
_MUCH = 0.25
_LONGEST_PAUSE = 0.2
"""Seconds kept of each pause in the audio that is collected before any audio can be passed on."""


class Pacer:
    """`take` adds incoming audio; `due` returns the audio to pass on now. Call `due` every 20 ms while audio waits.

    Samples are int16, mono, `rate` a second; times are seconds, never falling.
    """

    def __init__(self, rate: int) -> None:
        self.waits = 0.0
        """Seconds of audio that wait."""
        self._rate = rate
        self._chunk = round(rate * _CHUNK)
        self._waiting: deque[NDArray[np.int16]] = deque()
        self._given = PlayoutClock()
        self._longest = 0.0
        self._standing = Standing(_STANDING_WINDOW)
        self._shorten_next = 0.0
        self._pause = _LONGEST_PAUSE

    def passes(self, now: float, seconds: float) -> bool:
        """Whether `seconds` of audio may be passed on immediately, the usual case; if True, it counts as passed on."""
        if self._waiting or self._given.ahead(now * _FASTER) + seconds > _MOST_LEAD:
            return False
        self._given.sent(now * _FASTER, seconds)
        return True

    def take(self, pcm: NDArray[np.int16], most: float) -> int:
        """Append audio to the queue and keep its newest `most` seconds. Returns the number of dropped pieces, each at
        most 20 ms."""
        seconds = len(pcm) / self._rate
        if seconds > self._longest:
            self._longest = seconds
            self._standing = Standing(max(_STANDING_WINDOW, 1.5 * seconds))
        for start in range(0, len(pcm), self._chunk):
            self._waiting.append(pcm[start : start + self._chunk])
        self.waits += seconds
        return self.trim(most)

    def collect(self, pcm: NDArray[np.int16], most: float) -> int:
        """`take` for the time before any audio can be passed on: pauses are cut to 0.2 s, and silence at the
        start is dropped."""
        seconds = len(pcm) / self._rate
        self._pause = self._pause + seconds if peak(pcm) < QUIET else 0.0
        return self.take(pcm, most) if self._pause <= _LONGEST_PAUSE else 0

    def due(self, now: float) -> list[NDArray[np.int16]]:
        """The audio to pass on now, in order."""
        given = []
        while self._waiting and self._given.ahead(now * _FASTER) + _CHUNK <= _MOST_LEAD:
            standing = self._standing.of(now, self.waits)
            pcm = self._pop()
            if standing > _MAX_STANDING:
                pcm = self._caught_up(pcm, now, standing)
            if len(pcm):
                self._given.sent(now * _FASTER, len(pcm) / self._rate)
                given.append(pcm)
        if not self._waiting:
            self._standing.of(now, 0.0)
        return given

    def _caught_up(self, pcm: NDArray[np.int16], now: float, standing: float) -> NDArray[np.int16]:
        if peak(pcm) < QUIET:
            return pcm[:0]
        if now < self._shorten_next:
            return pcm
        self._shorten_next = now + _SHORTEN_EVERY[standing < _MUCH]
        return shorten(pcm, self._rate)

    def _pop(self) -> NDArray[np.int16]:
        pcm = self._waiting.popleft()
        self.waits = self.waits - len(pcm) / self._rate if self._waiting else 0.0
        return pcm

    def trim(self, most: float) -> int:
        """Keep the newest `most` seconds of the queue. Returns the number of dropped pieces."""
        lost = 0
        while self.waits > most + 1e-6:
            self._pop()
            lost += 1
        return lost

    def forget(self) -> None:
        """Empty the queue."""
        self._waiting.clear()
        self.waits = 0.0
