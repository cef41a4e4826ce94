"""Generates and detects the tones of the telephone keypad (ITU-T Q.23)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

DIGITS = "0123456789*#ABCD"
"""In the order of the RFC 4733 event codes 0 to 15."""

_LOW = (697, 770, 852, 941)
_HIGH = (1209, 1336, 1477, 1633)
_ROWS = ("123A", "456B", "789C", "*0#D")
_FREQUENCIES = {
    digit: (low, high) for low, row in zip(_LOW, _ROWS, strict=True) for digit, high in zip(row, _HIGH, strict=True)
}
_CODES = {digit: code for code, digit in enumerate(DIGITS)}

# A sine at full scale is +3.17 dBm0 in mu-law (G.711), so 0 dBm0 has this amplitude.
_ZERO_DBM0 = 32124 * 10 ** (-3.17 / 20)
# The higher tone is sent 2 dB louder, since lines carry it worse (ETSI ES 201 235-2).
_LOW_LEVEL = _ZERO_DBM0 * 10 ** (-11 / 20)
_HIGH_LEVEL = _ZERO_DBM0 * 10 ** (-9 / 20)
_RAMP = 0.005

_BLOCK = 0.0256
"""Seconds per analysed block: 205 samples at 8 kHz, just enough to separate the frequencies."""
_OFF = (0.985, 0.9925, 1.0, 1.0075, 1.015)
"""Frequency factors to test: tones may be 1.5 % off (ITU-T Q.24), more than one analysis bin covers."""
_AUDIBLE = 100
"""A peak below this (-47 dBm0) is no tone."""
_PURE = 0.6
"""Minimum share of the energy in the two tones; speech and noise have less."""
_DISTINCT = 6.0
"""Minimum energy ratio of a tone to the next strongest of its group."""
_TWIST = 10.0
"""Maximum energy ratio between the two tones (10 dB)."""


def event_code(digit: str) -> int:
    """The RFC 4733 event code, 0 to 15. ValueError for anything but one key of the keypad."""
    code = _CODES.get(digit.upper())
    if code is None:
        raise ValueError("not a key of the keypad")
    return code


def tone(digit: str, duration: float = 0.16, pause: float = 0.06, rate: int = 8000) -> NDArray[np.int16]:
    """`duration` seconds of the digit's two tones, then `pause` seconds of silence; `rate` in hertz.

    -11 and -9 dBm0, faded in and out over 5 ms so that nothing clicks. ValueError for anything but one key.
    """
    frequencies = _FREQUENCIES.get(digit.upper())
    if frequencies is None:
        raise ValueError("not a key of the keypad")
    low, high = frequencies
    length = round(duration * rate)
    phase = 2 * np.pi * np.arange(length) / rate
    wave = _LOW_LEVEL * np.sin(low * phase) + _HIGH_LEVEL * np.sin(high * phase)
    ramp_length = min(round(_RAMP * rate), length // 2)
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp_length) + 0.5) / max(ramp_length, 1))
    wave[:ramp_length] *= ramp
    wave[length - ramp_length :] *= ramp[::-1]
    return np.concatenate([np.rint(wave), np.zeros(round(pause * rate))]).astype(np.int16)


def detect(pcm: NDArray[np.int16], rate: int) -> str | None:
    """The one digit in `pcm`, with or without silence around it; None if there is none.

    Measures the energy of the eight frequencies (as Goertzel does) over blocks of 25.6 ms; shorter tones are not
    recognised.
    """
    sounding = _sounding(pcm)
    block = round(_BLOCK * rate)
    blocks = len(sounding) // block
    if not blocks:
        return None
    samples = sounding[: blocks * block].reshape(blocks, block)
    turns = np.outer(np.arange(block) / rate, np.outer(_LOW + _HIGH, _OFF).ravel())
    spectrum = (np.abs(samples @ np.exp(-2j * np.pi * turns)) ** 2).sum(axis=0)
    # The share of the total energy that a pure tone of each frequency accounts for.
    shares = 2 * spectrum.reshape(8, len(_OFF)).max(axis=1) / (block * np.sum(samples**2))
    low, high = int(np.argmax(shares[:4])), int(np.argmax(shares[4:]))
    strong, others = shares[[low, 4 + high]], np.delete(shares, [low, 4 + high])
    if strong.sum() < _PURE or strong.max() > _TWIST * strong.min():
        return None
    if strong[0] < _DISTINCT * others[:3].max() or strong[1] < _DISTINCT * others[3:].max():
        return None
    return _ROWS[low][high]


def _sounding(pcm: NDArray[np.int16]) -> NDArray[np.float64]:
    """The samples without the silence at both ends; empty when there is only silence."""
    samples = pcm.astype(np.float64)
    loudness = np.abs(samples)
    loudest = loudness.max(initial=0.0)
    if loudest < _AUDIBLE:
        return samples[:0]
    audible = np.flatnonzero(loudness > 0.1 * loudest)
    return samples[audible[0] : audible[-1] + 1]
