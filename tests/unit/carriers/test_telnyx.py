"""What only Telnyx does: a codec for each direction, frames with a place, errors on the wire, ids of its own."""

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
from connector.carriers.telnyx.codec import TelnyxCodec

STREAM = "32DE0DEA-53CB-4B21-89A4-9E1819C043BC"
PCMU = MediaFormat(Encoding.MULAW, 8000)
PCMA = MediaFormat(Encoding.ALAW, 8000)
L16 = MediaFormat(Encoding.L16, 16000)


def start(encoding: Any = "PCMU", rate: Any = 8000, **changes: Any) -> str:
    body = {
        "user_id": "3E6F995F-85F7-4705-9741-53B116D28237",
        "call_control_id": "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ",
        "call_session_id": "ff55a038-6f5d-11ef-9692-02420aeffb1f",
        "from": "+13122010094",
        "to": "+13122123456",
        "media_format": {"encoding": encoding, "sample_rate": rate, "channels": 1},
    }
    return json.dumps({"event": "start", "sequence_number": "1", "stream_id": STREAM, "start": body | changes})


def media(payload: bytes, chunk: Any = "2") -> str:
    body = {"track": "inbound", "chunk": chunk, "timestamp": "5", "payload": b64encode(payload).decode()}
    return json.dumps({"event": "media", "sequence_number": "4", "stream_id": STREAM, "media": body})


def started(encoding: str = "PCMU", rate: int = 8000, reply_format: MediaFormat = PCMU) -> TelnyxCodec:
    codec = TelnyxCodec(reply_format)
    codec.receive(start(encoding, rate))
    return codec


def test_a_track_that_telnyx_does_not_have_is_counted() -> None:
    text = media(b"\xff").replace("inbound", "sideways")
    assert started().receive(text) == AudioRejected("wrong_track")


@pytest.mark.parametrize(
    ("encoding", "rate", "media_format"), [("PCMU", 8000, PCMU), ("PCMA", "8000", PCMA), ("L16", 16000, L16)]
)
def test_its_formats(encoding: str, rate: Any, media_format: MediaFormat) -> None:
    codec = TelnyxCodec()
    codec.receive(start(encoding, rate))
    assert codec.format == media_format


@pytest.mark.parametrize(
    ("encoding", "rate", "found"),
    [
        ("L16", 8000, MediaFormat(Encoding.L16, 8000)),
        ("l16", 24000, MediaFormat(Encoding.L16, 24000)),
        ("pcmu", "8000.0", PCMU),
        ("PCMA", None, PCMA),
        (None, 8000, PCMU),
        (None, None, PCMU),
    ],
)
def test_what_it_leaves_out_or_spells_otherwise(encoding: Any, rate: Any, found: MediaFormat) -> None:
    codec = TelnyxCodec()
    assert isinstance(codec.receive(start(encoding, rate)), StreamStarted)
    assert codec.format == found


@pytest.mark.parametrize(
    ("encoding", "rate", "name"),
    [
        ("G722", 8000, "G722/8000"),
        ("OPUS", 16000, "OPUS/16000"),
        ("AMR-WB", 16000, "AMR-WB/16000"),
        ("L16", 11025, "L16/11025"),
        ("L16", None, "L16/no readable rate"),
    ],
)
def test_other_formats_are_refused_by_name(encoding: Any, rate: Any, name: str) -> None:
    event = TelnyxCodec().receive(start(encoding, rate))
    assert isinstance(event, FormatRefused)
    assert (event.format, event.account_id) == (name, "3E6F995F-85F7-4705-9741-53B116D28237")
    # It can be hung up by both of its names.
    assert event.call_id.startswith("v2:")
    assert event.may_be_of("v3:another")


def test_a_refused_format_needs_no_account() -> None:
    event = TelnyxCodec().receive(start("G722", 8000, user_id=None))
    assert isinstance(event, FormatRefused)
    assert event.account_id == ""


def test_what_we_send_is_coded_as_the_document_asked_whatever_the_call_is_coded_in() -> None:
    codec = started("PCMA", 8000, PCMU)
    assert (codec.format, codec.reply_format) == (PCMA, PCMU)


def test_linear_samples_are_big_endian_on_the_wire_both_ways() -> None:
    codec = started("L16", 16000, L16)
    event = codec.receive(media(b"\x01\x02\xff\x00"))
    assert isinstance(event, AudioReceived)
    assert event.payload == b"\x02\x01\x00\xff"
    assert b64decode(json.loads(codec.audio(b"\x02\x01\x00\xff"))["media"]["payload"]) == b"\x01\x02\xff\x00"


def test_g711_is_left_as_it_is() -> None:
    codec = started()
    event = codec.receive(media(b"\x01\x02\xff"))
    assert isinstance(event, AudioReceived)
    assert event.payload == b"\x01\x02\xff"
    assert b64decode(json.loads(codec.audio(b"\x01\x02"))["media"]["payload"]) == b"\x01\x02"


def test_half_a_linear_sample_is_rejected() -> None:
    assert started("L16", 16000).receive(media(b"\x01\x02\x03")) == AudioRejected("odd_length")


@pytest.mark.parametrize(("chunk", "place"), [("7", 7), (7, 7), ("", None), ("x", None), (None, None), (-1, None)])
def test_a_frames_place_is_its_chunk(chunk: Any, place: int | None) -> None:
    event = started().receive(media(b"\xff", chunk))
    assert isinstance(event, AudioReceived)
    assert event.sequence == place


def test_the_start_tells_the_numbers_and_an_id_that_need_not_be_the_webhooks() -> None:
    event = TelnyxCodec().receive(start())
    assert isinstance(event, StreamStarted)
    assert (event.from_number, event.to_number) == ("+13122010094", "+13122123456")
    assert event.may_be_of("v3:another")


def test_the_participant_has_both_ids_where_both_are_known() -> None:
    codec = TelnyxCodec()
    event = codec.receive(start())
    assert isinstance(event, StreamStarted)
    control_id = "v2:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ"
    both = codec.attributes(event, "v3:sid")
    assert (both["telnyx.callControlId"], both["telnyx.callSid"]) == (control_id, "v3:sid")
    assert "telnyx.callSid" not in codec.attributes(event, "")


def test_a_complaint_is_told_and_ends_nothing() -> None:
    codec = started()
    problem = {"code": 100003, "title": "malformed_frame", "detail": "The frame is broken."}
    message = json.dumps({"event": "error", "stream_id": STREAM, "payload": problem})
    assert codec.receive(message) == CarrierComplained("100003", "malformed_frame The frame is broken.")
    assert isinstance(codec.receive(media(b"\xff")), AudioReceived)
