"""A clock of the test's own, with timers."""

from __future__ import annotations

from collections.abc import Callable

Timer = tuple[float, int, Callable[[], None]]


class Handle:
    def __init__(self, timers: list[Timer], timer: Timer) -> None:
        self._timers = timers
        self._timer = timer

    def cancel(self) -> None:
        if self._timer in self._timers:
            self._timers.remove(self._timer)


class Clock:
    def __init__(self, now: float = 100.0) -> None:
        self.now = now
        self.timers: list[Timer] = []
        self._set = 0

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float, callback: Callable[[], None]) -> Handle:
        self._set += 1
        self.timers.append((self.now + seconds, self._set, callback))
        return Handle(self.timers, self.timers[-1])

    def advance(self, seconds: float) -> None:
        """Time passes, and each timer is called at its moment."""
        end = self.now + seconds
        while self.timers and min(self.timers)[0] <= end:
            timer = min(self.timers)
            self.timers.remove(timer)
            self.now = max(self.now, timer[0])
            timer[2]()
        self.now = end
