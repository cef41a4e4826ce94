"""One simulated phone call: dials, follows its TwiML, streams, ends; and the person at its far end."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from connector.audio.g711 import ulaw_encode
from connector.demo.carrier import twiml
from connector.demo.carrier.faults import CarrierError, Refused
from connector.demo.carrier.moments import Moment
from connector.demo.carrier.phone import RATE, Mouth
from connector.demo.carrier.stream import MediaStream
from connector.demo.carrier.terms import API_VERSION, FINAL, CallOptions, CallStatus, Document
from connector.demo.carrier.web import Web


class Over(Exception):
    """The call is to end now, with this status."""

    def __init__(self, status: CallStatus) -> None:
        super().__init__(status)
        self.status = status


class PhoneCall:
    """What both directions share. Moments are in `time.monotonic` seconds."""

    direction = ""

    def __init__(self, web: Web, account_sid: str, to: str, from_: str, options: CallOptions) -> None:
        self.sid = "CA" + secrets.token_hex(16)
        self.account_sid = account_sid
        self.to = to
        self.from_ = from_
        self.status = CallStatus.QUEUED
        self.errors: list[CarrierError] = []
        self.spoken: list[str] = []
        """Texts of the `<Say>` verbs the caller heard."""
        self.streams: list[MediaStream] = []
        self.created_at = time.monotonic()
        self.created_date = datetime.now(UTC)
        self.ringing = Moment("ringing")
        self.answered = Moment("answered")
        self.fetched = Moment("TwiML fetched")
        self.stream_started = Moment("stream started")
        self.first_sound = Moment("first sound heard")
        self.ended = Moment("call ended")
        self._web = web
        self._options = options
        self._mouth = Mouth()
        self._orders: asyncio.Queue[Document | CallStatus] = asyncio.Queue()
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
        """int16 at 8 kHz, from the start of the latest stream; on the same clock as `heard`."""
        return self.stream.said if self.streams else np.zeros(0, np.int16)

    @property
    def heard(self) -> NDArray[np.int16]:
        """int16 at 8 kHz, from the start of the latest stream; on the same clock as `said`."""
        return self.stream.heard if self.streams else np.zeros(0, np.int16)

    def say(self, pcm: NDArray[np.int16]) -> int:
        """Speak int16 at 8 kHz after what waits already; return the sample of `said` where it will begin."""
        begins = (self.stream.position if self.streams else 0) + self._mouth.waiting
        self._mouth.say(ulaw_encode(pcm))
        return begins

    def say_silence(self, seconds: float) -> int:
        return self.say(np.zeros(round(seconds * RATE), np.int16))

    @property
    def saying(self) -> float:
        """Seconds of speech that are still to be said."""
        return self._mouth.waiting / RATE

    async def press(self, digits: str, gap: float = 0.0) -> None:
        """Press keys, `gap` seconds apart; the stream must have started."""
        for index, digit in enumerate(digits):
            if index and gap:
                await asyncio.sleep(gap)
            self.stream.press(digit)

    async def hangup(self) -> None:
        """Put the receiver down; returns when the call has ended."""
        self.order(CallStatus.COMPLETED)
        await self.ended.wait()

    # The carrier --------------------------------------------------------------------------------------------

    def order(self, order: Document | CallStatus) -> None:
        """End the call, or turn to another document, whatever it is doing now."""
        self._orders.put_nowait(order)

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
            self.ended,
        )
        came = [(moment.name, moment.at - self.created_at) for moment in moments if moment.at is not None]
        return sorted(came, key=lambda item: item[1])

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
        status = CallStatus.COMPLETED
        try:
            await self._converse(await self._open())
        except Over as over:
            status = over.status
        except Refused as refused:
            self.errors.append(refused.error)
            status = CallStatus.COMPLETED if self.answered.has_come() else CallStatus.FAILED
        self._end(status)

    async def _open(self) -> Document:
        """Get the call to the point where its document is to be followed."""
        raise NotImplementedError

    def _set_status(self, status: CallStatus) -> None:
        self.status = status
        if status is CallStatus.RINGING:
            self.ringing.come()
        elif status is CallStatus.IN_PROGRESS:
            self.answered.come()

    def _end(self, status: CallStatus) -> None:
        if not self.is_over:
            self.ended.come()
            self._set_status(status)

    async def _converse(self, document: Document) -> None:
        """Follow documents, one after the other; an order interrupts whatever runs."""
        following: Document | None = document
        while following is not None:
            program = asyncio.create_task(self._follow(following))
            order = asyncio.create_task(self._orders.get())
            try:
                await asyncio.wait({program, order}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                program.cancel()
                order.cancel()
                outcomes = await asyncio.gather(program, order, return_exceptions=True)
            if isinstance(outcomes[1], CallStatus):
                raise Over(outcomes[1])
            if isinstance(outcomes[1], Document):
                following = outcomes[1]
            elif isinstance(outcomes[0], BaseException):
                raise outcomes[0]
            else:
                following = outcomes[0]

    async def _follow(self, document: Document) -> Document | None:
        """Follow one document; return the next one, or None when this one is through."""
        for verb in await self._read(document):
            if isinstance(verb, twiml.Reject):
                if self.answered.has_come():
                    raise Over(CallStatus.COMPLETED)
                raise Over(CallStatus.BUSY if verb.reason == "busy" else CallStatus.FAILED)
            if not self.answered.has_come():
                self._set_status(CallStatus.IN_PROGRESS)
            following = await self._perform(verb)
            if following is not None:
                return following
        return None

    async def _read(self, document: Document) -> tuple[twiml.Verb, ...]:
        if document.inline:
            verbs = twiml.parse_twiml(document.inline.encode(), "text/xml")
        else:
            form = [*self.form(), *document.extra]
            page = await self._web.fetch(document.url, document.method, form)
            verbs = twiml.parse_twiml(page.body, page.content_type)
        self.fetched.come()
        return verbs

    async def _perform(self, verb: twiml.Verb) -> Document | None:
        match verb:
            case twiml.Say(text):
                self.spoken.append(text)
                await asyncio.sleep(self._options.say_seconds)
            case twiml.Pause(seconds):
                await asyncio.sleep(seconds)
            case twiml.Redirect(url, method):
                return Document(url, method)
            case twiml.Hangup():
                raise Over(CallStatus.COMPLETED)
            case twiml.Connect(stream, action, method):
                await self._connect(stream)
                if action:
                    return Document(action, method, extra=(("StreamSid", self.stream.sid),))
            case twiml.Play() | twiml.Reject():
                pass
        return None

    async def _connect(self, wanted: twiml.Stream) -> None:
        stream = MediaStream(self._web, self._mouth, wanted.url, self.account_sid, self.sid)
        stream.frame_samples = self._options.frame_samples
        if not self.stream_started.has_come():
            stream.started, stream.first_sound = self.stream_started, self.first_sound
        self.streams.append(stream)
        try:
            await stream.run(wanted.parameters)
        except Refused as refused:
            # Twilio notes the error and goes on with the verbs that follow.
            self.errors.append(refused.error)

    def form(self) -> list[tuple[str, str]]:
        """The fields of every request that Twilio makes about this call."""
        return [
            ("CallSid", self.sid),
            ("AccountSid", self.account_sid),
            ("From", self.from_),
            ("To", self.to),
            ("Caller", self.from_),
            ("Called", self.to),
            ("CallStatus", self.status.value),
            ("ApiVersion", API_VERSION),
            ("Direction", self.direction),
        ]
