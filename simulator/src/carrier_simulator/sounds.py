"""How a stream's samples are coded. Mono, always; `pcm` is int16."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from carrier_simulator.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode

Pcm = NDArray[np.int16]


@dataclass(frozen=True, slots=True)
class Sound:
    """One coding: samples per second, bytes per sample, the value of a silent sample."""

    name: str
    rate: int
    width: int
    silence: bytes
    silent_bytes: bytes
    """Bytes of which nothing but silence is made."""
    encode: Callable[[Pcm], bytes]
    decode: Callable[[bytes], Pcm]

    def is_silent(self, coded: bytes) -> bool:
        return not coded.strip(self.silent_bytes)

    def samples(self, seconds: float) -> int:
        return round(seconds * self.rate)


def _linear(name: str, rate: int, order: str) -> Sound:
    kind = f"{order}i2"
    return Sound(
        name,
        rate,
        2,
        b"\0\0",
        b"\0",
        lambda pcm: pcm.astype(kind).tobytes(),
        lambda coded: np.frombuffer(coded, kind).astype(np.int16),
    )


MULAW = Sound("mu-law", 8000, 1, b"\xff", b"\xff\x7f", ulaw_encode, ulaw_decode)
ALAW = Sound("A-law", 8000, 1, b"\xd5", b"\xd5\x55", alaw_encode, alaw_decode)
LINEAR_8_BIG = _linear("8 kHz, big-endian", 8000, ">")
LINEAR_16_BIG = _linear("16 kHz, big-endian", 16000, ">")
LINEAR_8_LITTLE = _linear("8 kHz, little-endian", 8000, "<")
LINEAR_16_LITTLE = _linear("16 kHz, little-endian", 16000, "<")
