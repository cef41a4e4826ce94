"""One simulated phone call: dials, follows its documents, streams, ends; and the person at its far end."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from carrier_simulator.dialect import Office
from carrier_simulator.faults import CarrierError, Refused
from carrier_simulator.keypad import Keypad
from carrier_simulator.moments import Moment
from carrier_simulator.notices import Notices
from carrier_simulator.phone import RATE, Mouth
from carrier_simulator.program import Over, Program
from carrier_simulator.stream import MediaStream
from carrier_simulator.terms import FINAL, Callback, CallStatus, Document
from carrier_simulator.verbs import Target
from carrier_simulator.web import Form


class PhoneCall:
    """What both directions share. Moments are in `time.monotonic` seconds."""

    direction = ""

    def __init__(self, office: Office, to: str, from_: str, callback: Callback | None = None) -> None:
        self.office = office
        self.sid = office.dialect.call_id()
        """The carrier's id for this call, whatever the carrier calls it."""
        self.account_sid = office.dialect.account_id
        self.to = to
        self.from_ = from_
        self.status = CallStatus.QUEUED
        self.errors: list[CarrierError] = []
        self.spoken: list[str] = []
        """Texts that the carrier read out to the caller."""
        self.streams: list[MediaStream] = []
        self.dialled: list[Target] = []
        """Whom the carrier was told to connect the caller with."""
        self.dialled_as: list[str] = []
        """The caller ids that it was given for that; empty where it was given none."""
        self.mouth = Mouth()
        self.keypad = Keypad()
        self.created_at = time.monotonic()
        self.created_date = datetime.now(UTC)
        self.ringing = Moment("ringing")
        self.answered = Moment("answered")
        self.fetched = Moment("document fetched")
        self.stream_started = Moment("stream started")
        self.first_sound = Moment("first sound heard")
        self.transferred = Moment("talking to somebody else")
        self.ended = Moment("call ended")
        self.orders: asyncio.Queue[Document | CallStatus] = asyncio.Queue()
        self._notices = Notices(office, callback, self.errors)
        self._task: asyncio.Task[None] | None = None

    # The person ---------------------------------------------------------------------------------------------

    @property
    def stream(self) -> MediaStream:
        """The latest media stream; RuntimeError before the first."""
        if not self.streams:
            raise RuntimeError("the call has no stream yet")
        return self.streams[-1]

    @property
    def said(self) -> NDArray[np.int16]:
        """int16 at the stream's rate, from the start of the latest stream; on the same clock as `heard`."""
        return self.stream.said if self.streams else np.zeros(0, np.int16)

    @property
    def heard(self) -> NDArray[np.int16]:
        """int16 at the stream's rate, from the start of the latest stream; on the same clock as `said`."""
        return self.stream.heard if self.streams else np.zeros(0, np.int16)

    def say(self, pcm: NDArray[np.int16], rate: int = RATE) -> int:
        """Speak int16 at `rate` after what waits already; return the sample of `said` where it will begin."""
        begins = (self.stream.position if self.streams else 0) + self.mouth.waiting
        self.mouth.say(pcm, rate)
        return begins

    def say_silence(self, seconds: float) -> int:
        return self.say(np.zeros(round(seconds * RATE), np.int16))

    @property
    def saying(self) -> float:
        """Seconds of speech that are still to be said."""
        return self.mouth.seconds

    async def press(self, digits: str, gap: float = 0.0) -> None:
        """Press keys, `gap` seconds apart, for a question that waits or else for the stream, which must have begun."""
        for index, digit in enumerate(digits):
            if index and gap:
                await asyncio.sleep(gap)
            if self.keypad.gather:
                self.keypad.press(digit)
            else:
                self.stream.press(digit)

    async def enter(self, digits: str) -> None:
        """Answer a question of the carrier's with these digits, once it asks; TimeoutError when it does not."""
        await self.keypad.asked()
        await self.press(digits)
        self.keypad.answered()

    async def hangup(self) -> None:
        """Put the receiver down; returns when the call has ended."""
        self.order(CallStatus.COMPLETED)
        await self.ended.wait()

    # The carrier --------------------------------------------------------------------------------------------

    def order(self, order: Document | CallStatus) -> None:
        """End the call, or turn to another document, whatever it is doing now."""
        self.orders.put_nowait(order)

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

    def form(self) -> Form:
        """The fields of every request that the carrier makes about this call."""
        return self.office.dialect.form(self)

    def start(self) -> None:
        self._task = asyncio.create_task(self._live(), name=f"call {self.sid}")

    async def cancel(self) -> None:
        """Stop at once, saying nothing more to anybody but what a cancelled stream says."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._end(CallStatus.CANCELED if not self.answered.has_come() else CallStatus.COMPLETED)

    async def finished(self) -> None:
        """Return when the call and all it still has to tell are through."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def _live(self) -> None:
        teller = asyncio.create_task(self._notices.tell())
        try:
            await self._talk()
            self._notices.close()
            await teller
        finally:
            teller.cancel()
            await asyncio.gather(teller, return_exceptions=True)

    async def _talk(self) -> None:
        status = CallStatus.COMPLETED
        program = Program(self)
        try:
            await program.run(await self._open())
        except Over as over:
            status = over.status
        except Refused as refused:
            self.errors.append(refused.error)
            status = CallStatus.COMPLETED if self.answered.has_come() else CallStatus.FAILED
        finally:
            await program.close()
        self._end(status)

    async def _open(self) -> Document:
        """Get the call to the point where its document is to be followed."""
        raise NotImplementedError

    def set_status(self, status: CallStatus) -> None:
        self.status = status
        if status is CallStatus.RINGING:
            self.ringing.come()
        elif status is CallStatus.IN_PROGRESS:
            self.answered.come()
        if self._notices.wants(status):
            self._notices.add(self.office.dialect.notice(self, self._notices.count))

    def _end(self, status: CallStatus) -> None:
        if not self.is_over:
            self.ended.come()
            self.set_status(status)
