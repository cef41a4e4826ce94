"""Reading JSON from the wire: what all carriers' messages have in common, checked field by field.

Strict in what names the stream and the call and in what carries audio; liberal in the rest. A field that only informs
may be missing, null or of another type, a number may be a text and a text a number: no person is hung up on for that.
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
"""Looser than any carrier's ids, but nothing that could harm a log line."""
_MOST_PARAMETERS = 64
_LONGEST_PARAMETER = 500
"""Twilio's limit for a `<Parameter>`'s name and value together; here for either."""
_LONGEST_MARK = 256
_LONGEST_TEXT = 128
_LONGEST_ENCODING = 40
_NUMBER = re.compile(r"([0-9]{1,15})(\.[0-9]{1,15})?", re.ASCII)
"""So many digits of milliseconds are 31,000 years, and exact as a float."""
_LARGEST = 10**15
_TRACKS = {"inbound": True, "inbound_track": True, "outbound": False, "outbound_track": False}
"""Whether what they carry is the caller's voice."""
_ENCODINGS = dict.fromkeys(("mulaw", "ulaw", "mu-law", "pcmu", "basic"), Encoding.MULAW) | (
    dict.fromkeys(("alaw", "a-law", "pcma"), Encoding.ALAW) | dict.fromkeys(("l16", "linear16"), Encoding.L16)
)
"""By their names without `audio/`, `x-` and the case."""
G711_RATE = 8000
_RATES = frozenset({8000, 16000, 24000, 32000, 48000})
"""Samples a second that can be decoded and published."""


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
    """The caller's samples in a `media` part, and that part; without a track they are the caller's."""
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
    """Whether this is the track of what we sent."""
    track = media.get("track") if type(media) is dict else None
    return type(track) is str and _TRACKS.get(track.lower()) is False


def digit_of(dtmf: object) -> DtmfReceived | Ignored:
    """The key in a `dtmf` part."""
    digit = short_text(dtmf.get("digit")) if type(dtmf) is dict else ""
    # A key that we have never heard of is no reason to hang up on a person.
    return DtmfReceived(digit) if digit in DTMF_KEYS else Ignored("unknown dtmf digit")


def mark_of(value: object) -> MarkReached | Ignored:
    """The mark of this name."""
    if type(value) is not str and number_of(value) is None:
        return Ignored("a mark without a name")
    name = str(value)
    if len(name) > _LONGEST_MARK:
        raise CarrierProtocolError("a mark's name is too long", UNACCEPTABLE)
    return MarkReached(name)


def format_of(encoding: object, rate: object, channels: object, default: MediaFormat) -> MediaFormat | str:
    """How a stream's audio is coded; the name of the format, for a log line, where it cannot be decoded. What the
    carrier leaves out is `default`'s, which is what the carrier documents or was asked for."""
    name, _, more = short_text(encoding).strip().partition(";")
    found: Encoding | None
    hertz = number_of(rate) or number_of(more.strip().removeprefix("rate="))
    if encoding is None:
        # Only linear samples are ever streamed at another rate than the telephone's.
        found = default.encoding if hertz in (None, default.rate) else Encoding.L16
    else:
        found = _ENCODINGS.get(name.strip().lower().removeprefix("audio/").removeprefix("x-"))
    if hertz is None and found is not None:
        # Linear samples of no known rate would be heard too fast or too slow.
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
    """A part that only informs: empty where it is missing, or is none."""
    part = message.get(name)
    return part if type(part) is dict else {}


def known(attributes: dict[str, str]) -> dict[str, str]:
    """Those that the carrier has told."""
    return {name: value for name, value in attributes.items() if value}


def id_of(holder: Json, name: str, longest: int = 64) -> str:
    value = holder.get(name)
    if type(value) is not str:
        raise missing(name)
    if len(value) > longest or not _ID.fullmatch(value):
        raise CarrierProtocolError(f"`{name}` is not an id", UNACCEPTABLE)
    return value


def information(holder: Json, name: str, longest: int = 64) -> str:
    """An id that only informs: empty where it is missing, or is none."""
    value = holder.get(name)
    text = value if type(value) is str else str(value) if type(value) is int else ""
    return text if len(text) <= longest and _ID.fullmatch(text) else ""


def parameters_of(value: object) -> dict[str, str]:
    """The `<Parameter>` children of the `<Stream>`; Twilio leaves them out or empty when there are none. A value that
    is no text and no number is left out."""
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
    """From milliseconds, as a number or its text. None when it is neither: the audio itself is still good."""
    count: float
    if type(milliseconds) is str and _NUMBER.fullmatch(milliseconds):
        count = float(milliseconds)
    elif type(milliseconds) is int or type(milliseconds) is float:
        count = milliseconds
    else:
        return None
    return count / 1000 if 0 <= count < _LARGEST else None


def number_of(value: object) -> int | None:
    """A count, as a whole number or its text (`8000`, `"8000"`, `8000.0`); None when it is neither."""
    if type(value) is str:
        found = _NUMBER.fullmatch(value)
        return int(found[1]) if found and not (found[2] or "").strip(".0") else None
    if type(value) is int or type(value) is float:
        return int(value) if 0 <= value < _LARGEST and value == int(value) else None
    return None


def short_text(value: object) -> str:
    """Text for a log line or an attribute: at most 128 characters; empty for what is no text."""
    return value[:_LONGEST_TEXT] if type(value) is str else str(value)[:_LONGEST_TEXT] if type(value) is int else ""


def quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def missing(name: str) -> CarrierProtocolError:
    return CarrierProtocolError(f"`{name}` is missing or of the wrong type")


def not_started() -> RuntimeError:
    return RuntimeError("the stream has not started: there is nobody to send this to")
