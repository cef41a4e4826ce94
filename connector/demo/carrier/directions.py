"""How a call begins: somebody rings us, or the REST API has us ring somebody."""

from __future__ import annotations

import asyncio
import math
from datetime import UTC, datetime
from email.utils import format_datetime

from connector.demo.carrier.call import Over, PhoneCall
from connector.demo.carrier.faults import Refused
from connector.demo.carrier.terms import (
    FINAL,
    Answer,
    Callback,
    CallOptions,
    CallStatus,
    Document,
    Outcome,
)
from connector.demo.carrier.web import Web


class InboundCall(PhoneCall):
    """Somebody dials a number whose voice webhook is `url`."""

    direction = "inbound"

    def __init__(
        self, web: Web, account_sid: str, to: str, from_: str, options: CallOptions, webhook: Document
    ) -> None:
        super().__init__(web, account_sid, to, from_, options)
        self._webhook = webhook

    async def _open(self) -> Document:
        self._set_status(CallStatus.RINGING)
        return self._webhook

    def form(self) -> list[tuple[str, str]]:
        return [*super().form(), ("FromCountry", "US"), ("ToCountry", "US")]


class OutboundCall(PhoneCall):
    """A call placed over the REST API."""

    direction = "outbound-api"

    def __init__(
        self,
        web: Web,
        account_sid: str,
        to: str,
        from_: str,
        options: CallOptions,
        document: Document,
        outcome: Outcome,
        ring_timeout: float = 60.0,
        callback: Callback | None = None,
    ) -> None:
        super().__init__(web, account_sid, to, from_, options)
        self._document = document
        self._outcome = outcome
        self._ring_timeout = ring_timeout
        self._callback = callback
        self._notices: asyncio.Queue[list[tuple[str, str]] | None] = asyncio.Queue()

    async def _open(self) -> Document:
        self._set_status(CallStatus.INITIATED)
        self._set_status(CallStatus.RINGING)
        rings = min(self._outcome.after, self._ring_timeout)
        try:
            order = await asyncio.wait_for(self._orders.get(), rings)
        except TimeoutError:
            pass
        else:
            raise Over(order if isinstance(order, CallStatus) else CallStatus.FAILED)
        if self._outcome.after > self._ring_timeout or self._outcome.answer is Answer.NO_ANSWER:
            raise Over(CallStatus.NO_ANSWER)
        if self._outcome.answer is Answer.BUSY:
            raise Over(CallStatus.BUSY)
        if self._outcome.answer is Answer.FAILED:
            raise Over(CallStatus.FAILED)
        self._set_status(CallStatus.IN_PROGRESS)
        return self._document

    async def _live(self) -> None:
        teller = asyncio.create_task(self._tell())
        try:
            await super()._live()
            self._notices.put_nowait(None)
            await teller
        finally:
            teller.cancel()
            await asyncio.gather(teller, return_exceptions=True)

    def _set_status(self, status: CallStatus) -> None:
        super()._set_status(status)
        event = "answered" if status is CallStatus.IN_PROGRESS else status.value
        form = [*self.form(), ("CallbackSource", "call-progress-events")]
        if status in FINAL:
            event = "completed"
            form += [
                ("CallDuration", str(self.duration)),
                ("Duration", str(math.ceil((self.duration or 0) / 60))),
            ]
        if self._callback and event in self._callback.events:
            self._notices.put_nowait(form)

    async def _tell(self) -> None:
        """Send the status callbacks one after the other, so that they arrive in order."""
        sequence = 0
        while (form := await self._notices.get()) is not None:
            assert self._callback is not None
            form += [("Timestamp", format_datetime(datetime.now(UTC))), ("SequenceNumber", str(sequence))]
            sequence += 1
            try:
                await self._web.notify(self._callback.url, self._callback.method, form)
            except Refused as refused:
                self.errors.append(refused.error)
