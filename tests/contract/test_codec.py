"""What every carrier's codec must do, whatever its words: one suite, once per dialect."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.carrier_table import TABLE
from connector.carriers.codec import Codec, MediaFormat
from connector.carriers.events import (
    DTMF_KEYS,
    AudioReceived,
    AudioRejected,
    DtmfReceived,
    Event,
    FormatRefused,
    Ignored,
    MarkReached,
    StreamStarted,
    StreamStopped,
)
from connector.errors import CarrierProtocolError
from tests.contract.dialects import DIALECTS, Dialect
from tests.contract.words import ACCOUNT, CALL, STREAM, Sent


def test_every_carrier_of_the_table_has_a_dialect_here() -> None:
    made = {type(entry.carrier().codec()) for entry in TABLE}
    assert made <= {type(dialect().codec()) for dialect in DIALECTS}


dialects = pytest.mark.parametrize("make", DIALECTS, ids=lambda make: make.name)
Make = Callable[[], Dialect]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@pytest.fixture(params=DIALECTS, ids=lambda make: make.name)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    made: Dialect = request.param()
    return made


def opened(dialect: Dialect) -> Codec:
    codec = dialect.codec()
    for text in dialect.opening():
        assert isinstance(codec.receive(text), Ignored)
    return codec


def started(dialect: Dialect) -> Codec:
    codec = opened(dialect)
    assert isinstance(codec.receive(dialect.start()), StreamStarted)
    return codec


def fails(codec: Codec, text: str) -> CarrierProtocolError:
    with pytest.raises(CarrierProtocolError) as caught:
        codec.receive(text)
    return caught.value


class TestWhatComesIn:
    def test_a_whole_call(self, dialect: Dialect) -> None:
        codec = opened(dialect)
        events = [
            codec.receive(text)
            for text in (
                dialect.start({"agent": "büro", "empty": ""}),
                dialect.media(b"\xff\x00\x7f", 0),
                dialect.media(b"\x01" * 160, 1020),
                dialect.digit("#"),
                dialect.mark("greeting"),
                dialect.stop(),
            )
        ]
        expected: list[Event] = [
            StreamStarted(
                CALL,
                STREAM,
                ACCOUNT,
                dialect.encoding,
                dialect.rate,
                {"agent": "büro", "empty": ""},
                has_own_ids=dialect.has_own_ids,
            ),
            AudioReceived(b"\xff\x00\x7f", 0.0, dialect.sequence_at(0)),
            AudioReceived(b"\x01" * 160, 1.02, dialect.sequence_at(1020)),
            DtmfReceived("#"),
            MarkReached("greeting"),
            StreamStopped(CALL),
        ]
        assert events == expected

    @pytest.mark.parametrize("key", sorted(DTMF_KEYS))
    def test_every_key(self, dialect: Dialect, key: str) -> None:
        assert started(dialect).receive(dialect.digit(key)) == DtmfReceived(key)

    @pytest.mark.parametrize("key", ["", "12", "E", "a", "+", " "])
    def test_a_key_nobody_knows_ends_no_call(self, dialect: Dialect, key: str) -> None:
        assert isinstance(started(dialect).receive(dialect.digit(key)), Ignored)

    def test_another_track_is_not_heard_and_the_stream_goes_on(self, dialect: Dialect) -> None:
        codec = started(dialect)
        assert codec.receive(dialect.other_track(b"\xff")) == dialect.other_track_is
        assert isinstance(codec.receive(dialect.media(b"\xff")), AudioReceived)

    @pytest.mark.parametrize(
        ("payload", "why"),
        [
            ("", "empty"),
            ("=", "bad_base64"),
            ("====", "bad_base64"),
            ("/w", "bad_base64"),
            ("/w=", "bad_base64"),
            ("/w===", "bad_base64"),
            ("/w==/w==", "bad_base64"),
            ("/w==\n", "bad_base64"),
            (" /w==", "bad_base64"),
            ("_w==", "bad_base64"),
            ("/ w=", "bad_base64"),
            ("ü/w=", "bad_base64"),
        ],
    )
    def test_bad_payloads_are_rejected_and_the_stream_goes_on(self, dialect: Dialect, payload: str, why: str) -> None:
        codec = started(dialect)
        assert codec.receive(dialect.media_with_payload(payload)) == AudioRejected(why)
        assert isinstance(codec.receive(dialect.media(b"\xff")), AudioReceived)


class TestOrder:
    def test_nothing_but_the_opening_comes_before_the_start(self, dialect: Dialect) -> None:
        for text in (dialect.media(b"\xff"), dialect.digit("1"), dialect.mark("m"), dialect.stop()):
            assert fails(dialect.codec(), text).close_code == 1002
            assert fails(opened(dialect), text).close_code == 1002

    def test_the_opening_is_not_insisted_on(self, dialect: Dialect) -> None:
        assert isinstance(dialect.codec().receive(dialect.start()), StreamStarted)

    def test_there_is_one_start(self, dialect: Dialect) -> None:
        assert fails(started(dialect), dialect.start()).close_code == 1002

    def test_the_opening_does_not_come_later(self, dialect: Dialect) -> None:
        for text in dialect.opening():
            assert fails(opened(dialect), text).close_code == 1002
            assert fails(started(dialect), text).close_code == 1002

    def test_nothing_follows_the_stop(self, dialect: Dialect) -> None:
        for text in (dialect.media(b"\xff"), dialect.digit("1"), dialect.mark("m"), dialect.stop()):
            codec = started(dialect)
            codec.receive(dialect.stop())
            assert fails(codec, text).close_code == 1002

    def test_events_that_the_carrier_may_add_are_ignored(self, dialect: Dialect) -> None:
        text = json.dumps({"event": "weather" * 100, "weather": {"sun": True}})
        for codec in (dialect.codec(), opened(dialect), started(dialect)):
            event = codec.receive(text)
            assert isinstance(event, Ignored)
            assert len(event.why) < 100


NOT_JSON = [
    "",
    " ",
    "hello",
    "{",
    '{"event":"media"',
    "{'event':'media'}",
    '{"event":"media"}{}',
    '{"event": NaN}',
    "\x00",
    '"\\ud800"',
    '{"event":"\ud800"}',
    "[" * 100_000,
    "[" * 100_000 + "]" * 100_000,
    '{"a":' * 100_000 + "1" + "}" * 100_000,
]
NOT_A_MESSAGE = [
    "null",
    "true",
    "1",
    "1" * 10_000,
    "-1e400",
    '"media"',
    "[]",
    '[{"event":"media"}]',
    "{}",
    '{"event":null}',
    '{"event":1}',
    '{"event":["media"]}',
    '{"Event":"media"}',
]


class TestNonsense:
    @pytest.mark.parametrize("text", NOT_JSON, ids=lambda text: ascii(text[:20]))
    def test_not_json(self, dialect: Dialect, text: str) -> None:
        for codec in (dialect.codec(), opened(dialect), started(dialect)):
            assert fails(codec, text).close_code == 1007

    @pytest.mark.parametrize("text", NOT_A_MESSAGE, ids=lambda text: text[:20])
    def test_json_but_no_message(self, dialect: Dialect, text: str) -> None:
        for codec in (dialect.codec(), opened(dialect), started(dialect)):
            assert fails(codec, text).close_code in {1002, 1007}

    def test_an_error_does_not_repeat_what_was_sent(self, dialect: Dialect) -> None:
        secret = "+15550100999"
        for text in (secret, f'{{"event":["{secret}"]}}', dialect.start({"x": secret * 100})):
            assert secret not in fails(opened(dialect), text).message

    @dialects
    @given(text=st.text())
    def test_any_text(self, make: Make, text: str) -> None:
        dialect = make()
        for codec in (dialect.codec(), started(dialect)):
            event_or_error(codec, text)

    @dialects
    @given(value=json_values)
    def test_any_json(self, make: Make, value: object) -> None:
        dialect = make()
        for codec in (dialect.codec(), started(dialect)):
            event_or_error(codec, json.dumps(value))

    @dialects
    @given(data=st.data())
    def test_any_message_with_a_part_replaced(self, make: Make, data: st.DataObject) -> None:
        dialect = make()
        text = data.draw(st.sampled_from(every_message(dialect)))
        message = json.loads(text)
        spoil(message, data)
        for codec in (opened(dialect), started(dialect)):
            event_or_error(codec, json.dumps(message))

    @dialects
    @given(data=st.data())
    def test_any_message_with_characters_changed(self, make: Make, data: st.DataObject) -> None:
        dialect = make()
        text = data.draw(st.sampled_from(every_message(dialect)))
        at = data.draw(st.integers(0, len(text)))
        length = data.draw(st.integers(0, 5))
        spoiled = text[:at] + data.draw(st.text(max_size=5)) + text[at + length :]
        for codec in (opened(dialect), started(dialect)):
            event_or_error(codec, spoiled)


def every_message(dialect: Dialect) -> list[str]:
    return [
        *dialect.opening(),
        dialect.start({"name": "value"}),
        dialect.media(b"\xff\xfe\xfd"),
        dialect.other_track(b"\xff"),
        dialect.digit("5"),
        dialect.mark("m"),
        dialect.stop(),
    ]


def spoil(message: dict[str, object], data: st.DataObject) -> None:
    """Replace, remove or add something at any depth."""
    place = message
    key = data.draw(st.sampled_from(sorted(place)))
    while isinstance(inner := place[key], dict) and inner and data.draw(st.booleans()):
        place = inner
        key = data.draw(st.sampled_from(sorted(place)))
    match data.draw(st.sampled_from(["replace", "remove", "add"])):
        case "replace":
            place[key] = data.draw(json_values)
        case "remove":
            del place[key]
        case _:
            place[data.draw(st.text())] = data.draw(json_values)


def event_or_error(codec: Codec, text: str) -> None:
    """Any other exception than the one allowed fails the test; any event keeps the bounds that it promises."""
    event: Event | CarrierProtocolError
    try:
        event = codec.receive(text)
    except CarrierProtocolError as error:
        event = error
    match event:
        case CarrierProtocolError():
            assert event.close_code in {1002, 1007, 1008}
        case StreamStarted():
            assert event.call_id
            assert event.stream_id
            for name in (event.call_id, event.stream_id, event.account_id):
                assert len(name) <= 64
                assert name.isascii()
                assert name.isprintable()
            for item in event.parameters.items():
                assert all(isinstance(part, str) and len(part) <= 500 for part in item)
        case FormatRefused():
            assert len(event.format) <= 100
            assert event.format.isprintable()
        case AudioReceived():
            assert event.payload
            assert event.timestamp is None or 0 <= event.timestamp < 1e12
        case DtmfReceived():
            assert event.digit in DTMF_KEYS
        case MarkReached():
            assert len(event.name) <= 256
        case Ignored() | AudioRejected():
            assert len(event.why) <= 100
        case StreamStopped():
            assert event.call_id == CALL


OTHERS: list[object] = [None, 5, 5.5, "text", True, [], {}, ["inbound"], {"a": 1}]
"""What may stand in the place of a field that only informs."""


class TestWhatOnlyInforms:
    """Carriers leave fields out, add some and change their types; nobody is hung up on for that."""

    def test_without_a_field_or_with_another_in_its_place_the_stream_starts(self, dialect: Dialect) -> None:
        for message in variants(dialect.start({"tier": "gold"}), dialect.informs["start"]):
            codec = opened(dialect)
            event = codec.receive(message)
            assert isinstance(event, StreamStarted), message
            assert (event.call_id, event.stream_id) == (CALL, STREAM)
            assert codec.format == MediaFormat(dialect.encoding, dialect.rate), message
            assert "" not in codec.attributes(event, "").values()
            assert isinstance(codec.receive(dialect.media(b"\xff")), AudioReceived)

    def test_or_is_heard(self, dialect: Dialect) -> None:
        for message in variants(dialect.media(b"\xff\xfe"), dialect.informs["media"]):
            event = started(dialect).receive(message)
            assert isinstance(event, AudioReceived), message
            assert event.payload == b"\xff\xfe"

    def test_or_is_a_digit(self, dialect: Dialect) -> None:
        for message in variants(dialect.digit("7"), dialect.informs["digit"]):
            assert started(dialect).receive(message) == DtmfReceived("7"), message

    def test_or_stops(self, dialect: Dialect) -> None:
        for message in variants(dialect.stop(), dialect.informs["stop"]):
            assert started(dialect).receive(message) == StreamStopped(CALL), message

    @pytest.mark.parametrize("track", [None, "inbound", "Inbound", "inbound_track"])
    def test_a_track_that_is_not_named_is_the_callers(self, dialect: Dialect, track: object) -> None:
        message = json.loads(dialect.media(b"\xff"))
        message["media"]["track"] = track
        assert isinstance(started(dialect).receive(json.dumps(message)), AudioReceived)
        del message["media"]["track"]
        assert isinstance(started(dialect).receive(json.dumps(message)), AudioReceived)

    @pytest.mark.parametrize("track", ["outbound", "OUTBOUND", "outbound_track"])
    def test_our_own_track_is_not(self, dialect: Dialect, track: str) -> None:
        message = json.loads(dialect.media(b"\xff"))
        message["media"]["track"] = track
        assert started(dialect).receive(json.dumps(message)) == dialect.other_track_is

    @pytest.mark.parametrize("track", [5, [], {}, True, "sideways"])
    def test_a_track_that_nobody_knows_is_counted_and_ends_nothing(self, dialect: Dialect, track: object) -> None:
        message = json.loads(dialect.media(b"\xff"))
        message["media"]["track"] = track
        assert started(dialect).receive(json.dumps(message)) == AudioRejected("wrong_track")

    @pytest.mark.parametrize("rate", [8000, 8000.0, "8000", "8000.0"])
    def test_a_rate_is_a_number_or_its_text(self, dialect: Dialect, rate: object) -> None:
        message = json.loads(dialect.start())
        message["start"][dialect.format_field][dialect.rate_field] = rate
        codec = opened(dialect)
        codec.receive(json.dumps(message))
        assert codec.format.rate == 8000

    @pytest.mark.parametrize("channels", [None, 1, 1.0, "1", True, [], "mono"])
    def test_channels_are_one_unless_they_are_more(self, dialect: Dialect, channels: object) -> None:
        message = json.loads(dialect.start())
        message["start"][dialect.format_field]["channels"] = channels
        assert isinstance(opened(dialect).receive(json.dumps(message)), StreamStarted)
        message["start"][dialect.format_field]["channels"] = 2
        assert isinstance(opened(dialect).receive(json.dumps(message)), FormatRefused)

    @pytest.mark.parametrize("encoding", ["G722", "OPUS", "AMR-WB", "audio/opus", "audio/x-speex"])
    def test_what_cannot_be_decoded_is_named_with_the_ids_that_hang_it_up(
        self, dialect: Dialect, encoding: str
    ) -> None:
        message = json.loads(dialect.start())
        message["start"][dialect.format_field] |= {"encoding": encoding, dialect.rate_field: "16000"}
        event = opened(dialect).receive(json.dumps(message))
        own = dialect.has_own_ids
        assert event == FormatRefused(CALL, STREAM, ACCOUNT, f"{encoding}/16000", has_own_ids=own)

    @dialects
    @given(data=st.data())
    def test_any_fields_at_once_of_any_type(self, make: Make, data: st.DataObject) -> None:
        dialect = make()
        message = json.loads(dialect.start({"tier": "gold"}))
        for path in data.draw(st.lists(st.sampled_from(sorted(dialect.informs["start"])), unique=True)):
            holder, last = place_of(message, path)
            if isinstance(holder, dict):
                holder[last] = deepcopy(data.draw(st.sampled_from(OTHERS)))
        assert isinstance(opened(dialect).receive(json.dumps(message)), StreamStarted)


def variants(text: str, paths: Collection[str]) -> Iterator[str]:
    """The message without each field, and with each other value in its place."""
    for path in sorted(paths):
        message = json.loads(text)
        holder, last = place_of(message, path)
        assert last in holder, f"{path} is not in {text}"
        for value in OTHERS:
            holder[last] = value
            yield json.dumps(message)
        del holder[last]
        yield json.dumps(message)


def place_of(message: Any, path: str) -> tuple[Any, str]:
    *way, last = path.split(".")
    for key in way:
        message = message.get(key) if isinstance(message, dict) else None
    return message, last


class TestFormat:
    def test_it_is_known_from_the_start_on(self, dialect: Dialect) -> None:
        codec = opened(dialect)
        with pytest.raises(RuntimeError, match="not started"):
            _ = codec.format
        codec.receive(dialect.start())
        assert codec.format == codec.reply_format == MediaFormat(dialect.encoding, dialect.rate)


class TestWhatGoesOut:
    def test_commands_before_the_start_are_a_bug(self, dialect: Dialect) -> None:
        for codec in (dialect.codec(), opened(dialect)):
            with pytest.raises(RuntimeError, match="not started"):
                codec.audio(b"\xff")
            with pytest.raises(RuntimeError, match="not started"):
                codec.mark("m")
            with pytest.raises(RuntimeError, match="not started"):
                codec.clear()

    def test_commands_are_still_possible_after_the_stop(self, dialect: Dialect) -> None:
        # The room's audio may be on its way while the stop comes in.
        codec = started(dialect)
        codec.receive(dialect.stop())
        assert dialect.read(codec.audio(b"\xff")) == Sent("audio", payload=b"\xff")

    @dialects
    @given(payload=st.binary(min_size=1, max_size=2000))
    def test_audio_of_any_length(self, make: Make, payload: bytes) -> None:
        dialect = make()
        assert dialect.read(started(dialect).audio(payload)) == Sent("audio", payload=payload)

    @dialects
    @given(name=st.text(max_size=100))
    def test_marks_of_any_name(self, make: Make, name: str) -> None:
        dialect = make()
        assert dialect.read(started(dialect).mark(name)) == Sent("mark", name=name)

    def test_clear(self, dialect: Dialect) -> None:
        assert dialect.read(started(dialect).clear()) == Sent("clear")

    def test_a_failed_start_starts_nothing(self, dialect: Dialect) -> None:
        codec = opened(dialect)
        fails(codec, dialect.start({"x": "y" * 10_000}))
        with pytest.raises(RuntimeError, match="not started"):
            codec.clear()


class TestAttributes:
    def test_the_carriers_ids_and_parameters_are_under_its_prefix(self, dialect: Dialect) -> None:
        codec = opened(dialect)
        event = codec.receive(dialect.start({"tier": "gold"}))
        assert isinstance(event, StreamStarted)
        attributes = codec.attributes(event, CALL)
        assert {CALL, STREAM, ACCOUNT} <= set(attributes.values())
        assert attributes[f"{dialect.attribute_prefix}param.tier"] == "gold"
        assert all(name.startswith(dialect.attribute_prefix) for name in attributes)

    def test_the_parameters_cannot_be_changed(self, dialect: Dialect) -> None:
        event = opened(dialect).receive(dialect.start({"tier": "gold"}))
        assert isinstance(event, StreamStarted)
        with pytest.raises(TypeError):
            event.parameters["tier"] = "lead"  # type: ignore[index]
