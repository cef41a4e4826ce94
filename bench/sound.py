"""The telephones' test signals. They are never silent, because buffers run empty in silence, which hides a delay."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RATE = 8000
FREQUENCIES = (600.0, 1000.0, 1400.0, 1800.0, 2200.0)
SPACING = 0.4
"""Seconds from the start of one burst to the next."""
LONGEST_DELAY = SPACING * len(FREQUENCIES) - 0.2
"""The same frequency is not repeated within this many seconds."""
LEAD = 1.0
"""Seconds of murmur before the first burst, in which the audio path must open."""
NOTHING = np.zeros(0, np.int16)
_BURST = 0.1
_LEVEL = 8000.0
_NOISE = 10.0
_MURMUR = 150.0
"""Root mean square. The murmur is a voice, not noise: a jitter buffer shortens excess audio by whole pitch periods."""


@dataclass(frozen=True, slots=True)
class Bursts:
    pcm: NDArray[np.int16]
    begins: list[tuple[int, float]]
    """(sample, frequency) of each burst; the sample is 10 ms before it."""


def bursts(count: int, seed: int) -> Bursts:
    """Tone bursts over a murmur, each at a different position in its 20 ms frame."""
    random = np.random.default_rng(seed)
    seconds = LEAD + count * SPACING + LONGEST_DELAY
    murmur = _voice(seconds, random)
    sound = murmur * (_MURMUR / murmur.std()) + random.normal(0, _NOISE, len(murmur))
    begins = []
    for index in range(count):
        at = round((LEAD + index * SPACING + random.uniform(0, 0.02)) * RATE)
        frequency = FREQUENCIES[index % len(FREQUENCIES)]
        sound[at : at + round(_BURST * RATE)] += _tone(frequency)
        begins.append((at - RATE // 100, frequency))
    return Bursts(_int16(sound), begins)


def _tone(frequency: float) -> NDArray[np.float64]:
    time = np.arange(round(_BURST * RATE)) / RATE
    ramp = np.clip(np.minimum(time, _BURST - time) / 0.002, 0, 1)
    return np.asarray(_LEVEL * np.sin(2 * np.pi * frequency * time) * ramp)


def loud(seconds: float) -> NDArray[np.int16]:
    """A tone that starts at the first sample."""
    return _int16(_LEVEL * np.sin(2 * np.pi * FREQUENCIES[0] * np.arange(round(seconds * RATE)) / RATE))


def speech_like(seconds: float, seed: int) -> NDArray[np.int16]:
    """Voiced and unvoiced sound in the rhythm of syllables, which loads an encoder like speech."""
    random = np.random.default_rng(seed)
    time = np.arange(round(seconds * RATE)) / RATE
    rhythm = 0.08 + 0.92 * np.clip(np.sin(2 * np.pi * 4 * time), 0, 1)
    unvoiced = np.sin(2 * np.pi * 1.3 * time) > 0.7
    sound = rhythm * np.where(unvoiced, random.normal(0, 1500, len(time)), 2500 * _voice(seconds, random))
    return _int16(sound + random.normal(0, _NOISE, len(time)))


def _voice(seconds: float, random: np.random.Generator) -> NDArray[np.float64]:
    """A vowel with a pitch that varies around 120 Hz."""
    time = np.arange(round(seconds * RATE)) / RATE
    pitch = 120 + 25 * np.sin(2 * np.pi * 0.7 * time + random.uniform(0, 6))
    phase = 2 * np.pi * np.cumsum(pitch) / RATE
    loudness = [np.exp(-(((n * 120 - 600) / 700) ** 2)) for n in range(1, 26)]
    return np.asarray(sum(level * np.sin(n * phase) for n, level in enumerate(loudness, 1)))


def _int16(sound: NDArray[np.float64]) -> NDArray[np.int16]:
    return np.clip(np.round(sound), -32768, 32767).astype(np.int16)
