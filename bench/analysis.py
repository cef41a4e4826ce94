"""What is read out of sounds and numbers. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

RATE = 8000
_WINDOW = RATE // 200
"""5 ms: the tones of `bench.sound` are whole multiples of 200 Hz apart, so that none is seen in another's place."""


def amplitude(pcm: NDArray[np.int16], frequency: float) -> NDArray[np.float64]:
    """How loud one frequency is, for each whole window of 5 ms; value i belongs to the window that starts at i."""
    if len(pcm) < _WINDOW:
        return np.zeros(0)
    turned = pcm.astype(np.float64) * np.exp(-2j * np.pi * frequency * np.arange(len(pcm)) / RATE)
    summed = np.concatenate(([0], np.cumsum(turned)))
    return np.asarray(2 * np.abs(summed[_WINDOW:] - summed[:-_WINDOW]) / _WINDOW)


def onset(pcm: NDArray[np.int16], frequency: float, least: float = 1000.0) -> float | None:
    """The sample at which a tone has half of its greatest amplitude for the first time; None when it never is loud.

    Between two samples it is interpolated. The same rule applied to what was said and to what was heard makes
    the window's own width cancel out.
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
    """Seconds from each burst in `said` to the same in `heard`; None for one that was not heard.

    `bursts` are (first sample in `said`, frequency); a burst is looked for during `longest` seconds, in which no
    other of its frequency may begin. The two sounds share one clock.
    """
    result: list[float | None] = []
    for begins, frequency in bursts:
        window = slice(begins, begins + round(longest * RATE))
        left, came = onset(said[window], frequency), onset(heard[window], frequency)
        result.append(None if left is None or came is None else (came - left) / RATE)
    return result


def percentile(values: Sequence[float], share: float) -> float:
    """By linear interpolation; `share` from 0 to 1."""
    return float(np.quantile(np.asarray(values, np.float64), share))


def median(values: Sequence[float]) -> float:
    return percentile(values, 0.5)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Of the straight line with the least squared error through (x, y)."""
    x, y = np.asarray(points, np.float64).T
    return float(np.dot(x - x.mean(), y - y.mean()) / np.dot(x - x.mean(), x - x.mean()))
