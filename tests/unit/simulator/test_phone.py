from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrier_simulator.g711 import ulaw_decode
from carrier_simulator.phone import RATE, SILENCE, Ear, Mouth
from carrier_simulator.sounds import ALAW, LINEAR_8_LITTLE, LINEAR_16_BIG, LINEAR_16_LITTLE, MULAW, Sound


def at(sample: int) -> float:
    return 1000.0 + sample / RATE


def test_the_mouth_says_what_waits_and_then_silence() -> None:
    mouth = Mouth()
    mouth.say(ulaw_decode(b"abc"))
    mouth.say(ulaw_decode(b"de"))
    assert [mouth.next(2), mouth.next(2), mouth.next(2)] == [b"ab", b"cd", b"e" + SILENCE]
    assert mouth.waiting == 0


@pytest.mark.parametrize("sound", [ALAW, LINEAR_8_LITTLE, LINEAR_16_LITTLE, LINEAR_16_BIG], ids=lambda s: s.name)
def test_what_waits_is_said_in_the_coding_of_the_stream(sound: Sound) -> None:
    said = (8000 * np.sin(2 * np.pi * 440 * np.arange(1600) / 8000)).astype(np.int16)
    mouth = Mouth()
    mouth.say(said)
    assert mouth.seconds == 0.2
    mouth.speak_as(sound)
    assert (mouth.seconds, mouth.waiting) == (0.2, sound.rate // 5)
    mouth.say(said)
    pcm = sound.decode(mouth.next(sound.rate * 2 // 5))
    for half in np.split(pcm, 2):
        spectrum = np.abs(np.fft.rfft(half))
        assert np.argmax(spectrum) * sound.rate / len(half) == 440
        assert 7500 < np.max(np.abs(half[len(half) // 4 : -len(half) // 4].astype(int))) < 8500
    assert sound.is_silent(mouth.next(10))


@pytest.mark.parametrize("sound", [MULAW, ALAW, LINEAR_16_BIG], ids=lambda s: s.name)
def test_silence_is_told_from_sound(sound: Sound) -> None:
    assert sound.is_silent(sound.encode(np.zeros(8, np.int16)))
    assert not sound.is_silent(sound.encode(np.array([0, 0, 500, 0], np.int16)))
    assert np.abs(sound.decode(sound.silence * 3)).max() <= 8


def test_an_ear_counts_in_samples_of_its_coding() -> None:
    ear = Ear(1000.0, LINEAR_16_BIG)
    ear.receive(1000.0, b"ab" * 160)
    ear.mark(1000.0, "end")
    assert (ear.buffered(1000.0), ear.next_mark_at()) == (160, 1000.01)
    ear.advance(1000.02)
    assert (bytes(ear.heard), list(ear.reached)) == (b"ab" * 160 + b"\0\0" * 160, ["end"])


def test_audio_is_heard_from_the_sample_at_which_it_arrives() -> None:
    ear = Ear(at(0))
    ear.receive(at(100), b"x" * 50)
    ear.advance(at(200))
    assert bytes(ear.heard) == SILENCE * 100 + b"x" * 50 + SILENCE * 50


def test_audio_that_arrives_early_waits_for_its_turn() -> None:
    ear = Ear(at(0))
    ear.receive(at(0), b"a" * 100)
    ear.receive(at(10), b"b" * 100)
    ear.advance(at(250))
    assert bytes(ear.heard) == b"a" * 100 + b"b" * 100 + SILENCE * 50


def test_a_mark_is_reached_when_what_came_before_it_has_been_played() -> None:
    ear = Ear(at(0))
    ear.receive(at(0), b"a" * 100)
    ear.mark(at(0), "end of a")
    ear.receive(at(0), b"b" * 100)
    assert ear.next_mark_at() == at(100)
    ear.advance(at(99))
    assert not ear.reached
    ear.advance(at(100))
    assert list(ear.reached) == ["end of a"]
    assert ear.next_mark_at() is None


def test_a_mark_with_nothing_before_it_is_reached_at_once() -> None:
    ear = Ear(at(0))
    ear.mark(at(5), "now")
    assert list(ear.reached) == ["now"]


def test_clear_drops_the_audio_and_returns_the_marks_in_order() -> None:
    ear = Ear(at(0))
    ear.receive(at(0), b"a" * 100)
    ear.mark(at(0), "one")
    ear.receive(at(0), b"b" * 100)
    ear.mark(at(0), "two")
    assert ear.clear(at(30)) == ["one", "two"]
    ear.advance(at(120))
    assert not ear.reached
    assert bytes(ear.heard) == b"a" * 30 + SILENCE * 90


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 300))))
def test_every_sample_is_heard_once_and_in_order(arrivals: list[tuple[int, int]]) -> None:
    ear, sent, now = Ear(at(0)), bytearray(), 0
    for gap, length in arrivals:
        now += gap
        audio = bytes((len(sent) + index) % 251 for index in range(length))
        sent += audio
        ear.receive(at(now), audio)
        assert len(ear.heard) == now
    ear.advance(at(now + len(sent)))
    assert bytes(ear.heard).replace(SILENCE, b"") == bytes(sent)
