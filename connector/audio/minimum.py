"""The least of the values of the last while. The time is passed in, in seconds."""

from __future__ import annotations

from collections import deque

_MOST_KEPT = 512
"""Over five times the frames of the longest window in use; a flood must not take memory."""


class SlidingMinimum:
    def __init__(self, window: float) -> None:
        """`window`: seconds for which a value counts."""
        self._window = window
        # (at, value), both rising: an earlier value that is greater can never be the least again.
        self._least: deque[tuple[float, float]] = deque()

    def of(self, at: float, value: float) -> float:
        """The least of the window, with `value` seen at `at`, which never falls."""
        least = self._least
        while least and least[-1][1] >= value:
            least.pop()
        if len(least) == _MOST_KEPT:
            # Its successor is later and greater: at worst the least is taken for more than it is.
            least.pop()
        least.append((at, value))
        while least[0][0] < at - self._window:
            least.popleft()
        return least[0][1]

    def lower(self, by: float) -> None:
        """Whatever was seen would have been less by so much, but not less than zero."""
        self._least = deque((at, max(0.0, value - by)) for at, value in self._least)
