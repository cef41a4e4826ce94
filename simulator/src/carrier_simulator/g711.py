"""G.711 from the tables of ITU-T G.711.

For each law the recommendation lists, for each sign, 128 output values ("quantized value") and the decision values at
which each begins: eight segments of sixteen equal steps. Here they are on the scale of 16-bit samples, and a sample is
coded by a search among the decision values. Below zero the same tables hold for the complement of the sample.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Pcm = NDArray[np.int16]
_Table = NDArray[np.int64]

_STEPS = np.arange(16)


def _segments(of: Callable[[int], _Table]) -> _Table:
    return np.concatenate([of(segment) for segment in range(8)])


# Mu-law, tables 2a and 2b, on a 14-bit scale: outputs 0, 2 ... 30, 33, 37 ... 8031; decisions 1, 3 ... 31, 35 ... 7903.
_MU_OUTPUTS = 4 * _segments(lambda segment: (2 * _STEPS + 33) * 2**segment - 33)
_MU_DECISIONS = 4 * _segments(lambda segment: (2 * _STEPS + 32) * 2**segment - 33)[1:]
# A-law, tables 1a and 1b, on a 13-bit scale: outputs 1, 3 ... 63, 66 ... 4032; decisions 2, 4 ... 64, 68 ... 3968.
_A_OUTPUTS = 8 * _segments(lambda segment: (2 * _STEPS + 33) * 2**segment // 2 if segment else 2 * _STEPS + 1)
_A_DECISIONS = 8 * _segments(lambda segment: (_STEPS + 16) * 2**segment if segment else 2 * _STEPS)[1:]


def _mu_code(position: _Table, negative: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The sign bit is 1 above zero, and the other seven are sent inverted."""
    return np.where(negative, 0x7F - position, 0xFF - position).astype(np.uint8)


def _a_code(position: _Table, negative: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """The sign bit is 1 above zero; every other bit is sent inverted."""
    return (np.where(negative, position, position | 0x80) ^ 0x55).astype(np.uint8)


_Code = Callable[[_Table, NDArray[np.bool_]], NDArray[np.uint8]]


def _encoder(decisions: _Table, code: _Code) -> Callable[[Pcm], bytes]:
    samples = np.arange(0x10000, dtype=np.uint16).view(np.int16)
    negative = samples < 0
    magnitude = np.where(negative, ~samples, samples)
    codes = code(np.searchsorted(decisions, magnitude, side="right"), negative)

    def encode(pcm: Pcm) -> bytes:
        if pcm.dtype != np.int16:
            raise TypeError(f"samples must be int16, not {pcm.dtype}")
        return codes[pcm.view(np.uint16)].tobytes()

    return encode


def _decoder(outputs: _Table, code: _Code) -> Callable[[bytes], Pcm]:
    samples = np.zeros(256, np.int16)
    positions = np.arange(128)
    samples[code(positions, np.zeros(128, np.bool_))] = outputs
    samples[code(positions, np.ones(128, np.bool_))] = -outputs

    def decode(coded: bytes) -> Pcm:
        return samples[np.frombuffer(coded, np.uint8)]

    return decode


ulaw_encode = _encoder(_MU_DECISIONS, _mu_code)
ulaw_decode = _decoder(_MU_OUTPUTS, _mu_code)
alaw_encode = _encoder(_A_DECISIONS, _a_code)
alaw_decode = _decoder(_A_OUTPUTS, _a_code)
