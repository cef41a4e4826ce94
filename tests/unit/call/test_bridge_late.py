"""The caller's voice when it comes late, all at once, or by a clock that begins anew; and before anybody hears it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from connector.audio.g711 import ulaw_decode, ulaw_encode
from connector.audio.pacer import LEAD
from connector.call.media.bridge import Bridge
from connector.call.media.from_carrier import FIRST_WORDS, MAX_AUDIO_AGE
from connector.carriers.events import AudioReceived
from connector.metrics import Metrics
from tests.unit.call.clock import Clock
from tests.unit.call.fakes import FakeCodec

RATE = 8000
FRAME = 0.02
SIZE = 160
SILENCE = bytes([0xFF]) * SIZE


class Phone:
    """Somebody who speaks in frames of 20 ms; every frame that reaches the room is known by its number."""

    def __init__(self, max_age: float = MAX_AUDIO_AGE, is_open: bool = True) -> None:
        self.clock = Clock()
        self.metrics = Metrics()
        self.bridge = Bridge(FakeCodec(), self, self.metrics, self.clock, self.clock.later, max_age)
        if is_open:
            self.bridge.open_from_carrier()
        self.heard: list[NDArray[np.int16]] = []
        self.most_at_once = 0.0
        self.timestamp = 0.0
        self._moment = (0.0, 0.0)
        self._noise = np.random.default_rng(1)
        self._said: list[bytes] = []

    def capture(self, pcm: bytes) -> None:
        samples = np.frombuffer(pcm, np.int16)
        self.heard.append(samples)
        at, seconds = self._moment
        self._moment = (self.clock.now, len(samples) / RATE + (seconds if at == self.clock.now else 0.0))
        self.most_at_once = max(self.most_at_once, self._moment[1])

    def take_dropped(self) -> int:
        return 0

    @property
    def sound(self) -> NDArray[np.int16]:
        return np.concatenate(self.heard) if self.heard else np.zeros(0, np.int16)

    def word(self) -> bytes:
        """A frame that is like no other: loud, and without a period that could be left out."""
        payload = ulaw_encode(self._noise.choice(np.array([-4000, 4000], np.int16), SIZE))
        self._said.append(payload)
        return payload

    def missing(self) -> list[int]:
        """Words that were not heard."""
        heard = self.sound.tobytes()
        return [number for number, word in enumerate(self._said) if ulaw_decode(word).tobytes() not in heard]

    def frame(self, payload: bytes | None = None, stamp: float | None = None) -> None:
        """One frame arrives, a word if nothing else is given."""
        payload = self.word() if payload is None else payload
        self.bridge.from_carrier(AudioReceived(payload, self.timestamp if stamp is None else stamp))
        self.timestamp += FRAME

    def speaks(self, seconds: float, payload: bytes | None = None) -> None:
        for _ in range(round(seconds / FRAME)):
            self.clock.advance(FRAME)
            self.frame(payload)

    def stalls(self, seconds: float, payload: bytes | None = None) -> None:
        """What is said for so long comes at once at the end of it."""
        self.clock.advance(seconds)
        for _ in range(round(seconds / FRAME)):
            self.frame(payload)

    @property
    def delay(self) -> float:
        """Seconds that wait."""
        return self.bridge._from_carrier._pacer.waits

    def dropped(self, why: str) -> int:
        return int(self.metrics.dropped.labels("from_carrier", why)._value.get())


def voice(seconds: float) -> list[bytes]:
    """Frames of a voice that never pauses."""
    time = np.arange(round(seconds * RATE)) / RATE
    sound = 5000 * np.sin(2 * np.pi * 140 * time) + 2000 * np.sin(2 * np.pi * 280 * time)
    coded = ulaw_encode(np.round(sound).astype(np.int16))
    return [coded[start : start + SIZE] for start in range(0, len(coded), SIZE)]


def test_an_even_flow_is_given_on_at_once_and_sets_no_timer() -> None:
    phone = Phone()
    for number in range(3000):
        phone.clock.advance(FRAME)
        phone.frame()
        assert len(phone.heard) == number + 1
        assert not phone.clock.timers


@pytest.mark.parametrize("drift", [-2e-3, 2e-3])
def test_a_clock_that_is_a_little_fast_or_slow_makes_no_delay(drift: float) -> None:
    phone = Phone()
    for _ in range(20_000):
        phone.clock.advance(FRAME * (1 + drift))
        phone.frame(SILENCE)
        assert not phone.clock.timers


@pytest.mark.parametrize("jitter", [0.01, 0.04, 0.08])
def test_frames_of_an_uneven_network_are_given_on_at_once(jitter: float) -> None:
    phone = Phone()
    arrivals = sorted(index * FRAME + (jitter if index % 7 < 3 else 0.0) for index in range(500))
    for arrival in arrivals:
        phone.clock.advance(100 + arrival - phone.clock.now)
        phone.frame()
        assert phone.delay == 0.0
    assert phone.missing() == []


def test_timestamps_that_fall_back_to_zero_in_the_middle_lose_nothing() -> None:
    phone = Phone()
    phone.speaks(0.4)
    phone.timestamp = 0.0
    phone.speaks(0.4)
    assert phone.missing() == []
    assert len(phone.sound) == 40 * SIZE


@pytest.mark.parametrize("before", [0.1, 0.3, 1.0, 5.0, 20.0])
@pytest.mark.parametrize("to", [0.0, 1e-3, 1e6])
def test_a_clock_that_is_set_anew_loses_nothing(before: float, to: float) -> None:
    phone = Phone()
    phone.speaks(before)
    phone.timestamp = to
    phone.speaks(3.0)
    phone.timestamp = 0.0
    phone.speaks(1.0)
    assert phone.missing() == []
    assert phone.delay == 0.0


@pytest.mark.parametrize("hold", [0.5, 2.0, 10.0, 3600.0])
def test_a_clock_that_stood_still_in_a_hold_loses_nothing(hold: float) -> None:
    phone = Phone()
    phone.speaks(2.0)
    phone.clock.advance(hold)
    phone.speaks(2.0)
    assert phone.missing() == []
    phone.speaks(1.0, SILENCE)
    assert phone.delay == 0.0


def test_a_clock_that_stands_still_for_good_loses_nothing() -> None:
    phone = Phone()
    for _ in range(300):
        phone.clock.advance(FRAME)
        phone.frame(stamp=0.0)
    phone.speaks(0.2, SILENCE)
    assert phone.missing() == []


def test_one_timestamp_from_the_future_loses_nothing() -> None:
    phone = Phone()
    phone.speaks(1.0)
    phone.clock.advance(FRAME)
    phone.frame(stamp=100.0)
    phone.speaks(2.0)
    assert phone.missing() == []


@pytest.mark.parametrize("stall", [0.2, 0.5, 0.8, 1.0])
def test_a_stall_in_mid_word_loses_nothing(stall: float) -> None:
    phone = Phone()
    phone.speaks(1.0)
    phone.stalls(stall)
    phone.speaks(2.0)
    assert phone.delay < stall
    phone.speaks(1.0, SILENCE)
    assert phone.missing() == []
    assert phone.most_at_once <= LEAD + 1e-6


def test_the_delay_of_a_stall_is_worked_off_in_a_pause() -> None:
    phone = Phone()
    phone.speaks(1.0)
    phone.stalls(0.8)
    phone.speaks(0.5)
    assert phone.delay > 0.6
    # The pause comes behind the words that wait.
    phone.speaks(1.0, SILENCE)
    assert phone.delay == 0.0
    assert not phone.clock.timers
    assert phone.missing() == []


def test_the_delay_of_a_stall_is_worked_off_in_a_voice_that_never_pauses() -> None:
    phone = Phone()
    frames = iter(voice(30))
    for _ in range(50):
        phone.clock.advance(FRAME)
        phone.frame(next(frames))
    phone.clock.advance(0.8)
    for payload in itertools.islice(frames, 40):
        phone.frame(payload)
    assert phone.delay > 0.6
    for _ in range(300):
        phone.clock.advance(FRAME)
        phone.frame(next(frames))
    assert phone.delay < 0.05
    assert phone.bridge.dropped_frames == 0
    steps = np.abs(np.diff(phone.sound.astype(int)))
    assert steps.max() < 1500, "no click: nothing is cut but whole periods"


@pytest.mark.parametrize("stall", [1.5, 3.0, 9.0])
def test_what_is_older_than_the_limit_goes_and_the_newest_second_does_not(stall: float) -> None:
    phone = Phone()
    phone.speaks(1.0)
    phone.stalls(stall)
    phone.speaks(2.0)
    phone.speaks(2.0, SILENCE)
    lost = phone.missing()
    assert len(lost) == pytest.approx((stall - MAX_AUDIO_AGE) / FRAME, abs=3)
    assert lost == list(range(50, 50 + len(lost)))
    assert phone.dropped("late") == pytest.approx(len(lost), abs=1)


@pytest.mark.parametrize("max_age", [0.2, 0.5, 3.0])
def test_the_limit_can_be_set(max_age: float) -> None:
    phone = Phone(max_age)
    phone.speaks(1.0)
    phone.stalls(4.0)
    phone.speaks(1.0)
    phone.speaks(5.0, SILENCE)
    assert len(phone.missing()) == pytest.approx((4.0 - max_age) / FRAME, abs=3)


def test_a_carrier_without_timestamps_is_bounded_as_well() -> None:
    phone = Phone()
    for _ in range(1000):
        phone.bridge.from_carrier(AudioReceived(phone.word(), None))
    assert phone.delay <= MAX_AUDIO_AGE + 1e-6
    assert phone.dropped("late") == pytest.approx(1000 - (MAX_AUDIO_AGE + LEAD) / FRAME, abs=1)


def test_a_message_of_many_seconds_is_bounded() -> None:
    phone = Phone()
    payload = b"".join(phone.word() for _ in range(500))
    phone.bridge.from_carrier(AudioReceived(payload, 0.0))
    assert phone.delay <= MAX_AUDIO_AGE
    phone.clock.advance(3)
    assert len(phone.sound) / RATE == pytest.approx(MAX_AUDIO_AGE, abs=0.2)


def test_the_stream_may_fall_silent_behind_a_burst() -> None:
    phone = Phone()
    phone.speaks(1.0)
    phone.stalls(0.8)
    phone.clock.advance(2.0)
    assert phone.missing() == []
    assert not phone.clock.timers


def test_stall_upon_stall_adds_up_to_no_more_than_the_limit() -> None:
    phone = Phone()
    for _ in range(10):
        phone.speaks(0.1)
        phone.stalls(0.7)
        assert phone.delay <= MAX_AUDIO_AGE


# First words


def test_what_is_said_before_anybody_hears_it_is_heard_first_and_in_order() -> None:
    phone = Phone(is_open=False)
    phone.speaks(1.6)
    assert not phone.heard
    phone.bridge.open_from_carrier()
    phone.speaks(1.0)
    phone.speaks(2.0, SILENCE)
    assert phone.missing() == []
    assert phone.delay == 0.0
    assert phone.bridge.dropped_frames == 0
    assert phone.most_at_once <= LEAD + 1e-6


def test_silence_before_anybody_hears_it_is_no_delay() -> None:
    phone = Phone(is_open=False)
    phone.speaks(5.0, SILENCE)
    phone.bridge.open_from_carrier()
    assert phone.delay == 0.0
    assert phone.bridge.dropped_frames == 0


def test_a_hello_and_a_long_silence_are_a_hello_and_a_short_one() -> None:
    phone = Phone(is_open=False)
    phone.speaks(0.5)
    phone.speaks(20.0, SILENCE)
    phone.speaks(0.5)
    assert phone.delay == pytest.approx(1.2, abs=0.05)
    phone.bridge.open_from_carrier()
    phone.speaks(2.0, SILENCE)
    assert phone.missing() == []


def test_of_somebody_who_talks_on_the_newest_seconds_are_kept() -> None:
    phone = Phone(is_open=False)
    phone.speaks(10)
    assert phone.delay <= FIRST_WORDS + 1e-6
    assert phone.dropped("not_ready") == pytest.approx((10 - FIRST_WORDS) / FRAME, abs=1)
    phone.bridge.open_from_carrier(1.0)
    phone.speaks(5.0, SILENCE)
    lost = phone.missing()
    assert lost == list(range(len(lost)))
    assert len(lost) == pytest.approx(9.0 / FRAME, abs=1)


def test_a_call_that_ends_before_anybody_hears_it_leaves_nothing() -> None:
    phone = Phone(is_open=False)
    phone.speaks(2)
    phone.bridge.close()
    assert phone.delay == 0.0
    assert not phone.clock.timers
