"""Twilio Media Streams: JSON text over a WebSocket.

https://www.twilio.com/docs/voice/media-streams/websocket-messages

Twilio sends `connected`, `start`, then `media`, `dtmf` and `mark` in any number, and `stop`. We send `media`,
`mark` and `clear`. Strict where Twilio has documented what it sends; events it has not documented are
ignored, since carriers add some.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from types import MappingProxyType

import orjson

from connector.carriers.events import (
    DTMF_KEYS,
    AudioReceived,
    AudioRejected,
    DtmfReceived,
    Encoding,
    Event,
    Ignored,
    MarkReached,
    StreamStarted,
    StreamStopped,
)
from connector.errors import CarrierProtocolError
from connector.model import Provider

_NOT_JSON = 1007
_UNACCEPTABLE = 1008

_ID = re.compile(r"[\x21-\x7e]{1,64}", re.ASCII)
"""Twilio's are two letters and 32 hex digits. Looser, but nothing that could harm a log line."""
_MOST_PARAMETERS = 64
_LONGEST_PARAMETER = 500
"""Twilio's limit for a `<Parameter>`'s name and value together; here for either."""
_LONGEST_MARK = 256
_LONGEST_TIMESTAMP = 15
"""Digits of milliseconds: 31,000 years, and exact as a float."""
_ENCODING = "audio/x-mulaw"
_RATE = 8000

Json = dict[str, object]


class TwilioCodec:
    """One stream; see `Codec`. Time and sockets are the caller's business."""

    provider = Provider.TWILIO

    def __init__(self) -> None:
        self._connected = False
        self._stopped = False
        self._stream_id: str | None = None
        self._call_id = ""
        # The constant beginning of every message we send, so that sending audio takes no JSON encoder.
        self._audio_head = self._mark_head = self._clear_text = ""

    def receive(self, text: str) -> Event:
        try:
            message = orjson.loads(text)
        except ValueError:
            raise CarrierProtocolError("a message that is not JSON", _NOT_JSON) from None
        if type(message) is not dict:
            raise CarrierProtocolError("a message that is no JSON object")
        event = message.get("event")
        if type(event) is not str:
            raise CarrierProtocolError("a message without an event name")
        stream_id = message.get("streamSid", self._stream_id)
        if stream_id != self._stream_id and self._stream_id is not None:
            raise CarrierProtocolError("a message of another stream", _UNACCEPTABLE)
        if event == "media":
            return self._media(message)
        match event:
            case "connected":
                return self._on_connected()
            case "start":
                return self._on_start(message)
            case "dtmf":
                return self._dtmf(message)
            case "mark":
                return self._mark(message)
            case "stop":
                return self._stop(message)
        return Ignored(f"unknown event {event[:32]!r}")

    def attributes(self, started: StreamStarted) -> dict[str, str]:
        return {
            "twilio.callSid": started.call_id,
            "twilio.accountSid": started.account_id,
            "twilio.streamSid": started.stream_id,
        } | {f"twilio.param.{name}": value for name, value in started.parameters.items()}

    def audio(self, payload: bytes) -> str:
        if not self._audio_head:
            raise _not_started()
        return f'{self._audio_head}{b2a_base64(payload, newline=False).decode("ascii")}"}}}}'

    def mark(self, name: str) -> str:
        if not self._mark_head:
            raise _not_started()
        return f"{self._mark_head}{_quoted(name)}}}}}"

    def clear(self) -> str:
        if not self._clear_text:
            raise _not_started()
        return self._clear_text

    def _on_connected(self) -> Event:
        if self._connected or self._stream_id is not None:
            raise CarrierProtocolError("`connected` where it cannot come")
        self._connected = True
        return Ignored("connected")

    def _on_start(self, message: Json) -> Event:
        # A stream that leaves `connected` out says nothing less: its protocol and version are always the
        # same.
        if self._stream_id is not None:
            raise CarrierProtocolError("a second `start`")
        start = _part(message, "start")
        stream_id = _id(start, "streamSid")
        if message.get("streamSid", stream_id) != stream_id:
            raise CarrierProtocolError("two different `streamSid` in one `start`", _UNACCEPTABLE)
        call_id, account_id = _id(start, "callSid"), _id(start, "accountSid")
        _require_mulaw(_part(start, "mediaFormat"))
        parameters = _parameters(start.get("customParameters"))

        self._stream_id, self._call_id = stream_id, call_id
        tail = f'"streamSid":{_quoted(stream_id)}'
        self._audio_head = f'{{"event":"media",{tail},"media":{{"payload":"'
        self._mark_head = f'{{"event":"mark",{tail},"mark":{{"name":'
        self._clear_text = f'{{"event":"clear",{tail}}}'
        return StreamStarted(call_id, stream_id, account_id, Encoding.MULAW, _RATE, MappingProxyType(parameters))

    def _media(self, message: Json) -> Event:
        self._require_streaming()
        media = message.get("media")
        if type(media) is not dict:
            raise _missing("media")
        track, payload = media.get("track"), media.get("payload")
        if type(track) is not str or type(payload) is not str:
            raise _missing("media.track or media.payload")
        if track != "inbound":
            return AudioRejected("wrong_track")
        try:
            audio = a2b_base64(payload, strict_mode=True)
        except ValueError:
            return AudioRejected("bad_base64")
        if not audio:
            return AudioRejected("empty")
        return AudioReceived(audio, _seconds(media.get("timestamp")))

    def _dtmf(self, message: Json) -> Event:
        self._require_streaming()
        digit = _part(message, "dtmf").get("digit")
        if type(digit) is not str:
            raise _missing("dtmf.digit")
        # A key that we have never heard of is no reason to hang up on a person.
        return DtmfReceived(digit) if digit in DTMF_KEYS else Ignored("unknown dtmf digit")

    def _mark(self, message: Json) -> Event:
        self._require_streaming()
        name = _part(message, "mark").get("name")
        if type(name) is not str:
            raise _missing("mark.name")
        if len(name) > _LONGEST_MARK:
            raise CarrierProtocolError("a mark's name is too long", _UNACCEPTABLE)
        return MarkReached(name)

    def _stop(self, message: Json) -> Event:
        self._require_streaming()
        if _id(_part(message, "stop"), "callSid") != self._call_id:
            raise CarrierProtocolError("`stop` of another call", _UNACCEPTABLE)
        self._stopped = True
        return StreamStopped(self._call_id)

    def _require_streaming(self) -> None:
        if self._stream_id is None:
            raise CarrierProtocolError("a message before `start`")
        if self._stopped:
            raise CarrierProtocolError("a message after `stop`")


def _part(message: Json, name: str) -> Json:
    part = message.get(name)
    if type(part) is not dict:
        raise _missing(name)
    return part


def _id(part: Json, name: str) -> str:
    value = part.get(name)
    if type(value) is not str:
        raise _missing(name)
    if not _ID.fullmatch(value):
        raise CarrierProtocolError(f"`{name}` is not an id", _UNACCEPTABLE)
    return value


def _require_mulaw(media_format: Json) -> None:
    encoding, rate, channels = (media_format.get(name) for name in ("encoding", "sampleRate", "channels"))
    if (encoding, rate, channels) != (_ENCODING, _RATE, 1) or channels is True:
        raise CarrierProtocolError("a media format other than mu-law, 8000 Hz, mono", _UNACCEPTABLE)


def _parameters(value: object) -> dict[str, str]:
    """The `<Parameter>` children of the `<Stream>`; Twilio leaves them out or empty when there are none."""
    if value is None:
        return {}
    if type(value) is not dict:
        raise CarrierProtocolError("`customParameters` is no object")
    if len(value) > _MOST_PARAMETERS:
        raise CarrierProtocolError("too many custom parameters", _UNACCEPTABLE)
    for name, text in value.items():
        if type(text) is not str:
            raise CarrierProtocolError("a custom parameter is no string")
        if len(name) > _LONGEST_PARAMETER or len(text) > _LONGEST_PARAMETER:
            raise CarrierProtocolError("a custom parameter is too long", _UNACCEPTABLE)
    return value


def _seconds(timestamp: object) -> float | None:
    """From Twilio's string of milliseconds. None when it is not one: the audio itself is still good."""
    if type(timestamp) is str and len(timestamp) <= _LONGEST_TIMESTAMP and timestamp.isascii() and timestamp.isdigit():
        return int(timestamp) / 1000
    return None


def _quoted(text: str) -> str:
    return orjson.dumps(text).decode()


def _missing(name: str) -> CarrierProtocolError:
    return CarrierProtocolError(f"`{name}` is missing or of the wrong type")


def _not_started() -> RuntimeError:
    return RuntimeError("the stream has not started: there is nobody to send this to")
