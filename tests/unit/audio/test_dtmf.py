from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from numpy.typing import NDArray

from connector.audio import g711
from connector.audio.dtmf import DIGITS, detect, event_code, tone
from connector.audio.levels import peak
from connector.carriers.events import DTMF_KEYS

# ITU-T Q.23, written out.
FREQUENCIES = {
    "1": (697, 1209), "2": (697, 1336), "3": (697, 1477), "A": (697, 1633),
    "4": (770, 1209), "5": (770, 1336), "6": (770, 1477), "B": (770, 1633),
    "7": (852, 1209), "8": (852, 1336), "9": (852, 1477), "C": (852, 1633),
    "*": (941, 1209), "0": (941, 1336), "#": (941, 1477), "D": (941, 1633),
}  # fmt: skip
ALL_FREQUENCIES = sorted({f for pair in FREQUENCIES.values() for f in pair})
NOT_KEYS = ["", "12", "E", "a1", " 1", "+", "\u0661", "ß", "\x00"]


def strengths(pcm: NDArray[np.int16], rate: int) -> dict[int, float]:
    """The amplitude of each keypad frequency."""
    time = np.arange(len(pcm)) / rate
    return {f: 2 / len(pcm) * abs(np.sum(pcm * np.exp(-2j * np.pi * f * time))) for f in ALL_FREQUENCIES}


@pytest.mark.parametrize("rate", [8000, 16000, 48000])
@pytest.mark.parametrize("digit", DIGITS)
def test_a_tone_has_the_two_standard_frequencies_and_no_other(digit: str, rate: int) -> None:
    pcm = tone(digit, duration=0.2, pause=0, rate=rate)
    by_strength = sorted(strengths(pcm, rate).items(), key=lambda item: -item[1])
    assert tuple(sorted(f for f, _ in by_strength[:2])) == FREQUENCIES[digit]
    assert by_strength[1][1] > 10 * by_strength[2][1]


@pytest.mark.parametrize("digit", DIGITS)
def test_the_levels_are_those_of_a_telephone(digit: str) -> None:
    pcm = tone(digit, duration=1.0, pause=0).astype(float)
    # 0 dBm0 is 3.17 dB below the loudest sine that mu-law can carry.
    zero = 32124 / np.sqrt(2) * 10 ** (-3.17 / 20)
    assert 20 * np.log10(np.sqrt(np.mean(pcm**2)) / zero) == pytest.approx(-6.9, abs=0.2)
    low, high = (strengths(pcm, 8000)[f] for f in FREQUENCIES[digit])
    assert 20 * np.log10(high / low) == pytest.approx(2.0, abs=0.2)


@pytest.mark.parametrize("rate", [8000, 48000])
def test_a_tone_has_the_length_asked_for_and_does_not_click(rate: int) -> None:
    pcm = tone("5", duration=0.1, pause=0.05, rate=rate)
    assert len(pcm) == round(0.15 * rate)
    assert not pcm[round(0.1 * rate) :].any()
    body = pcm[: round(0.1 * rate)]
    first_ms = round(0.001 * rate)
    assert peak(body[:first_ms]) < 0.15 * peak(body)
    assert peak(body[-first_ms:]) < 0.15 * peak(body)
    assert max(abs(int(body[0])), abs(int(body[-1]))) < 100


def test_the_usual_tone_is_long_enough_for_every_receiver() -> None:
    pcm = tone("#")
    assert np.flatnonzero(pcm)[-1] >= 0.1 * 8000
    assert len(pcm) == round(0.22 * 8000)


@pytest.mark.parametrize("length", [0, 1, 7, 39, 41])
def test_even_the_shortest_tones_can_be_made(length: int) -> None:
    assert len(tone("1", duration=length / 8000, pause=0)) == length


def test_event_codes_are_those_of_rfc_4733() -> None:
    assert [event_code(digit) for digit in "0123456789*#ABCD"] == list(range(16))
    assert [event_code(digit) for digit in "abcd"] == [12, 13, 14, 15]
    assert frozenset(DIGITS) == DTMF_KEYS


@pytest.mark.parametrize("digit", NOT_KEYS)
def test_what_is_no_key_has_neither_code_nor_tone(digit: str) -> None:
    with pytest.raises(ValueError, match="key"):
        event_code(digit)
    with pytest.raises(ValueError, match="key"):
        tone(digit)


class TestDetect:
    @pytest.mark.parametrize("rate", [8000, 16000, 48000])
    @pytest.mark.parametrize("digit", DIGITS)
    def test_finds_every_digit(self, digit: str, rate: int) -> None:
        assert detect(tone(digit, duration=0.04, rate=rate), rate) == digit
        assert detect(tone(digit, duration=1.0, rate=rate), rate) == digit

    @pytest.mark.parametrize("digit", DIGITS)
    def test_finds_it_after_the_telephone_line(self, digit: str) -> None:
        pcm = np.concatenate([np.zeros(777, np.int16), tone(digit)])
        for encode, decode in ((g711.ulaw_encode, g711.ulaw_decode), (g711.alaw_encode, g711.alaw_decode)):
            assert detect(decode(encode(pcm // 8)), 8000) == digit

    @pytest.mark.parametrize("off", [0.985, 1.015])
    @pytest.mark.parametrize("digit", DIGITS)
    def test_finds_it_as_far_off_as_a_telephone_may_be(self, digit: str, off: float) -> None:
        time = np.arange(1600) / 8000
        low, high = FREQUENCIES[digit]
        pcm = 5000 * (np.sin(2 * np.pi * low * off * time) + np.sin(2 * np.pi * high * off * time))
        assert detect(pcm.astype(np.int16), 8000) == digit

    @pytest.mark.parametrize("digit", DIGITS)
    def test_finds_it_in_noise(self, digit: str) -> None:
        noise = np.random.default_rng(7).normal(0, 1500, 1760)
        assert detect((tone(digit) + noise).astype(np.int16), 8000) == digit

    @pytest.mark.parametrize("f", [350, 440, 480, 620, 1000, *ALL_FREQUENCIES])
    def test_one_tone_is_no_digit(self, f: int) -> None:
        pcm = (8000 * np.sin(2 * np.pi * f * np.arange(1600) / 8000)).astype(np.int16)
        assert detect(pcm, 8000) is None

    @pytest.mark.parametrize(("f", "g"), [(350, 440), (440, 480), (480, 620), (697, 770), (1209, 1633)])
    def test_two_other_tones_are_no_digit(self, f: int, g: int) -> None:
        time = np.arange(1600) / 8000
        pcm = 5000 * (np.sin(2 * np.pi * f * time) + np.sin(2 * np.pi * g * time))
        assert detect(pcm.astype(np.int16), 8000) is None

    @pytest.mark.parametrize(
        "amplitudes",
        [
            {697: 8000, 1209: 1000},
            {697: 1000, 1209: 8000},
            {697: 4000, 770: 4000, 1209: 4000},
            {697: 4000, 1209: 4000, 1336: 4000},
            {697: 4000, 1209: 4000, 2600: 8000},
        ],
        ids=["low too loud", "high too loud", "two low", "two high", "a louder third"],
    )
    def test_the_right_tones_in_the_wrong_company_are_no_digit(self, amplitudes: dict[int, int]) -> None:
        time = np.arange(1600) / 8000
        waves = [amplitude * np.sin(2 * np.pi * f * time) for f, amplitude in amplitudes.items()]
        assert detect(np.sum(waves, axis=0).astype(np.int16), 8000) is None

    def test_two_digits_are_not_one(self) -> None:
        assert detect(np.concatenate([tone("1"), tone("9")]), 8000) is None

    def test_noise_silence_and_nothing_are_no_digit(self) -> None:
        noise = np.random.default_rng(3)
        assert all(detect(noise.normal(0, 4000, 1600).astype(np.int16), 8000) is None for _ in range(50))
        assert detect(np.zeros(1600, np.int16), 8000) is None
        assert detect(np.zeros(0, np.int16), 8000) is None
        assert detect(tone("1") // 256, 8000) is None

    def test_a_click_is_too_short(self) -> None:
        assert detect(tone("1", duration=0.02), 8000) is None

    @given(npst.arrays(np.int16, st.integers(0, 700)), st.sampled_from([8000, 16000, 48000]))
    def test_takes_any_sound(self, pcm: NDArray[np.int16], rate: int) -> None:
        found = detect(pcm, rate)
        assert found is None or found in DIGITS
