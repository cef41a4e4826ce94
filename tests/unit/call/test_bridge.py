"""The audio path on a clock of the test's own: what passes, what is dropped and why."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from connector.audio.g711 import ulaw_decode, ulaw_encode
from connector.call.bridge import MAX_TONES, Bridge
from connector.carriers.events import AudioReceived
from connector.metrics import Metrics
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
        self.now = 100.0
        self.voice = Voice()
        self.metrics = Metrics()
        self.bridge = Bridge(FakeCodec(), self.voice, self.metrics, lambda: self.now)
        self.bridge.open()
        self.bridge.source_added("anna")

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


def test_nothing_passes_before_it_opens_or_after_it_closes(rig: Rig) -> None:
    frame = AudioReceived(bytes(FRAME), None)
    rig.bridge.close()
    rig.bridge.from_carrier(frame)
    assert rig.room_says() == []
    assert (rig.voice.heard, rig.dropped("from_carrier", "not_ready")) == (b"", 1)
    rig.bridge.open()
    rig.bridge.from_carrier(frame)
    assert len(rig.voice.heard) == FRAME * 2
    assert rig.room_says() == ["audio 160"]


def test_a_late_frame_of_the_carrier_is_dropped_and_a_timely_one_after_it_is_not(rig: Rig) -> None:
    for number in range(5):
        rig.bridge.from_carrier(AudioReceived(bytes(FRAME), number * 0.02))
        rig.now += 0.02
    rig.now += 0.3
    for number in range(5, 20):
        rig.bridge.from_carrier(AudioReceived(bytes(FRAME), number * 0.02))
    assert rig.dropped("from_carrier", "late") == 5
    assert rig.bridge.heard_frames == 15


def test_of_one_long_message_the_last_fifth_of_a_second_is_kept(rig: Rig) -> None:
    payload = ulaw_encode(np.repeat(np.array([1000, 2000], np.int16), 1600))
    rig.bridge.from_carrier(AudioReceived(payload, None))
    assert rig.voice.heard == ulaw_decode(payload[1600:]).tobytes()
    assert rig.dropped("from_carrier", "burst") == 1


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


def test_a_source_that_went_is_not_heard_and_not_waited_for(rig: Rig) -> None:
    rig.bridge.source_added("bert")
    rig.bridge.from_room("anna", loud(1000), rig.now)
    rig.bridge.from_room("bert", loud(500), rig.now)
    assert rig.sent() == ["audio 160"]
    rig.bridge.source_removed("bert")
    assert rig.room_says() == ["audio 160"]
    assert rig.room_says(source="bert") == []
