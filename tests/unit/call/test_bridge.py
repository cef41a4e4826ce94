"""The audio path on a clock of the test's own: what passes, what is dropped and why."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from connector.audio.g711 import ulaw_decode, ulaw_encode
from connector.call.media.bridge import TELEPHONE, Bridge
from connector.call.media.to_carrier import MAX_TONES
from connector.carriers.events import AudioReceived
from connector.metrics import Metrics
from tests.unit.call.clock import Clock
from tests.unit.call.fakes import FakeCodec

FRAME = 160


class Voice:
    def __init__(self) -> None:
        self.heard = b""
        self.calls: list[int] = []
        self.dropped = 0

    def capture(self, pcm: bytes) -> None:
        self.calls.append(len(pcm))
        self.heard += pcm

    def take_dropped(self) -> int:
        dropped, self.dropped = self.dropped, 0
        return dropped


class Rig:
    def __init__(self) -> None:
        self.clock = Clock()
        self.voice = Voice()
        self.metrics = Metrics()
        self.bridge = Bridge(FakeCodec(), self.voice, self.metrics, self.clock, self.clock.later)
        self.bridge.open_to_carrier()
        self.bridge.open_from_carrier()
        self.bridge.source_added("anna")

    @property
    def now(self) -> float:
        return self.clock.now

    @now.setter
    def now(self, value: float) -> None:
        self.clock.advance(value - self.clock.now)

    def dropped(self, path: str, why: str) -> int:
        return int(self.metrics.dropped.labels(path, why)._value.get())

    def sent(self) -> list[str]:
        """What waits in the outbox, taken."""
        texts = [message.text for message in self.bridge.outbox._waiting]
        self.bridge.outbox._waiting.clear()
        self.bridge.outbox._seconds = 0.0
        return texts

    def room_says(self, level: int = 1000, source: str = "anna", old: float = 0.0) -> list[str]:
        self.bridge.from_room(source, loud(level), self.now - old)
        sent = self.sent()
        self.now += 0.02
        return sent


def loud(level: int) -> NDArray[np.int16]:
    return np.full(FRAME, level, np.int16)


@pytest.fixture
def rig() -> Rig:
    return Rig()


@pytest.mark.parametrize("sizes", [[160], [80], [1] * 160, [161, 159], [7, 333, 60], [400, 400]])
def test_any_cut_of_the_callers_voice_comes_out_whole_in_pieces_of_ten_milliseconds(rig: Rig, sizes: list[int]) -> None:
    payload = ulaw_encode(np.arange(-16000, 16000, 32000 // sum(sizes), dtype=np.int16)[: sum(sizes)])
    at = 0
    for size in sizes:
        rig.bridge.from_carrier(AudioReceived(payload[at : at + size], None))
        at += size
    assert rig.voice.heard == ulaw_decode(payload).tobytes()[: sum(sizes) // 80 * 160]
    assert all(size % 160 == 0 for size in rig.voice.calls)


def test_each_direction_opens_by_itself(rig: Rig) -> None:
    rig.bridge = Bridge(FakeCodec(), rig.voice, rig.metrics, rig.clock, rig.clock.later)
    rig.bridge.source_added("anna")
    frame = AudioReceived(bytes(FRAME), None)
    rig.bridge.from_carrier(frame)
    assert (rig.room_says(), rig.voice.heard) == ([], b"")
    rig.bridge.open_to_carrier()
    assert (rig.room_says(), rig.voice.heard) == (["audio 160"], b"")
    rig.bridge.open_from_carrier()
    assert len(rig.voice.heard) == FRAME * 2


def test_nothing_passes_after_it_closes(rig: Rig) -> None:
    for _ in range(20):
        rig.bridge.from_carrier(AudioReceived(bytes(FRAME), None))
    rig.bridge.close()
    heard = len(rig.voice.heard)
    rig.bridge.from_carrier(AudioReceived(bytes(FRAME), None))
    assert rig.room_says() == []
    rig.clock.advance(10)
    assert len(rig.voice.heard) == heard
    assert not rig.clock.timers


def test_silence_is_not_sent(rig: Rig) -> None:
    assert rig.room_says(0) == []
    assert rig.room_says(3) == []
    assert rig.room_says(100) == ["audio 160"]


def test_a_frame_that_was_held_up_in_this_process_is_dropped(rig: Rig) -> None:
    assert rig.room_says(old=0.099) == ["audio 160"]
    assert rig.room_says(old=0.11) == []
    assert rig.dropped("to_carrier", "stale") == 1


def test_what_would_fill_the_carriers_buffer_is_dropped(rig: Rig) -> None:
    for _ in range(30):
        rig.bridge.from_room("anna", loud(1000), rig.now)
        rig.sent()
    assert rig.bridge.sent_frames == 11
    assert rig.dropped("to_carrier", "ahead") == 19


def test_a_mark_goes_with_each_second_and_tells_the_lag(rig: Rig) -> None:
    sent = [text for _ in range(100) for text in rig.room_says()]
    assert [text for text in sent if text.startswith("mark")] == ["mark lag-1", "mark lag-2"]
    rig.now += 0.5
    assert rig.bridge.mark_reached("lag-2") == pytest.approx(0.52)
    assert rig.bridge.mark_reached("lag-2") is None
    assert rig.bridge.mark_reached("not ours") is None


def test_marks_that_a_clear_returns_are_no_measurement(rig: Rig) -> None:
    for _ in range(50):
        rig.room_says()
    rig.bridge.clear()
    assert rig.bridge.mark_reached("lag-1") is None
    assert rig.sent() == ["clear"]


def test_the_room_is_not_heard_under_a_tone_and_is_again_after_it(rig: Rig) -> None:
    assert rig.bridge.play_tones("5")
    rig.sent()
    heard = [bool(rig.room_says()) for _ in range(20)]
    first = heard.index(True)
    assert first in (11, 12), "0.22 s in frames of 0.02 s, give or take a rounding"
    assert all(heard[first:])
    assert rig.dropped("to_carrier", "tone") == first


def test_so_many_tones_may_wait_and_a_clear_makes_room(rig: Rig) -> None:
    played = 0
    while rig.bridge.play_tones("1"):
        played += 1
    assert played == MAX_TONES + 1
    rig.bridge.clear()
    assert rig.bridge.play_tones("1")


def test_tones_for_a_socket_that_takes_nothing_are_refused_however_long_it_lasts(rig: Rig) -> None:
    for _ in range(1000):
        rig.bridge.play_tones("1")
        rig.now += 1.0
    assert len(rig.bridge.outbox) <= MAX_TONES + 1


def test_a_socket_that_takes_nothing_holds_a_clear_and_the_newest_audio(rig: Rig) -> None:
    for _ in range(500):
        rig.bridge.from_room("anna", loud(1000), rig.now)
        rig.now += 0.02
    waiting = [message.text for message in rig.bridge.outbox._waiting]
    assert waiting[0] == "clear"
    assert waiting.count("clear") == 1
    assert rig.bridge.outbox.seconds <= 0.2 + 1e-9
    assert len(waiting) <= 13
    assert rig.dropped("to_carrier", "backed_up") + waiting.count("audio 160") == 500


def test_what_the_sdk_dropped_is_counted_once(rig: Rig) -> None:
    rig.voice.dropped = 3
    rig.bridge.collect_drops()
    rig.bridge.collect_drops()
    assert rig.dropped("from_carrier", "sdk_slow") == 3


def test_a_stream_that_comes_back_hears_those_who_are_in_the_room_already(rig: Rig) -> None:
    """The tracks are known before the stream has started and named its format."""
    rig.bridge.start(TELEPHONE, TELEPHONE)
    assert rig.room_says() == ["audio 160"]


def test_a_source_that_went_is_not_heard_and_not_waited_for(rig: Rig) -> None:
    rig.bridge.source_added("bert")
    rig.bridge.from_room("anna", loud(1000), rig.now)
    rig.bridge.from_room("bert", loud(500), rig.now)
    assert rig.sent() == ["audio 160"]
    rig.bridge.source_removed("bert")
    assert rig.room_says() == ["audio 160"]
    assert rig.room_says(source="bert") == []
