"""Transfers: the requested dial, and the carriers' terms for its progress and its result. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from connector.carriers.facts import CallFacts
from connector.model.call import TransferStatus

MIN_TIMEOUT, MAX_TIMEOUT = 5, 600
"""Limits of the ringing time in seconds; a carrier may have a lower maximum."""
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
    """URL at which the carrier reports the result of the dial and gets the next document; empty: it hangs up."""
    progress: str = ""
    """URL at which the carrier reports answering and, if it supports that, ringing."""


@dataclass(frozen=True, slots=True)
class DialOver:
    """The result of a dial. `caller_left`: the caller has hung up, so the carrier follows no further document."""

    status: TransferStatus
    caller_left: bool


def dial_outcome(word: str, facts: CallFacts) -> DialOver | None:
    """`word`: the carrier's term for the result; `facts`: from the same request. None if it does not report a
    dial."""
    caller_left = facts.status in _OVER
    if not word:
        # The request may report only that the caller has hung up.
        return DialOver(TransferStatus.CANCELED, caller_left=True) if caller_left else None
    return DialOver(_STATUSES.get(word.lower(), TransferStatus.FAILED), caller_left)


def progress_of(words: Iterable[str]) -> TransferStatus | None:
    """Returns the first known progress among the carrier's terms; None if there is none. The dial's end is reported to
    the action URL."""
    found = (_PROGRESS.get(word.lower()) for word in words)
    return next((status for status in found if status is not None), None)
