"""Twilio's own rules, beyond what every codec must do (tests/contract/test_codec.py)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from connector.carriers.codec import MediaFormat
from connector.carriers.events import (
    AudioReceived,
    AudioRejected,
    DtmfReceived,
    Encoding,
    FormatRefused,
    Ignored,
    MarkReached,
    StreamStarted,
    StreamStopped,
)
from connector.carriers.twilio.codec import TwilioCodec
from connector.errors import CarrierProtocolError

STREAM = "MZ18ad3ab5a668481ce02b83e7395059f0"
CALL = "CA53d0ebaf8be5b2b37dd8d48c2a5c4f1e"
ACCOUNT = "ACb1c4ba2a1e4b5d2b8f9d8e7c6b5a4f3e"

# The messages as Twilio's documentation prints them, but for the ids.
CONNECTED = '{"event": "connected", "protocol": "Call", "version": "1.0.0"}'
START = json.dumps(
    {
        "event": "start",
        "sequenceNumber": "1",
        "start": {
            "accountSid": ACCOUNT,
            "streamSid": STREAM,
            "callSid": CALL,
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
            "customParameters": {"FirstName": "Jane", "LastName": "Doe"},
        },
        "streamSid": STREAM,
    }
)
MEDIA = json.dumps(
    {
        "event": "media",
        "sequenceNumber": "3",
        "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": "no+JhoaJjpzSHxAKBgYJ"},
        "streamSid": STREAM,
    }
)
DTMF = json.dumps(
    {"event": "dtmf", "streamSid": STREAM, "sequenceNumber": "5", "dtmf": {"track": "inbound_track", "digit": "1"}}
)
MARK = json.dumps({"event": "mark", "sequenceNumber": "4", "streamSid": STREAM, "mark": {"name": "my label"}})
STOP = json.dumps(
    {"event": "stop", "sequenceNumber": "5", "stop": {"accountSid": ACCOUNT, "callSid": CALL}, "streamSid": STREAM}
)


NOT_TEXT: list[object] = [None, 5, [], True]


def changed(text: str, path: str, value: object) -> str:
    """The message with `value` at the dotted path."""
    message: dict[str, Any] = json.loads(text)
    *way, last = path.split(".")
    place = message
    for key in way:
        place = place[key]
    place[last] = value
    return json.dumps(message)


def without(text: str, path: str) -> str:
    message: dict[str, Any] = json.loads(text)
    *way, last = path.split(".")
    place = message
    for key in way:
        place = place[key]
    del place[last]
    return json.dumps(message)


@pytest.fixture
def opened() -> TwilioCodec:
    codec = TwilioCodec()
    codec.receive(CONNECTED)
    return codec


@pytest.fixture
def started(opened: TwilioCodec) -> TwilioCodec:
    opened.receive(START)
    return opened


def close_code(codec: TwilioCodec, text: str) -> int:
    with pytest.raises(CarrierProtocolError) as caught:
        codec.receive(text)
    return caught.value.close_code


def test_the_documented_start(opened: TwilioCodec) -> None:
    assert opened.receive(START) == StreamStarted(
        CALL, STREAM, ACCOUNT, Encoding.MULAW, 8000, {"FirstName": "Jane", "LastName": "Doe"}
    )


def test_the_documented_media(started: TwilioCodec) -> None:
    event = started.receive(MEDIA)
    assert isinstance(event, AudioReceived)
    assert (len(event.payload), event.payload[:3], event.timestamp) == (15, b"\x9e\x8f\x89", 0.005)


def test_connected_does_not_come_after_a_start_that_did_without() -> None:
    codec = TwilioCodec()
    codec.receive(START)
    assert close_code(codec, CONNECTED) == 1002


class TestStart:
    @pytest.mark.parametrize(
        ("path", "code"),
        [
            ("start", 1002),
            ("start.streamSid", 1002),
            ("start.callSid", 1002),
        ],
    )
    def test_a_field_is_missing(self, opened: TwilioCodec, path: str, code: int) -> None:
        assert close_code(opened, without(START, path)) == code
        assert isinstance(opened.receive(START), StreamStarted)

    @pytest.mark.parametrize("path", ["sequenceNumber", "streamSid", "start.tracks", "start.customParameters"])
    def test_what_may_be_missing(self, opened: TwilioCodec, path: str) -> None:
        assert isinstance(opened.receive(without(START, path)), StreamStarted)

    @pytest.mark.parametrize(
        ("path", "value", "code"),
        [
            ("start", [], 1002),
            ("start", "start", 1002),
            ("start.callSid", None, 1002),
            ("start.callSid", 5, 1002),
            ("start.callSid", "", 1008),
            ("start.callSid", "C" * 65, 1008),
            ("start.callSid", "CA\n1", 1008),
            ("start.callSid", "CA 1", 1008),
            ("start.callSid", "CA\u00e9", 1008),
            ("start.callSid", "CA1\n", 1008),
            ("start.streamSid", "", 1008),
            ("start.streamSid", ["MZ1"], 1002),
            ("start.streamSid", "MZ-another", 1008),
            ("streamSid", "MZ-another", 1008),
            ("streamSid", None, 1008),
            ("start.customParameters", {"a": "v" * 501}, 1008),
            ("start.customParameters", {"n" * 501: "v"}, 1008),
            ("start.customParameters", {str(n): "v" for n in range(65)}, 1008),
        ],
    )
    def test_a_field_is_wrong(self, opened: TwilioCodec, path: str, value: object, code: int) -> None:
        assert close_code(opened, changed(START, path, value)) == code
        assert isinstance(opened.receive(START), StreamStarted)

    @pytest.mark.parametrize(
        "parameters",
        [
            {},
            {"a": ""},
            {"": "a"},
            {"name": "v" * 500},
            {"n" * 500: "v"},
            {str(n): "v" for n in range(64)},
            {"line\nbreak": "ü€😀"},
        ],
    )
    def test_parameters_are_taken_as_they_are(self, opened: TwilioCodec, parameters: dict[str, str]) -> None:
        event = opened.receive(changed(START, "start.customParameters", parameters))
        assert isinstance(event, StreamStarted)
        assert event.parameters == parameters

    def test_null_for_no_parameters(self, opened: TwilioCodec) -> None:
        event = opened.receive(changed(START, "start.customParameters", None))
        assert isinstance(event, StreamStarted)
        assert event.parameters == {}


class TestStream:
    @pytest.mark.parametrize("text", [MEDIA, DTMF, MARK, STOP, '{"event":"new","streamSid":"x"}'])
    @pytest.mark.parametrize("other", ["MZ-another", "", None, 5, [STREAM]])
    def test_of_another_stream(self, started: TwilioCodec, text: str, other: object) -> None:
        assert close_code(started, changed(text, "streamSid", other)) == 1008

    @pytest.mark.parametrize("text", [MEDIA, DTMF, MARK, STOP])
    def test_of_no_stream_is_of_this_one(self, started: TwilioCodec, text: str) -> None:
        assert not isinstance(started.receive(without(text, "streamSid")), Ignored)

    def test_the_numbers_may_have_gaps_go_back_or_be_missing(self, started: TwilioCodec) -> None:
        for number in ("9", "2", "2", "x", 7, None):
            assert isinstance(started.receive(changed(MEDIA, "sequenceNumber", number)), AudioReceived)
        assert isinstance(started.receive(without(MEDIA, "media.chunk")), AudioReceived)


class TestMedia:
    @pytest.mark.parametrize(
        ("timestamp", "seconds"),
        [
            ("0", 0.0),
            ("5040", 5.04),
            ("86400000", 86400.0),
            ("9" * 15, 999999999999.999),
            ("9" * 16, None),
            ("9" * 5000, None),
            ("", None),
            ("-20", None),
            ("+20", None),
            ("2.5", 0.0025),
            ("20.0", 0.02),
            ("1_000", None),
            ("0x10", None),
            (" 20", None),
            ("20\n", None),
            ("\u0662\u0660", None),
            ("\u00b2", None),
            ("nan", None),
            (20, 0.02),
            (20.5, 0.0205),
            (-1, None),
            (1e300, None),
            (True, None),
            (None, None),
            ([], None),
        ],
    )
    def test_timestamps(self, started: TwilioCodec, timestamp: object, seconds: float | None) -> None:
        event = started.receive(changed(MEDIA, "media.timestamp", timestamp))
        assert isinstance(event, AudioReceived)
        assert event.timestamp == seconds

    def test_no_timestamp(self, started: TwilioCodec) -> None:
        event = started.receive(without(MEDIA, "media.timestamp"))
        assert isinstance(event, AudioReceived)
        assert event.timestamp is None

    @pytest.mark.parametrize("path", ["media", "media.payload"])
    def test_a_field_is_missing_or_wrong(self, started: TwilioCodec, path: str) -> None:
        assert close_code(started, without(MEDIA, path)) == 1002
        for value in NOT_TEXT:
            assert close_code(started, changed(MEDIA, path, value)) == 1002


class TestFormats:
    @pytest.mark.parametrize(
        ("encoding", "rate", "found"),
        [
            ("audio/x-l16", 8000, MediaFormat(Encoding.L16, 8000)),
            ("audio/x-l16", "16000", MediaFormat(Encoding.L16, 16000)),
            ("audio/l16", 24000.0, MediaFormat(Encoding.L16, 24000)),
            ("audio/l16;rate=16000", None, MediaFormat(Encoding.L16, 16000)),
            ("audio/x-alaw", "8000.0", MediaFormat(Encoding.ALAW, 8000)),
            ("AUDIO/X-MULAW", 8000, MediaFormat(Encoding.MULAW, 8000)),
            ("audio/x-mulaw", "as usual", MediaFormat(Encoding.MULAW, 8000)),
            (None, None, MediaFormat(Encoding.MULAW, 8000)),
            (None, 16000, MediaFormat(Encoding.L16, 16000)),
        ],
    )
    def test_the_format_is_read(self, opened: TwilioCodec, encoding: Any, rate: Any, found: MediaFormat) -> None:
        event = opened.receive(
            changed(changed(START, "start.mediaFormat.encoding", encoding), "start.mediaFormat.sampleRate", rate)
        )
        assert isinstance(event, StreamStarted)
        assert opened.format == opened.reply_format == found

    def test_linear_samples_are_taken_as_they_are_and_half_of_one_is_rejected(self, opened: TwilioCodec) -> None:
        opened.receive(changed(START, "start.mediaFormat", {"encoding": "audio/x-l16", "sampleRate": 16000}))
        event = opened.receive(changed(MEDIA, "media.payload", "AQI="))
        assert isinstance(event, AudioReceived)
        assert event.payload == b"\x01\x02"
        assert opened.receive(changed(MEDIA, "media.payload", "AQ==")) == AudioRejected("odd_length")

    @pytest.mark.parametrize(
        ("media_format", "name"),
        [
            ({"encoding": "audio/opus", "sampleRate": 48000}, "audio/opus/48000"),
            ({"encoding": "audio/x-mulaw", "sampleRate": 44100}, "audio/x-mulaw/44100"),
            ({"encoding": "audio/x-l16"}, "audio/x-l16/no readable rate"),
            ({"encoding": "audio/x-mulaw", "channels": 2}, "audio/x-mulaw/8000, 2 channels"),
            ({"encoding": ["audio/x-mulaw"]}, "no readable encoding/no readable rate"),
            ({"encoding": "a\nb", "sampleRate": 8000}, "no readable encoding/8000"),
            ({"encoding": "x" * 1000, "sampleRate": 8000}, "no readable encoding/8000"),
        ],
    )
    def test_what_cannot_be_decoded_is_named(self, opened: TwilioCodec, media_format: Any, name: str) -> None:
        event = opened.receive(changed(START, "start.mediaFormat", media_format))
        assert event == FormatRefused(CALL, STREAM, ACCOUNT, name)
        with pytest.raises(RuntimeError, match="not started"):
            opened.clear()


class TestParameters:
    @pytest.mark.parametrize(
        ("value", "parameters"),
        [
            ([], {}),
            ("a=b", {}),
            (7, {}),
            ({"a": 1, "b": 2.5}, {"a": "1", "b": "2.5"}),
            ({"a": None, "b": {"c": "d"}, "e": [], "f": True, "g": "h"}, {"g": "h"}),
        ],
    )
    def test_what_is_no_text_ends_no_call(self, opened: TwilioCodec, value: object, parameters: dict[str, str]) -> None:
        event = opened.receive(changed(START, "start.customParameters", value))
        assert isinstance(event, StreamStarted)
        assert event.parameters == parameters


class TestTheOthers:
    @pytest.mark.parametrize(
        ("text", "path"), [(DTMF, "dtmf"), (DTMF, "dtmf.digit"), (MARK, "mark"), (MARK, "mark.name")]
    )
    def test_what_is_missing_or_wrong_means_nothing(self, started: TwilioCodec, text: str, path: str) -> None:
        assert isinstance(started.receive(without(text, path)), Ignored)
        for value in NOT_TEXT:
            if value != 5:
                assert isinstance(started.receive(changed(text, path, value)), Ignored)

    def test_a_number_is_its_text(self, started: TwilioCodec) -> None:
        assert started.receive(changed(DTMF, "dtmf.digit", 5)) == DtmfReceived("5")
        assert started.receive(changed(MARK, "mark.name", 7)) == MarkReached("7")

    @pytest.mark.parametrize("path", ["stop", "stop.callSid", "stop.accountSid"])
    def test_a_stop_needs_no_body(self, started: TwilioCodec, path: str) -> None:
        assert started.receive(without(STOP, path)) == StreamStopped(CALL)

    def test_a_mark_has_a_longest_name(self, started: TwilioCodec) -> None:
        assert started.receive(changed(MARK, "mark.name", "n" * 256)) == MarkReached("n" * 256)
        assert close_code(started, changed(MARK, "mark.name", "n" * 257)) == 1008

    def test_a_stop_of_another_call(self, started: TwilioCodec) -> None:
        assert close_code(started, changed(STOP, "stop.callSid", "CA-another")) == 1008
        assert started.receive(STOP) == StreamStopped(CALL)


class TestCommands:
    def test_are_what_twilio_documents_and_nothing_more(self, started: TwilioCodec) -> None:
        assert json.loads(started.audio(b"\x9e\x8f\x89")) == {
            "event": "media",
            "streamSid": STREAM,
            "media": {"payload": "no+J"},
        }
        assert json.loads(started.mark('a"b')) == {
            "event": "mark",
            "streamSid": STREAM,
            "mark": {"name": 'a"b'},
        }
        assert json.loads(started.clear()) == {"event": "clear", "streamSid": STREAM}

    def test_quote_a_stream_id_that_needs_it(self, opened: TwilioCodec) -> None:
        odd = 'M"Z\\{}'
        opened.receive(changed(changed(START, "start.streamSid", odd), "streamSid", odd))
        for text in (opened.audio(b"\xff"), opened.mark("m"), opened.clear()):
            assert json.loads(text)["streamSid"] == odd
