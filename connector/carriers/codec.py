"""The interface of the carriers' codecs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from connector.carriers.events import Encoding, Event, StreamStarted


@dataclass(frozen=True, slots=True)
class MediaFormat:
    """The format of mono audio; `rate` in samples per second."""

    encoding: Encoding
    rate: int


class Codec(Protocol):
    """The protocol of one media stream, without the socket: one codec object per stream.

    Converts the carrier's messages to events, and commands to text to send. A command before the start of the stream
    raises RuntimeError: it is our bug, since no carrier accepts one.
    """

    @property
    def format(self) -> MediaFormat:
        """The format of `AudioReceived`. Raises RuntimeError before the start of the stream.

        L16 samples are little-endian int16 here and in `audio`, independent of the byte order on the wire.
        """
        ...

    @property
    def reply_format(self) -> MediaFormat:
        """The format that `audio` takes. For most carriers the same as `format`, and available from the same moment."""
        ...

    def receive(self, text: str) -> Event:
        """Decodes one text message of the WebSocket.

        Raises only CarrierProtocolError, for every message that breaks the protocol. Its `close_code` is
        1007 for text that is not JSON, 1002 for a message of the wrong shape or out of order, and 1008 for one
        that is well-formed but not acceptable. Its error text contains no data from the peer.
        """
        ...

    def attributes(self, started: StreamStarted, call_id: str) -> dict[str, str]:
        """Returns the carrier's facts as attributes of the caller's participant, with the carrier's prefix. `call_id`:
        the id of the call in the carrier's HTTP requests; empty if there was no request."""
        ...

    def audio(self, payload: bytes) -> str:
        """Plays audio, in `reply_format`, after all audio sent before."""
        ...

    def mark(self, name: str) -> str:
        """Requests `MarkReached(name)` for the moment when all audio sent before has been played."""
        ...

    def clear(self) -> str:
        """Drops audio that was sent and is not yet played."""
        ...
