"""The benchmark's arithmetic, on sounds and numbers whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from bench import sound
from bench.analysis import amplitude, delays, median, onset, percentile, slope

RATE = sound.RATE


def shifted(pcm: np.ndarray, samples: int, seed: int = 1) -> np.ndarray:
    """What a line would deliver: later, quieter, with noise of its own."""
    noise = np.random.default_rng(seed).normal(0, 30, len(pcm) + samples)
    noise[samples:] += pcm * 0.6
    return noise.astype(np.int16)


def test_amplitude_is_that_of_the_one_frequency() -> None:
    time = np.arange(RATE) / RATE
    pcm = (3000 * np.sin(2 * np.pi * 600 * time) + 5000 * np.sin(2 * np.pi * 1000 * time)).astype(np.int16)
    assert np.allclose(amplitude(pcm, 600), 3000, rtol=0.02)
    assert np.allclose(amplitude(pcm, 1000), 5000, rtol=0.02)
    assert amplitude(pcm, 1400).max() < 50


def test_onset_is_at_half_the_loudness() -> None:
    tone = sound.loud(0.2)
    pcm = np.concatenate((np.zeros(800, np.int16), tone))
    found = onset(pcm, sound.FREQUENCIES[0])
    assert found == pytest.approx(800 - 20, abs=4), "half of the 40-sample window must hold the tone"


@pytest.mark.parametrize("pcm", [np.zeros(0, np.int16), np.zeros(8000, np.int16), np.full(20, 9000, np.int16)])
def test_no_onset_without_a_tone(pcm: np.ndarray) -> None:
    assert onset(pcm, 600) is None


@pytest.mark.parametrize("milliseconds", [0, 1, 37, 119, 400, 1200])
def test_a_known_delay_is_found_for_every_burst(milliseconds: int) -> None:
    said = sound.bursts(12, seed=3)
    found = delays(said.pcm, shifted(said.pcm, milliseconds * RATE // 1000), said.begins, sound.LONGEST_DELAY)
    assert len(found) == 12
    for delay in found:
        assert delay == pytest.approx(milliseconds / 1000, abs=0.0005)


def test_a_lost_burst_is_none_and_shifts_no_other() -> None:
    said = sound.bursts(8, seed=4)
    heard = shifted(said.pcm, 800)
    begins, _ = said.begins[3]
    heard[begins + 700 : begins + 700 + RATE // 4] = 0
    found = delays(said.pcm, heard, said.begins, sound.LONGEST_DELAY)
    assert found[3] is None
    assert [delay for delay in found if delay is not None] == pytest.approx([0.1] * 7, abs=0.0005)


def test_the_sounds_are_never_silent_to_the_carrier() -> None:
    for pcm in (sound.bursts(5, 1).pcm, sound.speech_like(2.0, 1)):
        frames = pcm[: len(pcm) // 160 * 160].reshape(-1, 160)
        assert (np.abs(frames).max(axis=1) > 4).all()


def test_percentiles_interpolate() -> None:
    values = [float(value) for value in range(101)]
    assert (median(values), percentile(values, 0.99)) == (50.0, 99.0)
    assert percentile([1.0, 2.0], 0.25) == 1.25


def test_slope_is_that_of_the_best_line() -> None:
    assert slope([(0, 5.0), (1, 7.0), (8, 21.0)]) == pytest.approx(2.0)
    assert slope([(0, 1.0), (0, 3.0), (4, 2.0)]) == pytest.approx(0.0)
