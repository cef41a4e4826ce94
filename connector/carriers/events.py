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
    """The first event of every stream; the ids are the carrier's, the `parameters` its answer document's."""

    call_id: str
    stream_id: str
    account_id: str
    encoding: Encoding
    sample_rate: int
    parameters: Mapping[str, str]
    from_number: str = ""
    to_number: str = ""
    """Where the carrier tells them in the stream (Telnyx)."""
    has_own_ids: bool = False
    """Whether `call_id` need not be the id that the carrier's HTTP requests give the same call (Telnyx)."""

    def may_be_of(self, call_id: str) -> bool:
        """Whether this can be the stream of the call with this id in the carrier's HTTP requests."""
        return self.has_own_ids or self.call_id == call_id


@dataclass(frozen=True, slots=True)
class FormatRefused:
    """A stream has started with audio that we cannot decode, so it ends. The ids are as in `StreamStarted`."""

    call_id: str
    stream_id: str
    account_id: str
    format: str
    """In the carrier's words, for the log: not longer than a line."""
    has_own_ids: bool = False

    def may_be_of(self, call_id: str) -> bool:
        return self.has_own_ids or self.call_id == call_id


@dataclass(frozen=True, slots=True)
class AudioReceived:
    """Coded samples, at least one; `timestamp` is in seconds since the stream began, where it is known."""

    payload: bytes
    timestamp: float | None
    sequence: int | None = None
    """Position among the frames of the track, for a carrier that does not guarantee their order (Telnyx)."""


@dataclass(frozen=True, slots=True)
class AudioRejected:
    """Audio that cannot be used or is not the caller's: to be counted, no reason to end the call.

    `why` is one of few words, fit for a metric's label: wrong_track, bad_base64, empty, odd_length.
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
    """The carrier has played (or been told to drop) everything sent before the mark of this name."""

    name: str


@dataclass(frozen=True, slots=True)
class StreamStopped:
    """The carrier says that the stream is over; nothing follows."""

    call_id: str


DTMF_KEYS = frozenset("0123456789*#ABCD")
"""All that a `DtmfReceived` can say."""

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
