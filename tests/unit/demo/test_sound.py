from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from carrier_simulator.resample import resample
from demo.sound import normalise, read_wav, trim, write_wav


def sine(frequency: float, rate: int, seconds: float = 0.5) -> NDArray[np.int16]:
    return (10_000 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)).astype(np.int16)


@pytest.mark.parametrize(("rate", "wanted"), [(22050, 8000), (48000, 8000), (8000, 48000), (8000, 8000)])
def test_a_tone_stays_that_tone_at_another_rate(rate: int, wanted: int) -> None:
    result = resample(sine(1000, rate), rate, wanted)
    assert len(result) == wanted // 2
    # The ends ring a little, as a band limit must.
    edge = wanted // 50
    error = result[edge:-edge].astype(float) - sine(1000, wanted)[edge:-edge]
    assert np.abs(error).max() < 60


def test_what_the_lower_rate_cannot_hold_is_gone_not_folded_back() -> None:
    result = resample(sine(5000, 22050), 22050, 8000)
    assert np.abs(result[100:-100].astype(int)).max() < 20


def test_nothing_stays_nothing() -> None:
    assert len(resample(np.zeros(0, np.int16), 22050, 8000)) == 0
    assert len(trim(np.zeros(100, np.int16))) == 0
    assert not normalise(np.zeros(100, np.int16)).any()


def test_the_level_is_set_by_the_loudest_sample() -> None:
    assert normalise(np.array([-32768, 100], np.int16), 16384).tolist() == [-16384, 50]


def test_silence_is_cut_off_the_ends_only() -> None:
    sound = np.array([0, 150, 900, 0, 0, -900, -150], np.int16)
    assert trim(sound).tolist() == [900, 0, 0, -900]


def test_a_wav_file_holds_what_was_written(tmp_path: Path) -> None:
    sound = np.array([0, 1, -1, 32767, -32768], np.int16)
    write_wav(tmp_path / "a.wav", sound, 16000)
    read, rate = read_wav(tmp_path / "a.wav")
    assert (read.tolist(), rate) == (sound.tolist(), 16000)


def test_a_wav_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with wave.open(str(tmp_path / "a.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0" * 8)
    with pytest.raises(ValueError, match="mono"):
        read_wav(tmp_path / "a.wav")
