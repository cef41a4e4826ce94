"""Shuffles requests that a real carrier sends independently of one another, repeatably by a seed.

Independent are: a call's callbacks among themselves, the fetch of a document, and the answer of the REST API to the
request that caused them. What one media stream carries (audio, marks, digits) is never reordered, and a
conference tells its events in order: `join` returns when the application has been told.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Self

VARIABLE = "CARRIER_SIMULATOR_JITTER"
"""Names a seed for every simulator of the process that is given no `Jitter` of its own."""


@dataclass(frozen=True, slots=True)
class Jitter:
    seed: int
    most: float = 0.15
    """Seconds by which one request is held back, at most."""

    @classmethod
    def from_environment(cls) -> Self | None:
        seed = os.environ.get(VARIABLE, "")
        if not seed:
            return None
        try:
            return cls(int(seed))
        except ValueError:
            raise ValueError(f"{VARIABLE} must be a whole number, the seed; it is {seed!r}") from None

    def delays(self, whose: str) -> Delays:
        return Delays(self, whose)


class Delays:
    """Of one call, or of the REST API.

    A delay follows from the seed, the owner's name, the kind of the request and how many of that kind came before: not
    from the order in which calls happen to run, so that a run with the same seed has the same delays.
    """

    def __init__(self, jitter: Jitter, whose: str) -> None:
        self._jitter = jitter
        self._whose = whose
        self._before: Counter[str] = Counter()

    def next(self, kind: str) -> float:
        """Seconds to hold the next request of this kind back."""
        count = self._before[kind]
        self._before[kind] += 1
        return Random(f"{self._jitter.seed} {self._whose} {kind} {count}").uniform(0, self._jitter.most)
