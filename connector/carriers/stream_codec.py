"""The part of a codec that Twilio's and Plivo's streams have in common."""

from __future__ import annotations

from binascii import b2a_base64
from typing import ClassVar

from connector.carriers.codec import MediaFormat
from connector.carriers.events import AudioReceived, AudioRejected, Encoding, Event
from connector.carriers.wire import Json, StreamOrder, audio_of, not_started, quoted, seconds_from


class StreamCodec:
    """One stream with one format in both directions, L16 in little-endian; see `Codec`. Uses no clock and no socket.

    At the start of the stream the carrier's codec sets the format and the constant beginning of each message type that
    we send: sending audio then needs no JSON encoder.
    """

    MARK_TAIL: ClassVar[str]
    """The end of a mark's message, behind its name."""

    def __init__(self) -> None:
        self._order = StreamOrder()
        self._format: MediaFormat | None = None
        self._call_id = ""
        self._audio_head = self._mark_head = self._clear_text = ""

    @property
    def format(self) -> MediaFormat:
        if self._format is None:
            raise not_started()
        return self._format

    reply_format = format

    def audio(self, payload: bytes) -> str:
        if not self._audio_head:
            raise not_started()
        return f'{self._audio_head}{b2a_base64(payload, newline=False).decode("ascii")}"}}}}'

    def mark(self, name: str) -> str:
        if not self._mark_head:
            raise not_started()
        return f"{self._mark_head}{quoted(name)}{self.MARK_TAIL}"

    def clear(self) -> str:
        if not self._clear_text:
            raise not_started()
        return self._clear_text

    def _media(self, message: Json) -> Event:
        self._order.require_streaming()
        found = audio_of(message.get("media"))
        if isinstance(found, AudioRejected):
            return found
        audio, media = found
        if self.format.encoding is Encoding.L16 and len(audio) % 2:
            return AudioRejected("odd_length")
        return AudioReceived(audio, seconds_from(media.get("timestamp")))
