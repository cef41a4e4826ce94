"""Recorded sound with the arrival time of each piece: gives the time at which a burst passed one point of the round
trip. Pure."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from bench.analysis import RATE, onset


class Tape:
    """Pieces of int16 at 8 kHz, each with its arrival time in monotonic seconds, a clock that all processes share."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._pieces: list[NDArray[np.int16]] = []

    def add(self, at: float, pcm: NDArray[np.int16]) -> None:
        self._times.append(at)
        self._pieces.append(pcm.copy())

    def when(self, since: float, frequency: float, longest: float) -> float | None:
        """The time at which a tone arrived, searched for `longest` seconds from `since`; None if it did not arrive.

        The time of a sample is the arrival time of its piece plus its offset in the piece. Spoken bursts are timed in
        the same way.
        """
        first, last = bisect_left(self._times, since), bisect_left(self._times, since + longest)
        pieces = self._pieces[first:last]
        if not pieces:
            return None
        at = onset(np.concatenate(pieces), frequency)
        if at is None:
            return None
        starts = np.cumsum([0, *(len(piece) for piece in pieces)])
        index = int(np.searchsorted(starts, at, side="right")) - 1
        return self._times[first + index] + (at - float(starts[index])) / RATE
