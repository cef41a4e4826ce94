"""The minimum of the values within a sliding time window. Time is passed in, in seconds."""

from __future__ import annotations

from collections import deque

_MOST_KEPT = 512
"""Over five times the frames of the longest window in use: limits the memory in case of a flood."""


class SlidingMinimum:
    def __init__(self, window: float) -> None:
        """`window`: seconds for which a value counts."""
        self._window = window
        # (at, value), both increasing: an earlier, greater value can never be the minimum again.
        self._least: deque[tuple[float, float]] = deque()

    def of(self, at: float, value: float) -> float:
        """Add `value`, seen at `at` (never decreasing), and return the minimum of the window."""
        least = self._least
        while least and least[-1][1] >= value:
            least.pop()
        if len(least) == _MOST_KEPT:
            # The next entry is later and greater: at worst the result is too large.
            least.pop()
        least.append((at, value))
        while least[0][0] < at - self._window:
            least.popleft()
        return least[0][1]

    def lower(self, by: float) -> None:
        """Reduce all values in the window by `by`, but not below zero."""
        self._least = deque((at, max(0.0, value - by)) for at, value in self._least)
