"""Twilio Media Streams: JSON text over a WebSocket.

https://www.twilio.com/docs/voice/media-streams/websocket-messages

Twilio sends `connected`, `start`, then any number of `media`, `dtmf` and `mark`, and at the end `stop`. We send
`media`, `mark` and `clear`. Undocumented events are ignored, because carriers add new ones.
"""

from __future__ import annotations

from types import MappingProxyType

from connector.carriers.codec import MediaFormat
from connector.carriers.events import (
    Encoding,
    Event,
    FormatRefused,
    Ignored,
    StreamStarted,
    StreamStopped,
)
from connector.carriers.stream_codec import StreamCodec
from connector.carriers.wire import (
    UNACCEPTABLE,
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
)
from connector.errors import CarrierProtocolError

_USUAL = MediaFormat(Encoding.MULAW, 8000)
"""Twilio's format unless the `<Stream>` requests another one. Its linear samples are little-endian."""


class TwilioCodec(StreamCodec):
    """One stream; see `Codec`."""

    MARK_TAIL = "}}"

    def __init__(self) -> None:
        super().__init__()
        self._connected = False

    def receive(self, text: str) -> Event:
        message, event = message_of(text)
        self._order.require_own(message.get("streamSid", self._order.stream_id))
        if event == "media":
            return self._media(message)
        match event:
            case "connected":
                return self._on_connected()
            case "start":
                return self._on_start(message)
            case "dtmf":
                self._order.require_streaming()
                return digit_of(message.get("dtmf"))
            case "mark":
                self._order.require_streaming()
                return mark_of(given(message, "mark").get("name"))
            case "stop":
                return self._stop(message)
        return Ignored(f"unknown event {event[:32]!r}")

    def attributes(self, started: StreamStarted, call_id: str) -> dict[str, str]:
        ids = {
            "twilio.callSid": started.call_id,
            "twilio.accountSid": started.account_id,
            "twilio.streamSid": started.stream_id,
        }
        return known(ids) | {f"twilio.param.{name}": value for name, value in started.parameters.items()}

    def _on_connected(self) -> Event:
        if self._connected or self._order.stream_id is not None:
            raise CarrierProtocolError("unexpected `connected`")
        self._connected = True
        return Ignored("connected")

    def _on_start(self, message: Json) -> Event:
        # `connected` may be missing: its only content, protocol and version, never changes.
        start = part(message, "start")
        stream_id = id_of(start, "streamSid")
        if message.get("streamSid", stream_id) != stream_id:
            raise CarrierProtocolError("two different `streamSid` in one `start`", UNACCEPTABLE)
        call_id, account_id = id_of(start, "callSid"), information(start, "accountSid")
        media = given(start, "mediaFormat")
        found = format_of(media.get("encoding"), media.get("sampleRate"), media.get("channels"), _USUAL)
        if isinstance(found, str):
            return FormatRefused(call_id, stream_id, account_id, found)
        parameters = parameters_of(start.get("customParameters"))

        self._order.start(stream_id)
        self._call_id, self._format = call_id, found
        tail = f'"streamSid":{quoted(stream_id)}'
        self._audio_head = f'{{"event":"media",{tail},"media":{{"payload":"'
        self._mark_head = f'{{"event":"mark",{tail},"mark":{{"name":'
        self._clear_text = f'{{"event":"clear",{tail}}}'
        return StreamStarted(call_id, stream_id, account_id, found.encoding, found.rate, MappingProxyType(parameters))

    def _stop(self, message: Json) -> Event:
        self._order.require_streaming()
        if (information(given(message, "stop"), "callSid") or self._call_id) != self._call_id:
            raise CarrierProtocolError("`stop` of another call", UNACCEPTABLE)
        self._order.stop()
        return StreamStopped(self._call_id)
