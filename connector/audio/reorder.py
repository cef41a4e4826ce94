"""Frames that overtook each other on the way, put in order again by their numbers. No clock: frames are the clock."""

from __future__ import annotations

from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")

DEPTH = 3
"""Frames that wait for a missing one, 60 ms of them: longer, and the wait would be heard more than the gap."""
_VAIN_HOLES = 5
"""After so many holes in a row that nothing came to fill, numbers are being left out rather than overtaken, and the
next hole is not waited for; the first frame that does come late shows that waiting has a point."""
_RESTART = 10
"""So many frames in a row from before the place we are at are a sender that counts anew."""
_REMEMBERED = 64


class ReorderBuffer(Generic[T]):
    """Numbered items in, in any order; the same items out, in order, each at most once.

    What comes in order goes straight through. At most `depth` items ever wait. Numbers count by one; they need not
    begin at any, and a number that does not come is given up when more than `depth` items would wait behind it.
    """

    def __init__(self, depth: int = DEPTH) -> None:
        if depth < 1:
            raise ValueError("a buffer holds at least one item")
        self.late = 0
        """Items that came after their place was given up, and were dropped."""
        self.duplicates = 0
        """Items whose number had come before, dropped."""
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
        """Take one item in; return those whose turn it is now."""
        if number == self._next or self._next is None:
            self._next = number + 1
            self._old_in_a_row = 0
            if not self._waiting:
                return [item]
            # It fills a hole, or a part of one.
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
        """Give the missing numbers up and go on behind them."""
        assert self._next is not None
        first = min(self._waiting)
        self._given_up.extend(range(max(self._next, first - _REMEMBERED), first))
        self._vain_holes += 1
        self._next = first
        return self._run()

    def _run(self) -> list[T]:
        """What waits without a hole before it."""
        assert self._next is not None
        ready = []
        while self._next in self._waiting:
            ready.append(self._waiting.pop(self._next))
            self._next += 1
        return ready
