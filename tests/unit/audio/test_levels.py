from __future__ import annotations

import numpy as np
import pytest

from connector.audio.g711 import ULAW_SILENCE, ulaw_encode
from connector.audio.levels import SILENT_MAX, SILENT_MIN, is_silent, peak

SILENCES = {ULAW_SILENCE, 0x7F}


@pytest.mark.parametrize(
    ("samples", "expected"),
    [
        ([], 0),
        ([0], 0),
        ([5, -3], 5),
        ([5, -7], 7),
        ([-7, -9], 9),
        ([3, 2], 3),
        ([32767], 32767),
        ([-32768], 32768),
        ([-32768, 32767], 32768),
    ],
)
def test_peak(samples: list[int], expected: int) -> None:
    assert peak(np.array(samples, np.int16)) == expected


def test_silence_is_what_mu_law_calls_silence_for_every_sample() -> None:
    for sample in range(-32768, 32768):
        pcm = np.array([sample], np.int16)
        assert is_silent(pcm) == (ulaw_encode(pcm)[0] in SILENCES)


@pytest.mark.parametrize("position", [0, 80, 159])
@pytest.mark.parametrize("sample", [SILENT_MAX + 1, SILENT_MIN - 1, 32767, -32768])
def test_one_audible_sample_is_enough(position: int, sample: int) -> None:
    pcm = np.zeros(160, np.int16)
    pcm[position] = sample
    assert not is_silent(pcm)


def test_the_whole_band_of_silence_and_nothing_at_all_are_silent() -> None:
    assert is_silent(np.arange(SILENT_MIN, SILENT_MAX + 1).astype(np.int16))
    assert is_silent(np.array([], np.int16))
