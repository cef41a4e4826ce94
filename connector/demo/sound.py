"""Small sound tools for the demo: change the sample rate, set the level, read and write WAV files.

Sound is mono int16 throughout.
"""

from __future__ import annotations

import math
import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TELEPHONE_RATE = 8000


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
    return _int16(sound[: round(len(pcm) * wanted / rate)])


def normalise(pcm: NDArray[np.int16], peak: int = 20_000) -> NDArray[np.int16]:
    """Set the loudest sample to `peak`; silence stays silence."""
    loudest = int(np.abs(pcm.astype(np.int32)).max(initial=0))
    return _int16(pcm * (peak / loudest)) if loudest else pcm.copy()


def trim(pcm: NDArray[np.int16], threshold: int = 200) -> NDArray[np.int16]:
    """Cut the near-silence off both ends."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > threshold)
    return pcm[loud[0] : loud[-1] + 1].copy() if len(loud) else pcm[:0].copy()


def _int16(sound: NDArray[np.floating[Any]]) -> NDArray[np.int16]:
    return np.clip(np.round(sound), -32768, 32767).astype(np.int16)


def write_wav(path: Path, pcm: NDArray[np.int16], rate: int = TELEPHONE_RATE) -> None:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(pcm.astype("<i2").tobytes())


def read_wav(path: Path) -> tuple[NDArray[np.int16], int]:
    """Return (samples, rate) of a mono 16-bit file; ValueError for any other kind."""
    with wave.open(str(path), "rb") as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise ValueError(f"{path} is not mono 16-bit PCM")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16), file.getframerate()
