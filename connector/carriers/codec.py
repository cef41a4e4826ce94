"""The interface of the carriers' codecs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from connector.carriers.events import Encoding, Event, StreamStarted


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """What audio is made of, mono; `rate` in samples a second."""

    encoding: Encoding
    rate: int


class Codec(Protocol):
    """The protocol of one media stream, without the socket: one codec object per stream.

    Messages go in and events come out; commands become the text to send. A command before the stream has
    started raises RuntimeError: a bug of ours, since no carrier takes one.
    """

    @property
    def format(self) -> MediaFormat:
        """The audio in `AudioReceived`: known once the stream has started, RuntimeError before.

        Samples of L16 are int16, little-endian, here and in `audio`, whatever they are on the wire.
        """
        ...

    @property
    def reply_format(self) -> MediaFormat:
        """The audio that `audio` takes; for most carriers the same as `format`, and known when that is."""
        ...

    def receive(self, text: str) -> Event:
        """Decodes one text message of the WebSocket.

        Raises CarrierProtocolError, and nothing else, for whatever the carrier does not say. Its `close_code` is
        1007 for text that is not JSON, 1002 for a message of the wrong shape or out of order, and 1008 for one
        that is well-formed but means something we do not accept. Its message quotes nothing that the peer sent.
        """
        ...

    def attributes(self, started: StreamStarted, call_id: str) -> dict[str, str]:
        """What the caller's participant shall carry of the carrier's own facts, under the carrier's prefix. `call_id`
        is the id that the carrier's HTTP requests gave the call; empty where none has come."""
        ...

    def audio(self, payload: bytes) -> str:
        """Plays audio, in the encoding of the stream's start, after everything that was sent before."""
        ...

    def mark(self, name: str) -> str:
        """Asks for `MarkReached(name)` when everything that was sent before has been played."""
        ...

    def clear(self) -> str:
        """Drops the audio that was sent but not played yet."""
        ...
