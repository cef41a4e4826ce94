"""Audio that came at once, given on as if it had come evenly, with a standing delay worked off. No clock of its own.

For the caller's voice. A socket that stalled for a second delivers that second in a moment. All of it is wanted: an
agent that hears a word late answers late, one that does not hear it does not answer. But the delay must not stay. So
what is too much at once waits here, and while some of it never goes away, the pauses in it are left out, and now and
then a period of the voice (`connector.audio.shorten`).
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

from connector.audio.freshness import PlayoutClock
from connector.audio.levels import QUIET, peak
from connector.audio.shorten import Standing, shorten

LEAD = 0.1
"""Seconds that may be given on at once: as much as an uneven network does to any flow, and the receivers' jitter
buffers are made for."""
_MOST_LEAD = LEAD + 1e-6
"""Sums of seconds are not exact."""
_FASTER = 1.05
"""How fast a jitter buffer plays what is too much, at least: what was given at once is not ahead of it for ever, nor
is what a carrier's clock gains on ours."""
_CHUNK = 0.02
"""Seconds given on at once where something waits."""
_STANDING_WINDOW = 0.2
"""Seconds after which what still waits counts as standing; longer where the carrier's messages are longer."""
_MAX_STANDING = 0.03
"""Seconds that may go on waiting: one frame does now and then."""
_SHORTEN_EVERY = (0.04, 0.08)
"""Seconds between two periods left out, with much standing and with little: speech gets a fifth or a tenth faster."""
_MUCH = 0.25
_LONGEST_PAUSE = 0.2
"""Seconds of a pause that are kept of what is collected before anything can be given on."""


class Pacer:
    """`take` what comes, `due` tells what is to be given on now; to be asked again every 20 ms while some waits.

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
        """Whether so much may be given on at once, as it is, as most is; then it counts as given."""
        if self._waiting or self._given.ahead(now * _FASTER) + seconds > _MOST_LEAD:
            return False
        self._given.sent(now * _FASTER, seconds)
        return True

    def take(self, pcm: NDArray[np.int16], most: float) -> int:
        """Put this behind what waits, of which at most `most` seconds are kept; how many pieces, of at most 20 ms, went
        for it."""
        seconds = len(pcm) / self._rate
        if seconds > self._longest:
            self._longest = seconds
            self._standing = Standing(max(_STANDING_WINDOW, 1.5 * seconds))
        for start in range(0, len(pcm), self._chunk):
            self._waiting.append(pcm[start : start + self._chunk])
        self.waits += seconds
        return self.trim(most)

    def collect(self, pcm: NDArray[np.int16], most: float) -> int:
        """`take`, while nothing can be given on yet: of pauses no more is kept than makes them pauses."""
        seconds = len(pcm) / self._rate
        self._pause = self._pause + seconds if peak(pcm) < QUIET else 0.0
        return self.take(pcm, most) if self._pause <= _LONGEST_PAUSE else 0

    def due(self, now: float) -> list[NDArray[np.int16]]:
        """What is to be given on now, in order."""
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
        """Keep the newest `most` seconds of what waits; how many pieces went."""
        lost = 0
        while self.waits > most + 1e-6:
            self._pop()
            lost += 1
        return lost

    def forget(self) -> None:
        """Nothing waits any more."""
        self._waiting.clear()
        self.waits = 0.0
