"""What only Plivo does: three formats, little-endian samples, headers as one text, numbers as numbers."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Any

import pytest

from connector.carriers.codec import MediaFormat
from connector.carriers.events import (
    AudioReceived,
    AudioRejected,
    CarrierComplained,
    Encoding,
    FormatRefused,
    StreamStarted,
)
from connector.carriers.plivo.codec import PlivoCodec
from connector.errors import CarrierProtocolError

STREAM = "87654321-4321-4321-4321-cba987654321"


def start(encoding: Any = "audio/x-mulaw", rate: Any = 8000, **changes: Any) -> str:
    body = {
        "callId": "12345678-1234-1234-1234-123456789abc",
        "streamId": STREAM,
        "accountId": "MAXXXXXXXXXXXXXXXXXX",
        "tracks": ["inbound"],
        "mediaFormat": {"encoding": encoding, "sampleRate": rate},
    }
    return json.dumps({"event": "start", "sequenceNumber": 1, "start": body} | changes)


def media(payload: bytes) -> str:
    body = {"track": "inbound", "timestamp": "1705312200000", "chunk": 41, "payload": b64encode(payload).decode()}
    return json.dumps({"event": "media", "sequenceNumber": 42, "streamId": STREAM, "media": body})


FORMATS = [
    ("audio/x-mulaw", 8000, MediaFormat(Encoding.MULAW, 8000)),
    ("audio/x-l16", 8000, MediaFormat(Encoding.L16, 8000)),
    ("audio/x-l16", "16000", MediaFormat(Encoding.L16, 16000)),
]


@pytest.mark.parametrize(("encoding", "rate", "media_format"), FORMATS)
def test_its_formats_both_ways(encoding: str, rate: Any, media_format: MediaFormat) -> None:
    codec = PlivoCodec()
    codec.receive(start(encoding, rate))
    assert codec.format == codec.reply_format == media_format
    event = codec.receive(media(b"\x01\x02"))
    assert isinstance(event, AudioReceived)
    assert event.payload == b"\x01\x02"
    sent = json.loads(codec.audio(b"\x01\x02"))
    assert (sent["media"]["contentType"], sent["media"]["sampleRate"]) == (encoding, int(rate))
    assert b64decode(sent["media"]["payload"]) == b"\x01\x02"


@pytest.mark.parametrize(
    ("encoding", "rate", "name"),
    [
        ("audio/x-opus", 48000, "audio/x-opus/48000"),
        ("audio/x-l16", 11025, "audio/x-l16/11025"),
        ("audio/x-l16", None, "audio/x-l16/no readable rate"),
        (7, 8000, "7/8000"),
    ],
)
def test_other_formats_are_refused_by_name(encoding: Any, rate: Any, name: str) -> None:
    event = PlivoCodec().receive(start(encoding, rate))
    assert isinstance(event, FormatRefused)
    assert (event.format, event.stream_id, event.has_own_ids) == (name, STREAM, False)


def test_what_the_carrier_leaves_out_is_what_it_documents() -> None:
    codec = PlivoCodec()
    codec.receive(start(None, None))
    assert codec.format == MediaFormat(Encoding.MULAW, 8000)
    assert json.loads(codec.audio(b"\xff"))["media"]["contentType"] == "audio/x-mulaw"


def test_half_a_linear_sample_is_rejected() -> None:
    codec = PlivoCodec()
    codec.receive(start("audio/x-l16", 16000))
    assert codec.receive(media(b"\x01")) == AudioRejected("odd_length")


@pytest.mark.parametrize(
    ("headers", "parameters"),
    [
        ("userId=12345;sessionId=abc-xyz", {"userId": "12345", "sessionId": "abc-xyz"}),
        ("{a=1, b=2}", {"a": "1", "b": "2"}),
        ("a=1,b=2", {"a": "1", "b": "2"}),
        ("a=1=2", {"a": "1=2"}),
        ("", {}),
        ("nonsense", {}),
        (None, {}),
        ({"a": "1"}, {"a": "1"}),
    ],
)
def test_headers_come_back_in_one_text(headers: Any, parameters: dict[str, str]) -> None:
    event = PlivoCodec().receive(start(extra_headers=headers))
    assert isinstance(event, StreamStarted)
    assert event.parameters == parameters


@pytest.mark.parametrize("headers", [7, ["a=1"], True])
def test_headers_of_another_shape_say_nothing(headers: Any) -> None:
    event = PlivoCodec().receive(start(extra_headers=headers))
    assert isinstance(event, StreamStarted)
    assert event.parameters == {}


def test_headers_too_long_are_refused() -> None:
    with pytest.raises(CarrierProtocolError):
        PlivoCodec().receive(start(extra_headers="x" * 5000))


def test_a_streams_id_is_that_of_the_http_requests() -> None:
    event = PlivoCodec().receive(start())
    assert isinstance(event, StreamStarted)
    assert event.may_be_of("12345678-1234-1234-1234-123456789abc")
    assert not event.may_be_of("another")


@pytest.mark.parametrize(("fields", "text"), [({"reason": "too long"}, "too long"), ({}, ""), ({"reason": {}}, "")])
def test_a_message_that_plivo_could_not_use_is_told(fields: Any, text: str) -> None:
    codec = PlivoCodec()
    codec.receive(start())
    event = codec.receive(json.dumps({"event": "incorrectPayload", "streamId": STREAM} | fields))
    assert event == CarrierComplained("incorrectPayload", text)
