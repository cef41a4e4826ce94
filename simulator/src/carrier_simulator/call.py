"""One simulated phone call: dials, follows its documents, streams, ends; and the person at its far end."""

from __future__ import annotations

import asyncio

import numpy as np
from numpy.typing import NDArray

from carrier_simulator.dialect import Office
from carrier_simulator.faults import Refused
from carrier_simulator.line import Line
from carrier_simulator.phone import RATE
from carrier_simulator.program import Over, Program
from carrier_simulator.terms import Callback, CallStatus, Document
from carrier_simulator.verbs import Stream


class PhoneCall(Line):
    """What both directions share."""

    def __init__(self, office: Office, to: str, from_: str, callback: Callback | None = None) -> None:
        super().__init__(office, to, from_, callback)
        self._task: asyncio.Task[None] | None = None
        self._program: Program | None = None

    # The person ---------------------------------------------------------------------------------------------

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

    def start_stream(self, stream: Stream) -> None:
        """Stream beside the document, as long as the call lasts."""
        if self._program is None or self.is_over:
            raise RuntimeError("the call is not up")
        self._program.stream_beside(stream)

    def speak(self, text: str) -> None:
        """Read a text out beside the document. Of a call that ends before it is said, it is not in `spoken`."""

        def said() -> None:
            if not self.is_over:
                self.spoken.append(text)

        asyncio.get_running_loop().call_later(self.office.options.say_seconds, said)

    def start(self) -> None:
        self._task = asyncio.create_task(self._live(), name=f"call {self.sid}")

    async def cancel(self) -> None:
        """Stop at once, saying nothing more to anybody but what a cancelled stream says."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._end(CallStatus.CANCELED if not self.answered.has_come() else CallStatus.COMPLETED)
        for stream in self.streams:
            stream.let_go()

    async def finished(self) -> None:
        """Return when the call and all it still has to tell are through."""
        assert self._task is not None
        await asyncio.shield(self._task)

    async def _live(self) -> None:
        teller = asyncio.create_task(self._notices.run())
        try:
            await self._talk()
            self._notices.close()
            await teller
        finally:
            teller.cancel()
            await asyncio.gather(teller, return_exceptions=True)

    async def _talk(self) -> None:
        status = CallStatus.COMPLETED
        self._program = program = Program(self)
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

    def _end(self, status: CallStatus) -> None:
        if not self.is_over:
            self.ended.come()
            self.set_status(status)
