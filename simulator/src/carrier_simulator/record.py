"""The facts of one call, as callbacks, documents and the REST API report them."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime

from carrier_simulator.faults import CarrierError
from carrier_simulator.moments import Moment
from carrier_simulator.terms import FINAL, CallStatus
from carrier_simulator.verbs import Target


class CallRecord:
    """Moments are in `time.monotonic` seconds."""

    direction = ""

    def __init__(self, sid: str, account_sid: str, to: str, from_: str) -> None:
        self.sid = sid
        """The carrier's id for this call, whatever the carrier calls it."""
        self.account_sid = account_sid
        self.to = to
        self.from_ = from_
        self.status = CallStatus.QUEUED
        self.errors: list[CarrierError] = []
        self.spoken: list[str] = []
        """Texts that the carrier read out to the caller."""
        self.dialled: list[Target] = []
        """Whom the carrier was told to connect the caller with."""
        self.dialled_as: list[str] = []
        """The caller ids that it was given for that; empty where it was given none."""
        self.created_at = time.monotonic()
        self.created_date = datetime.now(UTC)
        self.ringing = Moment("ringing")
        self.answered = Moment("answered")
        self.fetched = Moment("document fetched")
        self.stream_started = Moment("stream started")
        self.first_sound = Moment("first sound heard")
        self.transferred = Moment("talking to somebody else")
        self.ended = Moment("call ended")

    @property
    def is_over(self) -> bool:
        return self.status in FINAL

    @property
    def duration(self) -> int | None:
        """Whole seconds since the answer, as billed; None while the call lasts."""
        if self.ended.at is None:
            return None
        return math.ceil(self.ended.at - self.answered.at) if self.answered.at is not None else 0

    def timeline(self) -> list[tuple[str, float]]:
        """The moments that came, in order, in seconds from the creation of the call."""
        moments = (
            self.ringing,
            self.answered,
            self.fetched,
            self.stream_started,
            self.first_sound,
            self.transferred,
            self.ended,
        )
        came = [(moment.name, moment.at - self.created_at) for moment in moments if moment.at is not None]
        return sorted(came, key=lambda item: item[1])
