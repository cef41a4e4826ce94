"""ACME's media stream: JSON text over a WebSocket.

ACME sends `start`, then `media`, `dtmf` and `mark` in any number, and `stop`. We send `media`, `mark` and `clear`.
"""

from __future__ import annotations

from base64 import b64encode
from types import MappingProxyType

from connector.carriers.codec import MediaFormat
from connector.carriers.events import (
    AudioReceived,
    AudioRejected,
    Encoding,
    Event,
    FormatRefused,
    Ignored,
    StreamStarted,
    StreamStopped,
)
from connector.carriers.wire import (
    Json,
    StreamOrder,
    audio_of,
    digit_of,
    format_of,
    given,
    id_of,
    information,
    known,
    mark_of,
    message_of,
    not_started,
    parameters_of,
    part,
    quoted,
    seconds_from,
)

_USUAL = MediaFormat(Encoding.MULAW, 8000)


class AcmeCodec:
    def __init__(self) -> None:
        self._order = StreamOrder()
        self._call_id = ""
        self._format: MediaFormat | None = None

    @property
    def format(self) -> MediaFormat:
        if self._format is None:
            raise not_started()
        return self._format

    reply_format = format

    def receive(self, text: str) -> Event:
        message, event = message_of(text)
        if event == "start":
            return self._start(message)
        if event not in ("media", "dtmf", "mark", "stop"):
            return Ignored(f"unknown event {event[:32]!r}")
        self._order.require_streaming()
        match event:
            case "media":
                return self._media(message)
            case "dtmf":
                return digit_of(message.get("dtmf"))
            case "mark":
                return mark_of(message.get("name"))
        self._order.stop()
        return StreamStopped(self._call_id)

    def attributes(self, started: StreamStarted, call_id: str) -> dict[str, str]:
        ids = {"acme.call": started.call_id, "acme.stream": started.stream_id, "acme.account": started.account_id}
        return known(ids) | {f"acme.param.{name}": value for name, value in started.parameters.items()}

    def audio(self, payload: bytes) -> str:
        return self._sent(f'"media","media":{{"payload":"{b64encode(payload).decode()}"}}')

    def mark(self, name: str) -> str:
        return self._sent(f'"mark","name":{quoted(name)}')

    def clear(self) -> str:
        return self._sent('"clear"')

    def _sent(self, rest: str) -> str:
        if self._format is None:
            raise not_started()
        return f'{{"event":{rest}}}'

    def _start(self, message: Json) -> Event:
        start = part(message, "start")
        call_id, stream_id = id_of(start, "call"), id_of(start, "stream")
        account_id, media = information(start, "account"), given(start, "format")
        found = format_of(media.get("encoding"), media.get("rate"), media.get("channels"), _USUAL)
        if isinstance(found, str):
            return FormatRefused(call_id, stream_id, account_id, found)
        parameters = parameters_of(start.get("parameters"))
        self._order.start(stream_id)
        self._call_id, self._format = call_id, found
        return StreamStarted(call_id, stream_id, account_id, found.encoding, found.rate, MappingProxyType(parameters))

    def _media(self, message: Json) -> Event:
        found = audio_of(message.get("media"))
        if isinstance(found, AudioRejected):
            return found
        audio, media = found
        if self.format.encoding is Encoding.L16 and len(audio) % 2:
            return AudioRejected("odd_length")
        return AudioReceived(audio, seconds_from(media.get("at")))
