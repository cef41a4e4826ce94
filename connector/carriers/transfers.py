"""A transfer: the dial that a carrier is asked for, and the carriers' words for its progress and its end. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from connector.carriers.facts import CallFacts
from connector.model import TransferStatus

MIN_TIMEOUT, MAX_TIMEOUT = 5, 600
"""Seconds of ringing; a carrier may take less."""
_OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
_STATUSES = {
    "completed": TransferStatus.ANSWERED,
    "answered": TransferStatus.ANSWERED,
    "busy": TransferStatus.BUSY,
    "no-answer": TransferStatus.NO_ANSWER,
    "timeout": TransferStatus.NO_ANSWER,
    "failed": TransferStatus.FAILED,
    "canceled": TransferStatus.CANCELED,
    "cancel": TransferStatus.CANCELED,
}
_PROGRESS = {
    "ringing": TransferStatus.RINGING,
    "in-progress": TransferStatus.ANSWERED,
    "answered": TransferStatus.ANSWERED,
    "answer": TransferStatus.ANSWERED,
    "connected": TransferStatus.ANSWERED,
}


@dataclass(frozen=True, slots=True)
class TransferDial:
    """One dial. Empty attributes are left out."""

    number: str
    timeout: int
    caller_id: str = ""
    action: str = ""
    """Where the carrier tells how the dial ended, and gets the next document; empty: it hangs up."""
    progress: str = ""
    """Where it tells that the number rings, as far as it does, and that somebody answered."""


@dataclass(frozen=True, slots=True)
class DialOver:
    """How a dial ended. `caller_left`: the caller has hung up, so no document is followed any more."""

    status: TransferStatus
    caller_left: bool


def dial_outcome(word: str, facts: CallFacts) -> DialOver | None:
    """From the carrier's word for the end of the dial and the facts of the same request; None when it tells of no
    dial."""
    caller_left = facts.status in _OVER
    if not word:
        # A caller who has hung up may be all there is to tell.
        return DialOver(TransferStatus.CANCELED, caller_left=True) if caller_left else None
    return DialOver(_STATUSES.get(word.lower(), TransferStatus.FAILED), caller_left)


def progress_of(words: Iterable[str]) -> TransferStatus | None:
    """The first news among a carrier's words; None where there is none, or none that is not told elsewhere too."""
    found = (_PROGRESS.get(word.lower()) for word in words)
    return next((status for status in found if status is not None), None)
