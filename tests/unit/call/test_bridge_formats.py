"""The audio path at every rate and in every encoding that a carrier may choose, and frames that come out of order."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from connector.audio import dtmf
from connector.audio.g711 import alaw_decode, alaw_encode, ulaw_decode, ulaw_encode
from connector.call.media.bridge import Bridge
from connector.carriers.codec import MediaFormat
from connector.carriers.events import AudioReceived, Encoding
from connector.errors import CarrierProtocolError
from connector.metrics import Metrics
from tests.unit.call.clock import Clock
from tests.unit.call.fakes import FakeCodec

PCMU = MediaFormat(Encoding.MULAW, 8000)
PCMA = MediaFormat(Encoding.ALAW, 8000)
L16_8 = MediaFormat(Encoding.L16, 8000)
L16_16 = MediaFormat(Encoding.L16, 16000)
RATES = (8000, 16000, 24000, 32000, 44100, 48000)
FORMATS = pytest.mark.parametrize(
    "media",
    [MediaFormat(encoding, rate) for encoding in Encoding for rate in RATES],
    ids=lambda media: f"{media.encoding}{media.rate}",
)


class MediaStream:
    """A bridge whose codec and room only remember."""

    def __init__(self, heard: MediaFormat, said: MediaFormat | None = None) -> None:
        self.clock = Clock()
        self.heard = b""
        self.sent: list[bytes] = []
        self.metrics = Metrics()
        line = self

        class Codec(FakeCodec):
            def audio(self, payload: bytes) -> str:
                line.sent.append(payload)
                return "audio"

        self.bridge = Bridge(Codec(), self, self.metrics, self.clock, self.clock.later)
        self.bridge.start(heard, said or heard)
        self.bridge.open_to_carrier()
        self.bridge.open_from_carrier()
        self.bridge.source_added("anna")

    def capture(self, pcm: bytes) -> None:
        self.heard += pcm

    def take_dropped(self) -> int:
        return 0

    def samples(self) -> NDArray[np.int16]:
        return np.frombuffer(self.heard, np.int16)


def encoded(media: MediaFormat, pcm: NDArray[np.int16]) -> bytes:
    match media.encoding:
        case Encoding.MULAW:
            return ulaw_encode(pcm)
        case Encoding.ALAW:
            return alaw_encode(pcm)
        case Encoding.L16:
            return pcm.astype("<i2").tobytes()


def decoded(media: MediaFormat, payload: bytes) -> NDArray[np.int16]:
    match media.encoding:
        case Encoding.MULAW:
            return ulaw_decode(payload)
        case Encoding.ALAW:
            return alaw_decode(payload)
        case Encoding.L16:
            return np.frombuffer(payload, "<i2").astype(np.int16)


def ramp(media: MediaFormat, seconds: float) -> NDArray[np.int16]:
    return np.linspace(-16000, 16000, round(seconds * media.rate)).astype(np.int16)


@FORMATS
def test_the_caller_is_heard_sample_for_sample(media: MediaFormat) -> None:
    line = MediaStream(media)
    payload = encoded(media, ramp(media, 0.1))
    for start in range(0, len(payload), 102):  # An even number of bytes, and no whole number of frames.
        line.bridge.from_carrier(AudioReceived(payload[start : start + 102], None))
    line.clock.advance(0.05)
    assert np.array_equal(line.samples(), decoded(media, payload))


@FORMATS
def test_the_room_is_said_sample_for_sample(media: MediaFormat) -> None:
    line = MediaStream(media)
    frame = ramp(media, 0.02)
    line.bridge.from_room("anna", frame, line.clock.now)
    assert line.sent == [encoded(media, frame)]


@pytest.mark.parametrize(
    "media",
    [PCMU, PCMA, L16_8, L16_16, MediaFormat(Encoding.L16, 44100), MediaFormat(Encoding.MULAW, 16000)],
    ids=lambda media: f"{media.encoding}{media.rate}",
)
@pytest.mark.parametrize("milliseconds", [10, 15, 20, 30, 33, 40, 60, 100, 125, 200, 333, 500])
@pytest.mark.parametrize("is_stamped", [True, False])
def test_frames_of_any_usual_length_are_heard_whole(media: MediaFormat, milliseconds: int, is_stamped: bool) -> None:
    line = MediaStream(media)
    sound = voice(media.rate, 3.0)
    size = media.rate * milliseconds // 1000
    whole = len(sound) // size * size
    for start in range(0, whole, size):
        line.clock.advance(size / media.rate)
        payload = encoded(media, sound[start : start + size])
        line.bridge.from_carrier(AudioReceived(payload, start / media.rate if is_stamped else None))
    line.clock.advance(0.6)
    heard = line.samples()
    assert whole - len(heard) < media.rate / 100, "less than a piece of 10 ms may wait for the next frame"
    assert np.array_equal(heard, decoded(media, encoded(media, sound))[: len(heard)])
    assert line.bridge.dropped_frames == 0


def voice(rate: int, seconds: float) -> NDArray[np.int16]:
    """Something with a pitch and with pauses, so that it could be made shorter."""
    time = np.arange(round(rate * seconds)) / rate
    sound = 5000 * np.sin(2 * np.pi * 140 * time) + 2000 * np.sin(2 * np.pi * 280 * time)
    return np.asarray(np.round(sound * (time % 1.0 < 0.7)), np.int16)


@pytest.mark.parametrize("encoding", Encoding)
@pytest.mark.parametrize("rate", [11025, 22050, 7999, 0])
def test_a_rate_that_has_no_frames_of_ten_milliseconds_is_refused_by_name(encoding: Encoding, rate: int) -> None:
    line = MediaStream(PCMU)
    with pytest.raises(CarrierProtocolError, match=f"{rate} samples a second"):
        line.bridge.start(MediaFormat(encoding, rate), PCMU)


@pytest.mark.parametrize("payload", [b"\x01", b"\x01\x02\x03"])
def test_half_a_sample_is_left_out(payload: bytes) -> None:
    line = MediaStream(L16_16)
    line.bridge.from_carrier(AudioReceived(payload, 0.0))
    line.bridge.from_carrier(AudioReceived(encoded(L16_16, ramp(L16_16, 0.02)), 0.02))
    assert len(line.samples()) == 320


@FORMATS
def test_lateness_is_measured_in_the_streams_time(media: MediaFormat) -> None:
    line = MediaStream(media)
    frame = encoded(media, ramp(media, 0.02))
    for number in range(100):
        line.bridge.from_carrier(AudioReceived(frame, number * 0.02))
        line.clock.advance(0.02)
    (family,) = line.metrics.lateness.collect()
    (total,) = [sample.value for sample in family.samples if sample.name.endswith("_sum")]
    assert total == pytest.approx(0.0, abs=1e-6)


@FORMATS
def test_digits_are_played_at_the_rate_of_the_stream(media: MediaFormat) -> None:
    line = MediaStream(media)
    assert line.bridge.play_tones("58")
    assert [dtmf.detect(decoded(media, payload), media.rate) for payload in line.sent] == ["5", "8"]


@FORMATS
@pytest.mark.parametrize(("level", "is_sent"), [(0, False), (3, False), (-4, False), (40, True), (-40, True)])
def test_silence_is_not_sent_and_what_is_faint_is(media: MediaFormat, level: int, is_sent: bool) -> None:
    line = MediaStream(media)
    line.bridge.from_room("anna", np.full(media.rate // 50, level, np.int16), line.clock.now)
    assert bool(line.sent) is is_sent


def test_what_a_law_knows_only_as_silence_is_silence() -> None:
    for level in (-16, 15):
        assert set(alaw_encode(np.full(160, level, np.int16))) <= {0x55, 0xD5}
        line = MediaStream(PCMA)
        line.bridge.from_room("anna", np.full(160, level, np.int16), line.clock.now)
        assert line.sent == []
    for level in (-17, 16):
        assert not set(alaw_encode(np.full(160, level, np.int16))) & {0x55, 0xD5}
        line = MediaStream(PCMA)
        line.bridge.from_room("anna", np.full(160, level, np.int16), line.clock.now)
        assert len(line.sent) == 1


def test_each_direction_may_have_its_own_format() -> None:
    line = MediaStream(L16_16, PCMU)
    line.bridge.from_carrier(AudioReceived(encoded(L16_16, ramp(L16_16, 0.02)), None))
    assert len(line.samples()) == 320
    line.bridge.from_room("anna", ramp(PCMU, 0.02), line.clock.now)
    assert [len(payload) for payload in line.sent] == [160]


def numbered(number: int) -> AudioReceived:
    return AudioReceived(ulaw_encode(np.full(160, 1000 + 100 * number, np.int16)), number * 0.02, number)


def heard_numbers(line: MediaStream) -> list[int]:
    return [round((int(sample) - 1000) / 100) for sample in line.samples()[80::160]]


def test_frames_that_overtook_each_other_are_heard_in_order() -> None:
    line = MediaStream(PCMU)
    for number in (1, 3, 2, 4, 7, 6, 5):
        line.bridge.from_carrier(numbered(number))
        line.clock.advance(0.02)
    assert heard_numbers(line) == [1, 2, 3, 4, 5, 6, 7]


def test_what_comes_too_late_or_twice_is_counted_and_not_heard() -> None:
    line = MediaStream(PCMU)
    for number in (1, 3, 4, 5, 6, 2, 6, 7):
        line.bridge.from_carrier(numbered(number))
        line.clock.advance(0.02)
    assert heard_numbers(line) == [1, 3, 4, 5, 6, 7]
    assert line.metrics.dropped.labels("from_carrier", "out_of_order")._value.get() == 2


def test_without_numbers_the_order_is_that_of_arrival() -> None:
    line = MediaStream(PCMU)
    for number in (1, 3, 2):
        line.bridge.from_carrier(AudioReceived(numbered(number).payload, None))
    assert heard_numbers(line) == [1, 3, 2]
