"""Another sample rate for a clip. Mono int16."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray


def resample(pcm: NDArray[np.int16], rate: int, wanted: int) -> NDArray[np.int16]:
    """Change the sample rate by cutting or extending the spectrum of the whole clip.

    The low-pass falls off over the last tenth below the lower of the two Nyquist frequencies, as a raised
    cosine: no aliases, hardly any ringing. Meant for clips, not for streams.
    """
    if rate == wanted or not len(pcm):
        return pcm.copy()
    divisor = math.gcd(rate, wanted)
    up, down = wanted // divisor, rate // divisor
    # Silence at the end, so that the clip's end does not leak into its beginning, up to a whole ratio.
    padded = -(-(len(pcm) + rate // 20) // down) * down
    result = padded // down * up
    spectrum = np.fft.rfft(pcm.astype(np.float64), padded)
    nyquist = min(rate, wanted) / 2
    position = np.clip((np.fft.rfftfreq(padded, 1 / rate) / nyquist - 0.9) / 0.1, 0, 1)
    spectrum *= 0.5 + 0.5 * np.cos(np.pi * position)
    bins = result // 2 + 1
    shaped = np.zeros(bins, np.complex128)
    shaped[: min(bins, len(spectrum))] = spectrum[:bins]
    sound = np.fft.irfft(shaped, result) * (result / padded)
    sound = np.round(sound[: round(len(pcm) * wanted / rate)])
    return np.clip(sound, -32768, 32767).astype(np.int16)
