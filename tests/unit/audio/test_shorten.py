"""A sound becomes shorter and stays what it is."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from connector.audio.shorten import Standing, shorten


def vowel(rate: int, seconds: float, pitch: float = 130.0, level: float = 6000.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * pitch * n * time + n) / n for n in range(1, 8))
    return np.asarray(np.round(level * sound), np.int16)


@pytest.mark.parametrize("rate", [8000, 16000])
@pytest.mark.parametrize("pitch", [90.0, 130.0, 200.0, 350.0])
def test_a_voice_loses_whole_periods(rate: int, pitch: float) -> None:
    sound = vowel(rate, 0.02, pitch)
    gone = (len(sound) - len(shorten(sound, rate))) / rate
    assert gone * pitch == pytest.approx(round(gone * pitch), abs=0.05)
    assert gone >= 0.0025


@pytest.mark.parametrize("rate", [8000, 16000])
def test_what_follows_fits_on(rate: int) -> None:
    """Shortened in the middle, a voice is the same voice: no jump is greater than those it has anyway."""
    sound = vowel(rate, 0.1)
    frame = rate // 50
    joined = np.concatenate((sound[: 2 * frame], shorten(sound[2 * frame : 3 * frame], rate), sound[3 * frame :]))
    assert len(joined) < len(sound)
    steps = np.abs(np.diff(joined.astype(int)))
    assert steps.max() <= np.abs(np.diff(sound.astype(int))).max() * 1.1


def test_noise_that_is_loud_is_left_alone() -> None:
    noise = np.random.default_rng(1).normal(0, 5000, 160).astype(np.int16)
    assert shorten(noise, 8000) is noise


def test_background_noise_gives_all_it_can() -> None:
    noise = np.random.default_rng(1).normal(0, 60, 160).astype(np.int16)
    assert len(shorten(noise, 8000)) == 64


def test_what_is_too_short_is_left_alone() -> None:
    short = np.zeros(70, np.int16)
    assert shorten(short, 8000) is short


@given(arrays.arrays(np.int16, st.integers(0, 700)), st.sampled_from([8000, 16000]))
def test_any_sound_keeps_its_last_samples_and_grows_never(pcm: np.ndarray, rate: int) -> None:
    before = pcm.copy()
    result = shorten(pcm, rate)
    assert (pcm == before).all()
    assert result.dtype == np.int16
    assert len(result) <= len(pcm)
    kept = min(len(result), len(pcm)) - round(rate * 0.008)
    if kept > 0:
        assert (result[-kept:] == pcm[-kept:]).all()


def test_a_delay_stands_when_it_never_went_away() -> None:
    standing = Standing(window=0.5)
    seen = [standing.of(n * 0.02, 0.04 + 0.02 * (n % 2)) for n in range(40)]
    assert seen[:25] == [0.0] * 25
    assert seen[26:] == [0.04] * 14


def test_one_moment_without_it_counts_for_the_window() -> None:
    standing = Standing(window=0.5)
    for n in range(50):
        standing.of(n * 0.02, 0.0 if n == 30 else 0.1)
    assert standing.of(1.08, 0.1) == 0.0
    assert standing.of(1.12, 0.1) == 0.1


def test_what_was_worked_off_is_not_worked_off_again() -> None:
    standing = Standing(window=0.5)
    for n in range(50):
        standing.of(n * 0.02, 0.1)
    standing.worked_off(0.03)
    assert standing.of(1.0, 0.1) == pytest.approx(0.07)
    assert standing.of(1.6, 0.1) == pytest.approx(0.1), "it had not helped"
