"""The events of a carrier's media socket; the same for all carriers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Encoding(StrEnum):
    """How a stream's samples are coded. `L16` is linear 16 bit; the carrier's codec knows its byte order."""

    MULAW = "mulaw"
    ALAW = "alaw"
    L16 = "l16"


@dataclass(frozen=True, slots=True)
class Ignored:
    """A valid message that we do not use; `why` is for the log."""

    why: str


@dataclass(frozen=True, slots=True)
class CarrierComplained:
    """The carrier reports an error in our message; the stream continues. `code` and `text` are for the log."""

    code: str
    text: str


@dataclass(frozen=True, slots=True)
class StreamStarted:
    """The first event of every stream. The ids are the carrier's; `parameters` come from the answer document."""

    call_id: str
    stream_id: str
    account_id: str
    encoding: Encoding
    sample_rate: int
    parameters: Mapping[str, str]
    from_number: str = ""
    to_number: str = ""
    """Empty unless the carrier sends the numbers in the stream (Telnyx)."""
    has_own_ids: bool = False
    """Whether `call_id` may differ from the id of the same call in the carrier's HTTP requests (Telnyx)."""

    def may_be_of(self, call_id: str) -> bool:
        """Whether the stream can belong to the call that has this id in the carrier's HTTP requests."""
        return self.has_own_ids or self.call_id == call_id


@dataclass(frozen=True, slots=True)
class FormatRefused:
    """A stream has started with audio that we cannot decode, so it ends. The ids are as in `StreamStarted`."""

    call_id: str
    stream_id: str
    account_id: str
    format: str
    """The carrier's name of the format, for the log; at most one line."""
    has_own_ids: bool = False

    def may_be_of(self, call_id: str) -> bool:
        return self.has_own_ids or self.call_id == call_id


@dataclass(frozen=True, slots=True)
class AudioReceived:
    """Encoded audio, at least one sample; `timestamp`: seconds since the start of the stream, None if unknown."""

    payload: bytes
    timestamp: float | None
    sequence: int | None = None
    """Position among the frames of the track, for a carrier that does not guarantee their order (Telnyx)."""


@dataclass(frozen=True, slots=True)
class AudioRejected:
    """Audio that is unusable or not the caller's. It is counted and does not end the call.

    `why` is a metric label: wrong_track, bad_base64, empty, odd_length.
    """

    why: str


@dataclass(frozen=True, slots=True)
class OwnAudio:
    """Our own audio, streamed back by the carrier: expected, and neither counted nor logged."""


@dataclass(frozen=True, slots=True)
class DtmfReceived:
    """A key was pressed: one of `DTMF_KEYS`."""

    digit: str


@dataclass(frozen=True, slots=True)
class MarkReached:
    """The carrier has played, or dropped on request, all audio sent before the mark with this name."""

    name: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The carrier has ended the stream; no event follows."""

    call_id: str


DTMF_KEYS = frozenset("0123456789*#ABCD")
"""All keys that a `DtmfReceived` can report."""

Event = (
    Ignored
    | CarrierComplained
    | StreamStarted
    | FormatRefused
    | AudioReceived
    | AudioRejected
    | OwnAudio
    | DtmfReceived
    | MarkReached
    | StreamStopped
)
