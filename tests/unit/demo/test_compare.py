from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from connector.audio.g711 import ulaw_decode, ulaw_encode
from demo import script
from demo.compare import find_delay

RATE = 8000
Sound = NDArray[np.int16]


@pytest.fixture(scope="module")
def sentence() -> Sound:
    return script.sentence()


def placed(sound: Sound, seconds: float, lasts: float = 10.0) -> Sound:
    result = np.zeros(round(lasts * RATE), np.int16)
    start = round(seconds * RATE)
    result[start : start + len(sound)] = sound[: len(result) - start]
    return result


@pytest.mark.parametrize("at", [0.0, 0.0125, 1.5, 6.0])
def test_a_sound_is_found_where_it_is(sentence: Sound, at: float) -> None:
    match = find_delay(sentence, placed(sentence, at), RATE)
    assert match.delay_seconds == pytest.approx(at, abs=1 / RATE)
    assert match.score == pytest.approx(1, abs=0.001)


@pytest.mark.parametrize("level", [0.05, 0.5, 1.5])
def test_the_level_does_not_matter(sentence: Sound, level: float) -> None:
    heard = placed((sentence * level).astype(np.int16), 2)
    match = find_delay(sentence, heard, RATE)
    assert match.delay_seconds == pytest.approx(2, abs=0.001)
    assert match.score > 0.95


def test_it_is_found_through_a_codec_noise_and_another_voice(sentence: Sound) -> None:
    rng = np.random.default_rng(7)
    heard = placed(sentence // 3, 5).astype(float) + rng.normal(0, 200, 10 * RATE)
    heard += placed(script.greeting(), 0.5)
    coded = ulaw_decode(ulaw_encode(heard.astype(np.int16)))
    match = find_delay(sentence, coded, RATE)
    assert match.delay_seconds == pytest.approx(5, abs=0.001)
    assert match.score > 0.7


def test_it_is_found_when_some_milliseconds_were_left_out_on_the_way(sentence: Sound) -> None:
    """As a jitter buffer does: one correlation over the whole sound would fall apart."""
    pieces = [sentence[start : start + 7960] for start in range(0, len(sentence), 8000)]
    match = find_delay(sentence, placed(np.concatenate(pieces), 3), RATE)
    assert match.delay_seconds == pytest.approx(3, abs=0.016)
    assert match.score > 0.9


def test_it_is_found_when_time_runs_half_a_percent_faster(sentence: Sound) -> None:
    faster = np.interp(np.arange(0, len(sentence), 1.005), np.arange(len(sentence)), sentence)
    match = find_delay(sentence, placed(faster.astype(np.int16), 3), RATE)
    assert match.delay_seconds == pytest.approx(3, abs=0.02)
    assert match.score > 0.75


def test_other_speech_noise_tones_and_silence_are_not_it(sentence: Sound) -> None:
    rng = np.random.default_rng(7)
    tone = (8000 * np.sin(2 * np.pi * 300 * np.arange(10 * RATE) / RATE)).astype(np.int16)
    loud_noise = rng.normal(0, 8000, 10 * RATE).clip(-32768, 32767).astype(np.int16)
    for other in (placed(script.greeting(), 1), loud_noise, tone, np.zeros(10 * RATE, np.int16)):
        assert find_delay(sentence, other, RATE).score < 0.45


def test_the_same_words_backwards_or_upside_down_are_not_it(sentence: Sound) -> None:
    assert find_delay(sentence, placed(sentence[::-1], 1), RATE).score < 0.45
    assert find_delay(sentence, placed(-sentence, 1), RATE).score < 0.7


def test_half_of_it_scores_about_half(sentence: Sound) -> None:
    half = placed(sentence[: len(sentence) // 2], 1)
    assert 0.3 < find_delay(sentence, half, RATE).score < 0.8


@pytest.mark.parametrize(("reference", "heard"), [(0, 800), (800, 0), (0, 0)])
def test_nothing_matches_nothing(reference: int, heard: int) -> None:
    match = find_delay(np.zeros(reference, np.int16), np.zeros(heard, np.int16), RATE)
    assert match.score == 0


def test_a_sound_longer_than_what_was_heard_is_looked_for_all_the_same(sentence: Sound) -> None:
    assert find_delay(sentence, sentence[: RATE // 2], RATE).delay_seconds == 0
