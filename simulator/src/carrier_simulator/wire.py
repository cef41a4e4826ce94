"""What a media stream's messages say, whichever carrier's they are."""

from __future__ import annotations

import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from carrier_simulator.faults import CarrierError
from carrier_simulator.sounds import Sound


@dataclass(frozen=True, slots=True)
class Media:
    payload: bytes
    """Coded as the stream's `plays` says."""


@dataclass(frozen=True, slots=True)
class Mark:
    name: str


@dataclass(frozen=True, slots=True)
class Clear:
    pass


@dataclass(frozen=True, slots=True)
class Digits:
    """Keys that the far end of the call is to hear."""

    digits: str


FromServer = Media | Mark | Clear | Digits


class Wire(Protocol):
    """One stream's messages, both ways, in one carrier's words. Pure: no socket, no clock.

    Messages are numbered in the order in which they are written.
    """

    stream_id: str
    speaks: Sound
    """How the caller's audio is coded."""
    plays: Sound
    """How the server's audio is to be coded."""
    echoes: bool
    """Whether the audio that is played to the caller is sent back as a separate track."""
    buffer_seconds: float
    """How much audio may wait to be played."""

    def opening(self) -> Sequence[str]:
        """What comes before any audio."""
        ...

    def media(self, payload: bytes, milliseconds: int) -> str:
        """`milliseconds` since the stream's start, of the payload's first sample."""
        ...

    def echo(self, payload: bytes, milliseconds: int) -> str:
        """What has been played to the caller."""
        ...

    def dtmf(self, digit: str) -> str: ...

    def mark(self, name: str) -> str:
        """Playback has come to here."""
        ...

    def cleared(self, marks: Sequence[str]) -> Sequence[str]:
        """The answer to a clear; `marks` were in the dropped audio."""
        ...

    def closing(self) -> Sequence[str]:
        """What comes before the carrier closes the socket."""
        ...

    def read(self, text: str) -> FromServer:
        """Raise Refused for anything that is not to the letter a documented message."""
        ...

    def complaint(self, error: CarrierError) -> str | None:
        """Report an error in the server's message to the server, and go on; None ends the stream."""
        ...


class Letter:
    """One message of the server, read field by field; `wrong` makes the exception of the carrier."""

    def __init__(self, text: str, wrong: Callable[[str], Exception]) -> None:
        self._wrong = wrong
        try:
            message = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise wrong("not JSON") from error
        if not isinstance(message, dict):
            raise wrong("not a JSON object")
        self.message: Mapping[str, object] = message
        self.event = message.get("event")

    def exactly(self, *keys: str) -> None:
        """These fields beside `event`, and no other."""
        wanted = {"event", *keys}
        if self.message.keys() != wanted:
            extra, missing = sorted(self.message.keys() - wanted), sorted(wanted - self.message.keys())
            raise self._wrong(f"fields of {self.event}: {extra} too many, {missing} missing")

    def inner(self, name: str, *keys: str) -> Mapping[str, object]:
        """The object `name`, which has these fields and no other."""
        inner = self.message[name]
        if not isinstance(inner, dict) or inner.keys() != set(keys):
            raise self._wrong(f"{name} must be an object with {', '.join(keys)} alone")
        return inner

    def text(self, value: object, name: str) -> str:
        if not isinstance(value, str):
            raise self._wrong(f"{name} must be a string")
        return value


def base64_bytes(encoded: str, wrong: Callable[[str], Exception]) -> bytes:
    try:
        payload = binascii.a2b_base64(encoded.encode("ascii"), strict_mode=True)
    except ValueError as error:
        raise wrong("the payload is not base64") from error
    if not payload:
        raise wrong("the payload is empty")
    return payload
