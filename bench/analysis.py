"""Analysis of sound and statistics. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RATE = 8000
_WINDOW = RATE // 200
"""Samples (5 ms). The tones of `bench.sound` differ by multiples of 200 Hz, so that none is mistaken for another."""


def amplitude(pcm: NDArray[np.int16], frequency: float) -> NDArray[np.float64]:
    """Amplitude of one frequency in each whole window of 5 ms; value i is for the window that starts at sample i."""
    if len(pcm) < _WINDOW:
        return np.zeros(0)
    turned = pcm.astype(np.float64) * np.exp(-2j * np.pi * frequency * np.arange(len(pcm)) / RATE)
    summed = np.concatenate(([0], np.cumsum(turned)))
    return np.asarray(2 * np.abs(summed[_WINDOW:] - summed[:-_WINDOW]) / _WINDOW)


def onset(pcm: NDArray[np.int16], frequency: float, least: float = 1000.0) -> float | None:
    """The first sample at which a tone reaches half of its maximum amplitude; None if the maximum is below `least`.

    The position is interpolated between samples. Because said and heard sound use the same rule, the window width
    cancels out of their difference.
    """
    loudness = amplitude(pcm, frequency)
    if not len(loudness) or loudness.max() < least:
        return None
    half = loudness.max() / 2
    index = int(np.argmax(loudness >= half))
    if index == 0:
        return 0.0
    before, after = loudness[index - 1], loudness[index]
    return float(index - 1 + (half - before) / (after - before))


def delays(
    said: NDArray[np.int16],
    heard: NDArray[np.int16],
    bursts: Sequence[tuple[int, float]],
    longest: float,
) -> list[float | None]:
    """Seconds from each burst in `said` to the same burst in `heard`; None for a burst that was not heard.

    `bursts` are (first sample in `said`, frequency). A burst is searched for within `longest` seconds; no other burst
    of its frequency may begin in this time. Both sounds share one clock.
    """
    result: list[float | None] = []
    for begins, frequency in bursts:
        window = slice(begins, begins + round(longest * RATE))
        left, came = onset(said[window], frequency), onset(heard[window], frequency)
        result.append(None if left is None or came is None else (came - left) / RATE)
    return result


def percentile(values: Sequence[float], share: float) -> float:
    """The percentile `share` (0 to 1), with linear interpolation."""
    return float(np.quantile(np.asarray(values, np.float64), share))


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Slope of the least-squares line through the points (x, y)."""
    x, y = np.asarray(points, np.float64).T
    return float(np.dot(x - x.mean(), y - y.mean()) / np.dot(x - x.mean(), x - x.mean()))
