"""The words in which calls are asked for, answered and reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

FRAME_SAMPLES = 160
"""20 ms at 8 kHz, as all three carriers send."""


class CallStatus(StrEnum):
    QUEUED = "queued"
    INITIATED = "initiated"
    RINGING = "ringing"
    IN_PROGRESS = "in-progress"
    COMPLETED = "completed"
    BUSY = "busy"
    FAILED = "failed"
    NO_ANSWER = "no-answer"
    CANCELED = "canceled"


FINAL = frozenset({CallStatus.COMPLETED, CallStatus.BUSY, CallStatus.FAILED, CallStatus.NO_ANSWER, CallStatus.CANCELED})


@dataclass(frozen=True, slots=True)
class Document:
    """Where a call's TwiML is: behind `url`, or right here as `inline`."""

    url: str = ""
    method: str = "POST"
    inline: str = ""
    extra: tuple[tuple[str, str], ...] = ()
    """Form fields beside the usual ones."""


@dataclass(frozen=True, slots=True)
class Callback:
    """Where and when the application wants to hear of a call's progress."""

    url: str
    method: str = "POST"
    events: frozenset[str] = frozenset({"completed"})


class Answer(StrEnum):
    """What the called person does."""

    ANSWERS = "answers"
    BUSY = "busy"
    NO_ANSWER = "no-answer"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Outcome:
    answer: Answer = Answer.ANSWERS
    after: float = 0.05
    """Seconds of ringing before it happens."""
    talks: float | None = None
    """Seconds after which somebody to whom a call was passed on hangs up; None: never."""


@dataclass(frozen=True, slots=True)
class CallOptions:
    """How the simulated world behaves for a call; a simulator passes its own to each of its calls."""

    say_seconds: float = 0.05
    """What one `<Say>` takes: nothing is spoken, the text goes into `spoken`."""
    frame_samples: Sequence[int] = (FRAME_SAMPLES,)
    """Lengths of the frames a stream sends, over and over, as if it had 8,000 samples a second."""
    reconnect_seconds: float = 0.05
    """Until a carrier that opens a lost media socket again does so; the real ones do not say how long they wait."""
    gather_seconds: float | None = None
    """How long to wait for a digit; None: as long as the document says."""
