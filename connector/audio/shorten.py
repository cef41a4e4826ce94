"""Make speech a little shorter without changing its pitch, to reduce an unwanted delay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from connector.audio.minimum import SlidingMinimum

_SHORTEST_PERIOD = 0.0025
"""Seconds: a voice of 400 Hz."""
_OVERLAP = 0.008
"""Seconds over which one period fades into the next."""
_ALIKE = 0.9
"""Minimum correlation at which two stretches count as periods of one voice."""
_FAINT = 100.0
"""Root mean square below which the sound is background noise, and any two stretches may be cross-faded."""


def shorten(pcm: NDArray[np.int16], rate: int) -> NDArray[np.int16]:
    """Remove one period of the voice from the sound; return it unchanged if it has no such period.

    `pcm` is int16 of shape `(n,)` at `rate` samples a second; 20 ms can lose up to 12 ms. The beginning of the
    sound fades over 8 ms into the sound one period later, as in waveform similarity overlap-add (Verhelst and
    Roelands, 1993). The first and the last samples do not change, so adjacent frames still fit. Never in place.
    """
    overlap = round(rate * _OVERLAP)
    shortest, longest = round(rate * _SHORTEST_PERIOD), len(pcm) - overlap
    if longest < shortest:
        return pcm
    sound = pcm.astype(np.float64)
    head = sound[:overlap]
    if np.sqrt(np.mean(sound * sound)) < _FAINT:
        lag = longest
    else:
        lag, alike = _best_lag(sound, head, shortest, longest)
        if alike < _ALIKE:
            return pcm
    fade = np.linspace(0.0, 1.0, overlap)
    mixed = head * (1.0 - fade) + sound[lag : lag + overlap] * fade
    return np.concatenate((np.round(mixed).astype(np.int16), pcm[lag + overlap :]))


def _best_lag(sound: NDArray[np.float64], head: NDArray[np.float64], shortest: int, longest: int) -> tuple[int, float]:
    """The lag, in samples, at which the sound is most similar to its beginning, and their correlation, -1.0 to 1.0."""
    products = np.correlate(sound[shortest : longest + len(head)], head, "valid")
    squares = np.concatenate(([0.0], np.cumsum(sound * sound)))
    starts = np.arange(shortest, longest + 1)
    energies = squares[starts + len(head)] - squares[starts]
    alike = products / np.sqrt(energies * squares[len(head)] + 1.0)
    best = int(np.argmax(alike))
    return shortest + best, float(alike[best])


class Standing:
    """The standing part of a fluctuating delay: its minimum over a sliding window."""

    def __init__(self, window: float = 0.5) -> None:
        """`window` in seconds. The result is 0.0 until the delay has been observed for that long."""
        self._window = window
        self._least = SlidingMinimum(window)
        self._since: float | None = None

    def of(self, now: float, delay: float) -> float:
        """Add `delay`, seen at `now`, and return the standing delay. All in seconds; `now` never decreases."""
        if self._since is None:
            self._since = now
        least = self._least.of(now, delay)
        return least if now - self._since >= self._window else 0.0

    def worked_off(self, seconds: float) -> None:
        """The delay was reduced by `seconds`: reduce the earlier values of the window as well."""
        self._least.lower(seconds)
