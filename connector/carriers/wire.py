"""Reads and checks the JSON fields that the media streams of all carriers have in common.

Strict for the ids of stream and call and for audio; tolerant for the rest. An informational field may be missing, null
or of another type, a number may be a string and a string a number: that must not end a person's call.
"""

from __future__ import annotations

import re
from binascii import a2b_base64

import orjson

from connector.carriers.codec import MediaFormat
from connector.carriers.events import DTMF_KEYS, AudioRejected, DtmfReceived, Encoding, Ignored, MarkReached
from connector.errors import CarrierProtocolError

NOT_JSON = 1007
UNACCEPTABLE = 1008
"""WebSocket close codes (RFC 6455, 7.4.1); 1002 is for a message of the wrong shape or out of order."""

Json = dict[str, object]

_ID = re.compile(r"[\x21-\x7e]+", re.ASCII)
"""Accepts more than any carrier's ids, but only characters that are safe in a log line."""
_MOST_PARAMETERS = 64
_LONGEST_PARAMETER = 500
"""Characters. Twilio limits name and value of a `<Parameter>` together to this; here each of them."""
_LONGEST_MARK = 256
_LONGEST_TEXT = 128
_LONGEST_ENCODING = 40
_NUMBER = re.compile(r"([0-9]{1,15})(\.[0-9]{1,15})?", re.ASCII)
"""15 digits of milliseconds are 31,000 years, and a float represents them exactly."""
_LARGEST = 10**15
_TRACKS = {"inbound": True, "inbound_track": True, "outbound": False, "outbound_track": False}
"""Track name -> whether it is the caller's voice."""
_ENCODINGS = dict.fromkeys(("mulaw", "ulaw", "mu-law", "pcmu", "basic"), Encoding.MULAW) | (
    dict.fromkeys(("alaw", "a-law", "pcma"), Encoding.ALAW) | dict.fromkeys(("l16", "linear16"), Encoding.L16)
)
"""Keys: lower-case names without `audio/` and `x-`."""
G711_RATE = 8000
_RATES = frozenset({8000, 16000, 24000, 32000, 48000})
"""Sample rates, in Hz, that can be decoded and published."""


def message_of(text: str) -> tuple[Json, str]:
    """Returns the JSON object of a message and its event name."""
    try:
        message = orjson.loads(text)
    except ValueError:
        raise CarrierProtocolError("a message that is not JSON", NOT_JSON) from None
    if type(message) is not dict:
        raise CarrierProtocolError("a message that is not a JSON object")
    event = message.get("event")
    if type(event) is not str:
        raise CarrierProtocolError("a message without an event name")
    return message, event


class StreamOrder:
    """Checks the order of messages: no media before `start`, no message after `stop`."""

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
        """Raises CarrierProtocolError for a message with another stream id than that of `start`."""
        if self.stream_id is not None and stream_id != self.stream_id:
            raise CarrierProtocolError("a message of another stream", UNACCEPTABLE)


def audio_of(media: object) -> tuple[bytes, Json] | AudioRejected:
    """Returns the caller's samples and the `media` object itself; audio without a track name is the caller's."""
    if type(media) is not dict:
        raise missing("media")
    payload = media.get("payload")
    if type(payload) is not str:
        raise missing("media.payload")
    if not is_callers(media):
        return AudioRejected("wrong_track")
    try:
        audio = a2b_base64(payload, strict_mode=True)
    except ValueError:
        return AudioRejected("bad_base64")
    return (audio, media) if audio else AudioRejected("empty")


def is_callers(media: Json) -> bool:
    track = media.get("track")
    if track is None or track == "inbound":
        return True
    return type(track) is str and _TRACKS.get(track.lower(), False)


def is_our_own(media: object) -> bool:
    """Whether the track is our own audio, streamed back."""
    track = media.get("track") if type(media) is dict else None
    return type(track) is str and _TRACKS.get(track.lower()) is False


def digit_of(dtmf: object) -> DtmfReceived | Ignored:
    """Returns the key of a `dtmf` object."""
    digit = short_text(dtmf.get("digit")) if type(dtmf) is dict else ""
    # An unknown key is no reason to end a person's call.
    return DtmfReceived(digit) if digit in DTMF_KEYS else Ignored("unknown dtmf digit")


def mark_of(value: object) -> MarkReached | Ignored:
    """Returns the mark with this name."""
    if type(value) is not str and number_of(value) is None:
        return Ignored("a mark without a name")
    name = str(value)
    if len(name) > _LONGEST_MARK:
        raise CarrierProtocolError("a mark's name is too long", UNACCEPTABLE)
    return MarkReached(name)


def format_of(encoding: object, rate: object, channels: object, default: MediaFormat) -> MediaFormat | str:
    """Returns the stream's audio format, or its name for a log line if we cannot decode it. Missing values are taken
    from `default`, the format that the carrier documents or that we requested."""
    name, _, more = short_text(encoding).strip().partition(";")
    found: Encoding | None
    hertz = number_of(rate) or number_of(more.strip().removeprefix("rate="))
    if encoding is None:
        # Carriers use a rate other than 8 kHz only for linear samples.
        found = default.encoding if hertz in (None, default.rate) else Encoding.L16
    else:
        found = _ENCODINGS.get(name.strip().lower().removeprefix("audio/").removeprefix("x-"))
    if hertz is None and found is not None:
        # Linear samples with an unknown rate would be played too fast or too slowly.
        hertz = default.rate if found is default.encoding else None if found is Encoding.L16 else G711_RATE
    many = number_of(channels) or 1
    if found is None or hertz not in _RATES or many != 1:
        readable = name if _ID.fullmatch(name) and len(name) <= _LONGEST_ENCODING else "no readable encoding"
        return f"{readable}/{hertz or 'no readable rate'}{f', {many} channels' if many != 1 else ''}"
    return MediaFormat(found, hertz)


def part(message: Json, name: str) -> Json:
    part = message.get(name)
    if type(part) is not dict:
        raise missing(name)
    return part


def given(message: Json, name: str) -> Json:
    """Returns an informational object; empty if it is missing or of another type."""
    part = message.get(name)
    return part if type(part) is dict else {}


def known(attributes: dict[str, str]) -> dict[str, str]:
    """Removes the attributes without a value."""
    return {name: value for name, value in attributes.items() if value}


def id_of(holder: Json, name: str, longest: int = 64) -> str:
    value = holder.get(name)
    if type(value) is not str:
        raise missing(name)
    if len(value) > longest or not _ID.fullmatch(value):
        raise CarrierProtocolError(f"`{name}` is not an id", UNACCEPTABLE)
    return value


def information(holder: Json, name: str, longest: int = 64) -> str:
    """Returns an informational id; empty if it is missing or invalid."""
    value = holder.get(name)
    text = value if type(value) is str else str(value) if type(value) is int else ""
    return text if len(text) <= longest and _ID.fullmatch(text) else ""


def parameters_of(value: object) -> dict[str, str]:
    """Returns the `<Parameter>` children of the `<Stream>`; without any, Twilio omits the field or sends it empty.
    Values other than strings and numbers are skipped."""
    if type(value) is not dict:
        return {}
    if len(value) > _MOST_PARAMETERS:
        raise CarrierProtocolError("too many custom parameters", UNACCEPTABLE)
    texts = {name: str(text) for name, text in value.items() if type(text) in (str, int, float)}
    for name, text in texts.items():
        if len(name) > _LONGEST_PARAMETER or len(text) > _LONGEST_PARAMETER:
            raise CarrierProtocolError("a custom parameter is too long", UNACCEPTABLE)
    return texts


def seconds_from(milliseconds: object) -> float | None:
    """Converts milliseconds, a number or a numeric string. None for other values: the audio is still usable."""
    count: float
    if type(milliseconds) is str and _NUMBER.fullmatch(milliseconds):
        count = float(milliseconds)
    elif type(milliseconds) is int or type(milliseconds) is float:
        count = milliseconds
    else:
        return None
    return count / 1000 if 0 <= count < _LARGEST else None


def number_of(value: object) -> int | None:
    """Returns a whole number or numeric string (`8000`, `"8000"`, `8000.0`) as int; None for other values."""
    if type(value) is str:
        found = _NUMBER.fullmatch(value)
        return int(found[1]) if found and not (found[2] or "").strip(".0") else None
    if type(value) is int or type(value) is float:
        return int(value) if 0 <= value < _LARGEST and value == int(value) else None
    return None


def short_text(value: object) -> str:
    """Returns text for a log line or an attribute, cut to 128 characters; empty unless a string or an int."""
    return value[:_LONGEST_TEXT] if type(value) is str else str(value)[:_LONGEST_TEXT] if type(value) is int else ""


def quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def missing(name: str) -> CarrierProtocolError:
    return CarrierProtocolError(f"`{name}` is missing or of the wrong type")


def not_started() -> RuntimeError:
    return RuntimeError("the stream has not started: there is nobody to send this to")
