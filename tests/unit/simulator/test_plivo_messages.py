from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from carrier_simulator.faults import CarrierError, Fault, Refused
from carrier_simulator.plivo.messages import Ids, PlivoWire
from carrier_simulator.sounds import LINEAR_8_LITTLE, LINEAR_16_LITTLE, MULAW
from carrier_simulator.verbs import Stream, Takes
from carrier_simulator.wire import Clear, Digits, Mark, Media

IDS = Ids("S1", "C1", "MA1")
PLAIN = Stream("wss://a")
WIDE = Stream("wss://a", speaks=LINEAR_16_LITTLE, plays=LINEAR_16_LITTLE)


def wire(stream: Stream = PLAIN) -> PlivoWire:
    return PlivoWire(IDS, stream, 1_000_000)


def play(payload: bytes = b"\xfe" * 160, **changes: Any) -> str:
    media = {"contentType": "audio/x-mulaw", "sampleRate": 8000, "payload": base64.b64encode(payload).decode()}
    return json.dumps({"event": "playAudio", "media": media | changes})


def test_the_four_documented_messages_are_read() -> None:
    assert wire().read(play()) == Media(b"\xfe" * 160)
    assert wire().read(play(sampleRate="8000")) == Media(b"\xfe" * 160)
    assert wire().read('{"event":"checkpoint","streamId":"S1","name":"m"}') == Mark("m")
    assert wire().read('{"event":"clearAudio","streamId":"S1"}') == Clear()
    assert wire().read('{"event":"sendDTMF","dtmf":"12#"}') == Digits("12#")
    assert wire(WIDE).read(play(bytes(640), contentType="audio/x-l16", sampleRate=16000)) == Media(bytes(640))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 60_000,
        '{"event":"media","media":{"payload":"//8="}}',
        '{"event":"playAudio"}',
        '{"event":"playAudio","media":{"payload":"//8="}}',
        play(contentType="audio/x-l16"),
        play(sampleRate=16000),
        play(sampleRate=True),
        play(payload=b""),
        play(track="inbound"),
        '{"event":"playAudio","streamId":"S1","media":{"contentType":"audio/x-mulaw","sampleRate":8000,"payload":"/w=="}}',
        '{"event":"checkpoint","name":"m"}',
        '{"event":"checkpoint","streamId":"S2","name":"m"}',
        '{"event":"checkpoint","streamId":"S1","name":1}',
        '{"event":"clearAudio"}',
        '{"event":"clearAudio","streamId":"S2"}',
        '{"event":"sendDTMF","dtmf":""}',
        '{"event":"sendDTMF","dtmf":"A"}',
        '{"event":"sendDTMF","dtmf":{"digit":"1"}}',
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(Refused) as refused:
        wire().read(text)
    assert refused.value.error.code is Fault.STREAM_MESSAGE


def test_the_audio_must_be_what_the_document_said() -> None:
    with pytest.raises(Refused):
        wire(WIDE).read(play())
    with pytest.raises(Refused):
        wire(WIDE).read(play(bytes(641), contentType="audio/x-l16", sampleRate=16000))


def test_a_message_of_more_than_64_kb_is_refused() -> None:
    longest = (65_536 - len(play(b""))) // 4 * 3
    assert wire().read(play(bytes(longest))) == Media(bytes(longest))
    with pytest.raises(Refused, match="65536"):
        wire().read(play(bytes(longest + 3)))


def test_a_stream_in_one_direction_takes_nothing() -> None:
    with pytest.raises(Refused, match="not bidirectional"):
        wire(replace(PLAIN, takes=Takes.NOTHING)).read(play())


@pytest.mark.parametrize(
    ("sound", "encoding"),
    [(MULAW, "audio/x-mulaw"), (LINEAR_8_LITTLE, "audio/x-l16"), (LINEAR_16_LITTLE, "audio/x-l16")],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_start_tells_the_call_and_the_coding(sound: Any, encoding: str) -> None:
    (start,) = wire(Stream("wss://a", {"a": "1", "b": "2"}, speaks=sound)).opening()
    assert json.loads(start) == {
        "event": "start",
        "sequenceNumber": 1,
        "start": {
            "callId": "C1",
            "streamId": "S1",
            "accountId": "MA1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": encoding, "sampleRate": sound.rate},
        },
        "extra_headers": "a=1;b=2",
    }


def test_the_other_messages_have_plivos_fields() -> None:
    writer = wire()
    texts = [writer.media(b"\xff\xff", 20), writer.dtmf("#"), writer.mark("m"), *writer.cleared(["lost"])]
    media, dtmf, played, cleared = (json.loads(text) for text in texts)
    assert [m["sequenceNumber"] for m in (media, dtmf, played, cleared)] == [1, 2, 3, 4]
    assert {m["streamId"] for m in (media, dtmf, played, cleared)} == {"S1"}
    assert media["media"] == {"track": "inbound", "timestamp": "1000020", "chunk": 1, "payload": "//8="}
    assert (dtmf["event"], dtmf["dtmf"]["digit"], dtmf["dtmf"]["track"]) == ("dtmf", "#", "inbound")
    assert (played["event"], played["name"]) == ("playedStream", "m")
    assert cleared["event"] == "clearedAudio"


def test_there_is_no_stop() -> None:
    assert wire().closing() == ()


def test_what_was_wrong_is_told() -> None:
    for code in (Fault.STREAM_MESSAGE, Fault.STREAM_FULL):
        complaint = wire().complaint(CarrierError(code, "so"))
        assert complaint
        assert json.loads(complaint)["event"] == "incorrectPayload"
    assert wire().complaint(CarrierError(Fault.STREAM_BINARY, "so")) is None
