"""Reorders frames by their sequence numbers. It has no clock: time is counted in frames."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 3
"""Frames that may wait for a missing one: 60 ms. A longer wait would be more audible than the gap."""
_VAIN_HOLES = 5
"""After so many gaps in a row that no late frame filled, the sender skips numbers, and the buffer no longer waits.
It waits again after the first frame that does arrive late."""
_RESTART = 10
"""More old numbers in a row than this mean that the sender has restarted its numbering."""
_REMEMBERED = 64


class ReorderBuffer(Generic[T]):
    """Takes numbered items in any order; returns them in order, each at most once.

    Items that arrive in order pass without delay. At most `depth` items wait. Numbers increase by one from any first
    number. A missing number is given up when more than `depth` items would wait behind it.
    """

    def __init__(self, depth: int = DEPTH) -> None:
        if depth < 1:
            raise ValueError("a buffer holds at least one item")
        self.late = 0
        """Number of items dropped because their number was already given up."""
        self.duplicates = 0
        """Number of items dropped because their number had already arrived."""
        self._depth = depth
        self._next: int | None = None
        self._waiting: dict[int, T] = {}
        self._given_up: deque[int] = deque(maxlen=_REMEMBERED)
        self._vain_holes = 0
        self._old_in_a_row = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def push(self, number: int, item: T) -> list[T]:
        """Take one item; return the items that are next in order."""
        if number == self._next or self._next is None:
            self._next = number + 1
            self._old_in_a_row = 0
            if not self._waiting:
                return [item]
            # It fills a gap, or a part of one.
            self._vain_holes = 0
            return [item, *self._run()]
        if number < self._next:
            return self._old(number, item)
        self._old_in_a_row = 0
        if number in self._waiting:
            self.duplicates += 1
            return []
        self._waiting[number] = item
        ready = []
        while self._waiting and (len(self._waiting) > self._depth or self._vain_holes >= _VAIN_HOLES):
            ready += self._over_the_hole()
        return ready

    def _old(self, number: int, item: T) -> list[T]:
        self._old_in_a_row += 1
        if self._old_in_a_row > _RESTART:
            self._waiting.clear()
            self._given_up.clear()
            self._next, self._old_in_a_row = number + 1, 0
            return [item]
        if number in self._given_up:
            self._given_up.remove(number)
            self.late += 1
            self._vain_holes = 0
        else:
            self.duplicates += 1
        return []

    def _over_the_hole(self) -> list[T]:
        """Give up the missing numbers and continue after them."""
        assert self._next is not None
        first = min(self._waiting)
        self._given_up.extend(range(max(self._next, first - _REMEMBERED), first))
        self._vain_holes += 1
        self._next = first
        return self._run()

    def _run(self) -> list[T]:
        """Remove and return the waiting items up to the next gap."""
        assert self._next is not None
        ready = []
        while self._next in self._waiting:
            ready.append(self._waiting.pop(self._next))
            self._next += 1
        return ready
