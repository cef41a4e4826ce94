"""Small sound tools for the demo: set the level, trim silence, read and write WAV files.

Sound is mono int16 throughout.
"""

from __future__ import annotations

import wave
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TELEPHONE_RATE = 8000


def normalise(pcm: NDArray[np.int16], peak: int = 20_000) -> NDArray[np.int16]:
    """Scales the sound so that the loudest sample is `peak`; silence stays silence."""
    loudest = int(np.abs(pcm.astype(np.int32)).max(initial=0))
    return _int16(pcm * (peak / loudest)) if loudest else pcm.copy()


def trim(pcm: NDArray[np.int16], threshold: int = 200) -> NDArray[np.int16]:
    """Trims near-silence at both ends."""
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
    """Returns (samples, rate) of a mono 16-bit file; ValueError for any other format."""
    with wave.open(str(path), "rb") as file:
        if file.getnchannels() != 1 or file.getsampwidth() != 2:
            raise ValueError(f"{path} is not mono 16-bit PCM")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16), file.getframerate()
