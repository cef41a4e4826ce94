"""Telnyx media streaming: JSON text over a WebSocket.

https://developers.telnyx.com/api-reference/websockets/stream-call-media-over-websocket

Telnyx sends `connected`, `start`, then any number of `media`, `dtmf`, `mark` and `error`, and at the end `stop`. We
send `media`, `mark` and `clear`, without a stream id. Media frames may arrive out of order; `chunk` is their sequence
number. With both tracks streamed, the outbound track is our own audio.

Each direction has its own codec. Received audio has the format that `start` reports. Sent audio must have the format
that the answer document requested (`bidirectionalCodec`); no message repeats it.
"""

from __future__ import annotations

from binascii import b2a_base64
from types import MappingProxyType

import numpy as np

from connector.carriers.codec import MediaFormat
from connector.carriers.events import (
    AudioReceived,
    AudioRejected,
    CarrierComplained,
    Encoding,
    Event,
    FormatRefused,
    Ignored,
    OwnAudio,
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
    is_our_own,
    known,
    mark_of,
    message_of,
    not_started,
    number_of,
    parameters_of,
    part,
    quoted,
    seconds_from,
    short_text,
)
from connector.errors import CarrierProtocolError

PCMU = MediaFormat(Encoding.MULAW, 8000)
"""The format that Telnyx expects from us if the answer document requests none."""
_LONGEST_CONTROL_ID = 128
_CLEAR = '{"event":"clear"}'
_OWN_AUDIO = OwnAudio()


class TelnyxCodec:
    """One stream; see `Codec`."""

    def __init__(self, reply_format: MediaFormat = PCMU) -> None:
        """`reply_format` is the answer document's `bidirectionalCodec`."""
        self.reply_format = reply_format
        self._order = StreamOrder()
        self._connected = False
        self._format: MediaFormat | None = None
        self._call_id = ""

    @property
    def format(self) -> MediaFormat:
        if self._format is None:
            raise not_started()
        return self._format

    def receive(self, text: str) -> Event:
        message, event = message_of(text)
        self._order.require_own(message.get("stream_id", self._order.stream_id))
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
            case "error":
                problem = given(message, "payload")
                return CarrierComplained(
                    short_text(problem.get("code")),
                    f"{short_text(problem.get('title'))} {short_text(problem.get('detail'))}".strip(),
                )
            case "stop":
                self._order.stop()
                return StreamStopped(self._call_id)
        return Ignored(f"unknown event {event[:32]!r}")

    def attributes(self, started: StreamStarted, call_id: str) -> dict[str, str]:
        ids = {
            "telnyx.callSid": call_id,
            "telnyx.callControlId": started.call_id,
            "telnyx.userId": started.account_id,
            "telnyx.streamId": started.stream_id,
        }
        return known(ids) | {f"telnyx.param.{name}": value for name, value in started.parameters.items()}

    def audio(self, payload: bytes) -> str:
        self._require_started()
        if self.reply_format.encoding is Encoding.L16:
            payload = swapped(payload)
        return f'{{"event":"media","media":{{"payload":"{b2a_base64(payload, newline=False).decode("ascii")}"}}}}'

    def mark(self, name: str) -> str:
        self._require_started()
        return f'{{"event":"mark","mark":{{"name":{quoted(name)}}}}}'

    def clear(self) -> str:
        self._require_started()
        return _CLEAR

    def _on_connected(self) -> Event:
        if self._connected or self._order.stream_id is not None:
            raise CarrierProtocolError("unexpected `connected`")
        self._connected = True
        return Ignored("connected")

    def _on_start(self, message: Json) -> Event:
        start = part(message, "start")
        stream_id, call_id = id_of(message, "stream_id"), id_of(start, "call_control_id", _LONGEST_CONTROL_ID)
        account_id, media = information(start, "user_id"), given(start, "media_format")
        found = format_of(media.get("encoding"), media.get("sample_rate"), media.get("channels"), self.reply_format)
        if isinstance(found, str):
            return FormatRefused(call_id, stream_id, account_id, found, has_own_ids=True)
        parameters = parameters_of(start.get("custom_parameters"))
        self._order.start(stream_id)
        self._call_id, self._format = call_id, found
        return StreamStarted(
            call_id,
            stream_id,
            account_id,
            found.encoding,
            found.rate,
            MappingProxyType(parameters),
            short_text(start.get("from")),
            short_text(start.get("to")),
            has_own_ids=True,
        )

    def _media(self, message: Json) -> Event:
        self._order.require_streaming()
        if is_our_own(message.get("media")):
            return _OWN_AUDIO
        found = audio_of(message.get("media"))
        if isinstance(found, AudioRejected):
            return found
        audio, media = found
        if self.format.encoding is Encoding.L16:
            if len(audio) % 2:
                return AudioRejected("odd_length")
            audio = swapped(audio)
        return AudioReceived(audio, seconds_from(media.get("timestamp")), number_of(media.get("chunk")))

    def _require_started(self) -> None:
        if self._order.stream_id is None:
            raise not_started()


def swapped(samples: bytes) -> bytes:
    """Swaps the bytes of 16-bit samples: Telnyx's L16 is that of RTP, big-endian (RFC 3551, 4.5.11)."""
    return np.frombuffer(samples, dtype=np.uint16).byteswap().tobytes()
