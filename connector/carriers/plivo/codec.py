"""Plivo audio streaming: JSON text over a WebSocket.

https://www.plivo.com/docs/voice/audio-streaming/audio-streaming

Plivo sends `start`, then any number of `media`, `dtmf`, `playedStream` and `clearedAudio`; it closes the socket
without a `stop`. We send `playAudio`, `checkpoint` and `clearAudio`.
"""

from __future__ import annotations

from types import MappingProxyType

from connector.carriers.codec import MediaFormat
from connector.carriers.events import (
    CarrierComplained,
    Encoding,
    Event,
    FormatRefused,
    Ignored,
    StreamStarted,
    StreamStopped,
)
from connector.carriers.stream_codec import StreamCodec
from connector.carriers.wire import (
    Json,
    digit_of,
    format_of,
    given,
    id_of,
    information,
    known,
    mark_of,
    message_of,
    parameters_of,
    part,
    quoted,
    short_text,
)
from connector.errors import CarrierProtocolError

_CONTENT_TYPES = {Encoding.MULAW: "audio/x-mulaw", Encoding.ALAW: "audio/x-alaw", Encoding.L16: "audio/x-l16"}
"""Plivo does not document the byte order of its L16; we use little-endian, like the PCM in its own examples."""
_USUAL = MediaFormat(Encoding.MULAW, 8000)
_LONGEST_HEADERS = 4096


class PlivoCodec(StreamCodec):
    """One stream; see `Codec`."""

    MARK_TAIL = "}"

    def receive(self, text: str) -> Event:
        message, event = message_of(text)
        self._order.require_own(message.get("streamId", self._order.stream_id))
        if event == "media":
            return self._media(message)
        match event:
            case "start":
                return self._on_start(message)
            case "dtmf":
                self._order.require_streaming()
                return digit_of(message.get("dtmf"))
            case "playedStream":
                self._order.require_streaming()
                return mark_of(message.get("name"))
            case "clearedAudio":
                self._order.require_streaming()
                return Ignored("cleared")
            case "incorrectPayload":
                # Plivo sends this event but does not document it; its fields, except the name, are unknown.
                return CarrierComplained(event, short_text(message.get("reason")))
            case "stop":
                self._order.stop()
                return StreamStopped(self._call_id)
        return Ignored(f"unknown event {event[:32]!r}")

    def attributes(self, started: StreamStarted, call_id: str) -> dict[str, str]:
        ids = {
            "plivo.callId": started.call_id,
            "plivo.accountId": started.account_id,
            "plivo.streamId": started.stream_id,
        }
        return known(ids) | {f"plivo.param.{name}": value for name, value in started.parameters.items()}

    def _on_start(self, message: Json) -> Event:
        start = part(message, "start")
        stream_id, call_id = id_of(start, "streamId"), id_of(start, "callId")
        account_id, media = information(start, "accountId"), given(start, "mediaFormat")
        found = format_of(media.get("encoding"), media.get("sampleRate"), media.get("channels"), _USUAL)
        if isinstance(found, str):
            return FormatRefused(call_id, stream_id, account_id, found)
        parameters = _headers(message.get("extra_headers"))
        self._order.start(stream_id)
        self._call_id, self._format = call_id, found
        described = f'"contentType":"{_CONTENT_TYPES[found.encoding]}","sampleRate":{found.rate}'
        self._audio_head = f'{{"event":"playAudio","media":{{{described},"payload":"'
        self._mark_head = f'{{"event":"checkpoint","streamId":{quoted(stream_id)},"name":'
        self._clear_text = f'{{"event":"clearAudio","streamId":{quoted(stream_id)}}}'
        return StreamStarted(call_id, stream_id, account_id, found.encoding, found.rate, MappingProxyType(parameters))


def _headers(value: object) -> dict[str, str]:
    """Plivo returns the answer document's `extraHeaders` as `k=v;k2=v2`, as text in braces, or not at all."""
    if type(value) is not str:
        return parameters_of(value)
    if len(value) > _LONGEST_HEADERS:
        raise CarrierProtocolError("`extra_headers` is not text, or is too long")
    pairs = (pair.partition("=") for pair in value.strip("{} ").replace(",", ";").split(";"))
    return parameters_of({name.strip(): text.strip() for name, equals, text in pairs if equals and name.strip()})
