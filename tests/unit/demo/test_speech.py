from __future__ import annotations

from pathlib import Path

import espeakng_loader
import numpy as np
import pytest

from demo.compare import find_delay
from demo.speech import SpeechError, speak

SENTENCE = "The quick brown fox jumps over the lazy dog."


def test_a_sentence_is_spoken_at_telephone_rate() -> None:
    sound = speak(SENTENCE)
    assert sound.dtype == np.int16
    assert 1.5 < len(sound) / 8000 < 5
    assert np.abs(sound.astype(int)).max() == 20_000


def test_the_same_text_is_the_same_sound_and_another_is_not() -> None:
    first, other = speak(SENTENCE), speak("Nothing of the kind was ever said by anyone.")
    speak.cache_clear()
    np.testing.assert_array_equal(speak(SENTENCE), first)
    assert find_delay(first, other, 8000).score < 0.4


def test_another_voice_does_not_pass_for_the_first() -> None:
    assert find_delay(speak(SENTENCE), speak(SENTENCE, voice="en-us+f3"), 8000).score < 0.6


def test_speech_that_others_hold_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        speak(SENTENCE)[0] = 1


def test_a_voice_that_does_not_exist_is_an_error() -> None:
    with pytest.raises(SpeechError, match="no voice 'martian'"):
        speak(SENTENCE, voice="martian")


def test_text_without_a_sound_is_an_error() -> None:
    with pytest.raises(SpeechError):
        speak("")


def test_data_under_a_long_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from demo import espeak

    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    real = Path(espeakng_loader.get_data_path())
    (deep / "espeak-ng-data").symlink_to(real, target_is_directory=True)
    monkeypatch.setattr(espeakng_loader, "get_data_path", lambda: str(deep / "espeak-ng-data"))
    rate, samples = espeak.synthesise("Hello", "en-us", 165, 50)
    assert (rate, len(samples) > rate // 2) == (22050, True)
