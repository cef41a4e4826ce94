from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from carrier_simulator.faults import Fault, Refused
from carrier_simulator.twilio.messages import TwilioWire
from carrier_simulator.wire import Clear, FromServer, Mark, Media


def wire(**parameters: str) -> TwilioWire:
    return TwilioWire("AC1", "CA1", "MZ1", parameters)


def read(message: str) -> FromServer:
    return wire().read(message)


def text(**changes: object) -> str:
    message = {"event": "media", "streamSid": "MZ1", "media": {"payload": "//8="}, **changes}
    return json.dumps({key: value for key, value in message.items() if value is not None})


def test_the_three_documented_messages_are_read() -> None:
    assert read(text()) == Media(b"\xff\xff")
    assert read(text(event="mark", media=None, mark={"name": "m"})) == Mark("m")
    assert read(text(event="clear", media=None)) == Clear()


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "{",
        "[]",
        "7",
        "[" * 100_000,
        text(event="dtmf"),
        text(event=None),
        text(event=["media"]),
        text(streamSid="MZ2"),
        text(streamSid=None),
        text(media=None),
        text(media="//8="),
        text(media={}),
        text(media={"payload": 7}),
        text(media={"payload": ""}),
        text(media={"payload": "//8"}),
        text(media={"payload": "//8=\n"}),
        text(media={"payload": "é8=="}),
        text(media={"payload": "//8=", "track": "outbound"}),
        text(sequenceNumber="1"),
        text(event="clear"),
        text(event="mark", media=None, mark={"name": 1}),
    ],
)
def test_anything_else_is_31951(wrong: str) -> None:
    with pytest.raises(Refused) as refused:
        read(wrong)
    assert refused.value.error.code is Fault.STREAM_MESSAGE


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (
            lambda w: w.opening()[1],
            {
                "event": "start",
                "sequenceNumber": "1",
                "start": {
                    "accountSid": "AC1",
                    "streamSid": "MZ1",
                    "callSid": "CA1",
                    "tracks": ["inbound"],
                    "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                    "customParameters": {"a": "b"},
                },
                "streamSid": "MZ1",
            },
        ),
        (
            lambda w: w.media(b"\xff\xff", 20),
            {
                "event": "media",
                "sequenceNumber": "1",
                "media": {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "//8="},
                "streamSid": "MZ1",
            },
        ),
        (
            lambda w: w.dtmf("#"),
            {
                "event": "dtmf",
                "sequenceNumber": "1",
                "dtmf": {"track": "inbound_track", "digit": "#"},
                "streamSid": "MZ1",
            },
        ),
        (
            lambda w: w.mark('a "name"'),
            {"event": "mark", "sequenceNumber": "1", "mark": {"name": 'a "name"'}, "streamSid": "MZ1"},
        ),
        (
            lambda w: w.closing()[0],
            {
                "event": "stop",
                "sequenceNumber": "1",
                "stop": {"accountSid": "AC1", "callSid": "CA1"},
                "streamSid": "MZ1",
            },
        ),
    ],
)
def test_the_carriers_messages_have_twilios_fields(write: Callable[[TwilioWire], str], message: dict[str, Any]) -> None:
    assert json.loads(write(wire(a="b"))) == message


def test_sequence_numbers_count_all_messages_and_chunks_the_media() -> None:
    writer = wire()
    sent = [
        json.loads(m) for m in (writer.opening()[1], writer.media(b"a", 0), writer.mark("m"), writer.media(b"b", 20))
    ]
    assert [m["sequenceNumber"] for m in sent] == ["1", "2", "3", "4"]
    assert [m["media"]["chunk"] for m in sent if "media" in m] == ["1", "2"]
