"""Finds one sound in another by its waveform, so that loud sound or another voice is not mistaken for it.

The sound is cut into windows. Each window is searched separately (normalised cross-correlation, independent of the
level), and all must be found at about the same delay. This tolerates codecs, and a jitter buffer that stretches time
by some milliseconds; a single correlation over the whole sound would not.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WINDOW = 0.2
HOP = 0.15
TOLERANCE = 0.03
"""Maximum deviation in seconds of a window from the common delay."""
_FLOOR = 20.0
"""Root mean square, in int16 steps, below which a section counts as silence."""

_Float = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Match:
    delay_seconds: float
    """Start of the reference in `heard`, in seconds."""
    score: float
    """0 (absent) to 1 (identical samples); unrelated speech stays below about 0.4."""


def find_delay(reference: NDArray[np.int16], heard: NDArray[np.int16], rate: int) -> Match:
    """Finds `reference` in `heard`, both mono int16 at `rate`; the score is 0 if either is silent."""
    window, hop, tolerance = round(WINDOW * rate), round(HOP * rate), round(TOLERANCE * rate)
    starts = [
        start
        for start in range(0, max(1, len(reference) - window // 2), hop)
        if rms(reference[start : start + window]) > _FLOOR
    ]
    if not starts or not len(heard):
        return Match(0.0, 0.0)
    lags = len(heard)
    # Padding at the end: the last windows may lie beyond the end of `heard`.
    size = 1 << int(lags + len(reference) + window).bit_length()
    spectrum = np.fft.rfft(heard.astype(np.float32), size)
    energies = _energies(heard, window, lags + len(reference))
    curves = []
    weights = np.array([rms(reference[start : start + window]) for start in starts])
    for start in starts:
        piece = reference[start : start + window].astype(np.float32)
        correlation = np.fft.irfft(spectrum * np.conj(np.fft.rfft(piece, size)), size)[start : start + lags]
        norm = np.sqrt(float(piece @ piece) * energies[start : start + lags])
        curves.append(np.clip(correlation / norm, 0, 1).astype(np.float32))
    agreement = np.zeros(lags)
    for weight, curve in zip(weights, curves, strict=True):
        agreement += weight * _widest(curve, tolerance)
    common = int(agreement.argmax())
    low, high = max(0, common - tolerance), min(lags, common + tolerance + 1)
    found = np.array([low + int(curve[low:high].argmax()) for curve in curves])
    peaks = np.array([float(curve[low:high].max()) for curve in curves])
    score = float(np.average(peaks, weights=weights))
    return Match(_median(found, weights * peaks) / rate, score)


def rms(sound: NDArray[np.int16]) -> float:
    """Root mean square of the samples; 0.0 without samples."""
    return float(np.sqrt(np.mean(np.square(sound.astype(np.float64))))) if len(sound) else 0.0


def _energies(sound: NDArray[np.int16], window: int, count: int) -> _Float:
    """Energy of the `window` samples that begin at each sample; at least the energy of silence."""
    padded = np.zeros(count + window + 1)
    padded[1 : len(sound) + 1] = np.square(sound.astype(np.float64))
    total = np.cumsum(padded)
    return np.maximum(total[window : window + count] - total[:count], window * _FLOOR**2)


def _widest(curve: NDArray[np.float32], reach: int) -> NDArray[np.float32]:
    """The maximum within `reach` samples of each sample, by doubling."""
    result = np.pad(curve, reach)
    span = 1
    while span < 2 * reach + 1:
        step = min(span, 2 * reach + 1 - span)
        result = np.maximum(result[:-step], result[step:])
        span += step
    return result


def _median(values: NDArray[np.int64], weights: _Float) -> float:
    """The weighted median: a few windows found at a wrong position do not change it."""
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    if total[-1] <= 0:
        return float(values[order[0]])
    return float(values[order[int(np.searchsorted(total, total[-1] / 2))]])
