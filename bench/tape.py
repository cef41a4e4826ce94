"""Sound with the moment each piece of it came: tells where, on the way around, a burst was when. Pure."""

from __future__ import annotations

from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from bench.analysis import RATE, onset


class Tape:
    """Pieces of int16 at 8 kHz, each with its time: monotonic seconds, one clock for all processes of a machine."""

    def __init__(self) -> None:
        self._times: list[float] = []
        self._pieces: list[NDArray[np.int16]] = []

    def add(self, at: float, pcm: NDArray[np.int16]) -> None:
        self._times.append(at)
        self._pieces.append(pcm.copy())

    def when(self, since: float, frequency: float, longest: float) -> float | None:
        """The moment at which a tone came, looked for from `since` on; None when it did not.

        A sample comes with its piece and as much later as it stands in it, just as it is said.
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
