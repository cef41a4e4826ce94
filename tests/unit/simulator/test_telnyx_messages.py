from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from carrier_simulator.faults import CarrierError, Fault, Refused
from carrier_simulator.sounds import ALAW, LINEAR_16_BIG, MULAW
from carrier_simulator.telnyx.messages import Ids, TelnyxWire
from carrier_simulator.verbs import Stream, Takes
from carrier_simulator.wire import Clear, Mark, Media

IDS = Ids("S1", "U1", "v3:C1", "SS1", "+1555", "+1666")
PLAIN = Stream("wss://a")
MP3 = b"\xff\xfb\x90\x00" + bytes(100)


def wire(stream: Stream = PLAIN, now: list[float] | None = None) -> TelnyxWire:
    times = now or [0.0]
    return TelnyxWire(IDS, stream, lambda: times[0])


def media(payload: bytes) -> str:
    return json.dumps({"event": "media", "media": {"payload": base64.b64encode(payload).decode()}})


def refused(wire: TelnyxWire, text: str) -> Fault:
    with pytest.raises(Refused) as refused:
        wire.read(text)
    return refused.value.error.code


def test_the_three_documented_messages_are_read() -> None:
    assert wire().read(media(b"\xfe" * 160)) == Media(b"\xfe" * 160)
    assert wire().read('{"event":"mark","mark":{"name":"m"}}') == Mark("m")
    assert wire().read('{"event":"clear"}') == Clear()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "[" * 100_000,
        '{"event":"start"}',
        '{"event":"media"}',
        '{"event":"media","media":"//8="}',
        '{"event":"media","media":{"payload":7}}',
        '{"event":"media","media":{"payload":"//8=","track":"inbound"}}',
        '{"event":"media","media":{"payload":"//8="},"stream_id":"S1"}',
        '{"event":"mark","mark":{}}',
        '{"event":"mark","mark":{"name":1}}',
        '{"event":"clear","stream_id":"S1"}',
        '{"event":"playAudio","media":{"payload":"//8="}}',
    ],
)
def test_what_is_no_documented_message_is_100003(text: str) -> None:
    assert refused(wire(), text) is Fault.MALFORMED_FRAME


@pytest.mark.parametrize(
    ("stream", "payload"),
    [
        (PLAIN, b"\xfe" * 159),
        (PLAIN, b"\xfe" * (8000 * 30 + 1)),
        (replace(PLAIN, plays=LINEAR_16_BIG), bytes(638)),
        (replace(PLAIN, plays=LINEAR_16_BIG), bytes(641)),
        (replace(PLAIN, takes=Takes.FILES), b"\xfe" * 160),
        (replace(PLAIN, takes=Takes.FILES), b"\xff" * 160),
    ],
    ids=[
        "less than 20 ms",
        "more than 30 s",
        "less than 20 ms of L16",
        "the payload ends in the middle of a sample",
        "no MP3",
        "silence as MP3",
    ],
)
def test_audio_that_cannot_be_played_is_100004(stream: Stream, payload: bytes) -> None:
    assert refused(wire(stream), media(payload)) is Fault.INVALID_MEDIA


@pytest.mark.parametrize("payload", ["", "//8", "//8=\n", "!"])
def test_a_payload_that_is_no_base64_is_100004(payload: str) -> None:
    text = json.dumps({"event": "media", "media": {"payload": payload}})
    assert refused(wire(), text) is Fault.INVALID_MEDIA


@pytest.mark.parametrize(
    ("stream", "size"),
    [(PLAIN, 160), (PLAIN, 240_000), (replace(PLAIN, plays=LINEAR_16_BIG), 640)],
    ids=["20 ms", "30 s", "20 ms of L16"],
)
def test_20_ms_to_30_s_are_played(stream: Stream, size: int) -> None:
    assert wire(stream).read(media(b"\xfe" * size)) == Media(b"\xfe" * size)


def test_files_are_taken_once_a_second_and_else_are_100005() -> None:
    now = [10.0]
    files = wire(replace(PLAIN, takes=Takes.FILES), now)
    assert files.read(media(MP3)) == Media(b"")
    now[0] = 10.9
    assert refused(files, media(MP3)) is Fault.RATE_LIMIT
    now[0] = 11.1
    assert files.read(media(b"ID3" + MP3)) == Media(b"")


@pytest.mark.parametrize(
    ("code", "title"),
    [
        (Fault.MALFORMED_FRAME, "malformed_frame"),
        (Fault.INVALID_MEDIA, "invalid_media"),
        (Fault.RATE_LIMIT, "rate_limit_reached"),
    ],
)
def test_what_was_wrong_is_told_in_an_error_frame(code: Fault, title: str) -> None:
    complaint = wire().complaint(CarrierError(code, "so"))
    assert complaint
    assert json.loads(complaint) == {
        "event": "error",
        "sequence_number": "1",
        "stream_id": "S1",
        "payload": {"code": int(code), "title": title, "detail": "so"},
    }


def test_binary_messages_end_the_stream() -> None:
    assert wire().complaint(CarrierError(Fault.STREAM_BINARY, "so")) is None


@pytest.mark.parametrize(
    ("sound", "media_format"),
    [
        (MULAW, {"encoding": "PCMU", "sample_rate": 8000, "channels": 1}),
        (ALAW, {"encoding": "PCMA", "sample_rate": 8000, "channels": 1}),
        (LINEAR_16_BIG, {"encoding": "L16", "sample_rate": 16000, "channels": 1}),
    ],
    ids=lambda value: getattr(value, "name", ""),
)
def test_the_start_tells_the_call_and_the_coding(sound: Any, media_format: dict[str, Any]) -> None:
    connected, start = wire(Stream("wss://a", {"k": "v"}, speaks=sound)).opening()
    assert json.loads(connected) == {"event": "connected", "version": "1.0.0"}
    assert json.loads(start) == {
        "event": "start",
        "sequence_number": "1",
        "stream_id": "S1",
        "start": {
            "user_id": "U1",
            "call_control_id": "v3:C1",
            "call_session_id": "SS1",
            "from": "+1555",
            "to": "+1666",
            "tags": [],
            "client_state": "",
            "media_format": media_format,
            "custom_parameters": {"k": "v"},
        },
    }


def test_each_track_counts_its_chunks_and_all_messages_share_a_sequence() -> None:
    writer = wire()
    texts = [writer.media(b"a", 0), writer.echo(b"b", 0), writer.media(b"c", 20), writer.mark("m"), writer.dtmf("1")]
    sent = [json.loads(text) for text in [*texts, *writer.closing()]]
    assert [m["sequence_number"] for m in sent] == ["1", "2", "3", "4", "5", "6"]
    assert [(m["media"]["track"], m["media"]["chunk"], m["media"]["timestamp"]) for m in sent[:3]] == [
        ("inbound", "1", "0"),
        ("outbound", "1", "0"),
        ("inbound", "2", "20"),
    ]
    assert (sent[3]["mark"], sent[4]["dtmf"]) == ({"name": "m"}, {"digit": "1"})
    assert sent[5]["stop"] == {"user_id": "U1", "call_control_id": "v3:C1"}


def test_a_clear_returns_the_marks() -> None:
    assert [json.loads(text)["mark"]["name"] for text in wire().cleared(["a", "b"])] == ["a", "b"]
