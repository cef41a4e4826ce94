"""Reading JSON from the wire: what all carriers' messages have in common, checked field by field."""

from __future__ import annotations

import re
from binascii import a2b_base64

import orjson

from connector.carriers.events import DTMF_KEYS, AudioRejected, DtmfReceived, Ignored
from connector.errors import CarrierProtocolError

NOT_JSON = 1007
UNACCEPTABLE = 1008
"""WebSocket close codes (RFC 6455, 7.4.1); 1002 is for a message of the wrong shape or out of order."""

Json = dict[str, object]

_ID = re.compile(r"[\x21-\x7e]+", re.ASCII)
"""Looser than any carrier's ids, but nothing that could harm a log line."""
_MOST_PARAMETERS = 64
_LONGEST_PARAMETER = 500
"""Twilio's limit for a `<Parameter>`'s name and value together; here for either."""
_LONGEST_MARK = 256
_LONGEST_TEXT = 128
_LONGEST_TIMESTAMP = 15
"""Digits of milliseconds: 31,000 years, and exact as a float."""


def message_of(text: str) -> tuple[Json, str]:
    """The JSON object that one message holds, and its event's name."""
    try:
        message = orjson.loads(text)
    except ValueError:
        raise CarrierProtocolError("a message that is not JSON", NOT_JSON) from None
    if type(message) is not dict:
        raise CarrierProtocolError("a message that is no JSON object")
    event = message.get("event")
    if type(event) is not str:
        raise CarrierProtocolError("a message without an event name")
    return message, event


class StreamOrder:
    """Where a stream is: nothing but `start` before it, nothing at all after `stop`."""

    def __init__(self) -> None:
        self.stream_id: str | None = None
        self._stopped = False

    def start(self, stream_id: str) -> None:
        if self.stream_id is not None:
            raise CarrierProtocolError("a second `start`")
        self.stream_id = stream_id

    def stop(self) -> None:
        self.require_streaming()
        self._stopped = True

    def require_streaming(self) -> None:
        if self.stream_id is None:
            raise CarrierProtocolError("a message before `start`")
        if self._stopped:
            raise CarrierProtocolError("a message after `stop`")

    def require_own(self, stream_id: object) -> None:
        """Refuse a message that names another stream than the one that started."""
        if self.stream_id is not None and stream_id != self.stream_id:
            raise CarrierProtocolError("a message of another stream", UNACCEPTABLE)


def audio_of(media: object) -> tuple[bytes, Json] | AudioRejected:
    """The caller's samples in a `media` part, and that part; all three carriers call the caller `inbound`."""
    if type(media) is not dict:
        raise missing("media")
    track, payload = media.get("track"), media.get("payload")
    if type(track) is not str or type(payload) is not str:
        raise missing("media.track or media.payload")
    if track != "inbound":
        return AudioRejected("wrong_track")
    try:
        audio = a2b_base64(payload, strict_mode=True)
    except ValueError:
        return AudioRejected("bad_base64")
    return (audio, media) if audio else AudioRejected("empty")


def digit_of(value: object) -> DtmfReceived | Ignored:
    if type(value) is not str:
        raise missing("dtmf.digit")
    # A key that we have never heard of is no reason to hang up on a person.
    return DtmfReceived(value) if value in DTMF_KEYS else Ignored("unknown dtmf digit")


def part(message: Json, name: str) -> Json:
    part = message.get(name)
    if type(part) is not dict:
        raise missing(name)
    return part


def id_of(holder: Json, name: str, longest: int = 64) -> str:
    value = holder.get(name)
    if type(value) is not str:
        raise missing(name)
    if len(value) > longest or not _ID.fullmatch(value):
        raise CarrierProtocolError(f"`{name}` is not an id", UNACCEPTABLE)
    return value


def mark_name(value: object, field: str) -> str:
    if type(value) is not str:
        raise missing(field)
    if len(value) > _LONGEST_MARK:
        raise CarrierProtocolError("a mark's name is too long", UNACCEPTABLE)
    return value


def parameters_of(value: object) -> dict[str, str]:
    """The `<Parameter>` children of the `<Stream>`; Twilio leaves them out or empty when there are none."""
    if value is None:
        return {}
    if type(value) is not dict:
        raise CarrierProtocolError("`customParameters` is no object")
    if len(value) > _MOST_PARAMETERS:
        raise CarrierProtocolError("too many custom parameters", UNACCEPTABLE)
    for name, text in value.items():
        if type(text) is not str:
            raise CarrierProtocolError("a custom parameter is no string")
        if len(name) > _LONGEST_PARAMETER or len(text) > _LONGEST_PARAMETER:
            raise CarrierProtocolError("a custom parameter is too long", UNACCEPTABLE)
    return value


def seconds_of(timestamp: object) -> float | None:
    """From a string of milliseconds. None when it is not one: the audio itself is still good."""
    if type(timestamp) is str and len(timestamp) <= _LONGEST_TIMESTAMP and timestamp.isascii() and timestamp.isdigit():
        return int(timestamp) / 1000
    return None


def seconds_from(milliseconds: object) -> float | None:
    """Like `seconds_of`, from a string or a number."""
    count = number_of(milliseconds)
    return None if count is None else count / 1000


def number_of(value: object) -> int | None:
    """A count, as a number or as a string of digits; None when it is neither."""
    if type(value) is int and 0 <= value < 10**_LONGEST_TIMESTAMP:
        return value
    if type(value) is str and len(value) <= _LONGEST_TIMESTAMP and value.isascii() and value.isdigit():
        return int(value)
    return None


def short_text(value: object) -> str:
    """Text for a log line or an attribute: at most 128 characters; empty for what is no text."""
    return value[:_LONGEST_TEXT] if type(value) is str else str(value) if type(value) is int else ""


def quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def missing(name: str) -> CarrierProtocolError:
    return CarrierProtocolError(f"`{name}` is missing or of the wrong type")


def not_started() -> RuntimeError:
    return RuntimeError("the stream has not started: there is nobody to send this to")
