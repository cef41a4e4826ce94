"""How a call begins: somebody rings us, or the REST API has us ring somebody."""

from __future__ import annotations

import asyncio

from connector.demo.carrier.call import PhoneCall
from connector.demo.carrier.dialect import Office
from connector.demo.carrier.faults import Refused
from connector.demo.carrier.program import Over
from connector.demo.carrier.terms import FINAL, Answer, Callback, CallStatus, Document
from connector.demo.carrier.web import Form


class InboundCall(PhoneCall):
    """Somebody dials a number whose voice webhook is `url`."""

    direction = "inbound"

    def __init__(self, office: Office, to: str, from_: str, webhook: Document) -> None:
        super().__init__(office, to, from_)
        self._webhook = webhook

    async def _open(self) -> Document:
        self.set_status(CallStatus.RINGING)
        return self._webhook


class OutboundCall(PhoneCall):
    """A call placed over the REST API."""

    direction = "outbound"

    def __init__(
        self,
        office: Office,
        to: str,
        from_: str,
        document: Document,
        ring_timeout: float = 60.0,
        callback: Callback | None = None,
    ) -> None:
        super().__init__(office, to, from_)
        self._document = document
        self._outcome = office.outcome_of(to)
        self._ring_timeout = ring_timeout
        self._callback = callback
        self._notices: asyncio.Queue[Form | None] = asyncio.Queue()
        self._told = 0

    async def _open(self) -> Document:
        self.set_status(CallStatus.INITIATED)
        self.set_status(CallStatus.RINGING)
        rings = min(self._outcome.after, self._ring_timeout)
        try:
            order = await asyncio.wait_for(self.orders.get(), rings)
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
        self.set_status(CallStatus.IN_PROGRESS)
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

    def set_status(self, status: CallStatus) -> None:
        super().set_status(status)
        event = "answered" if status is CallStatus.IN_PROGRESS else "completed" if status in FINAL else status.value
        if self._callback and event in self._callback.events:
            self._notices.put_nowait(self.office.dialect.notice(self, self._told))
            self._told += 1

    async def _tell(self) -> None:
        """Send the status callbacks one after the other, so that they arrive in order."""
        while (form := await self._notices.get()) is not None:
            assert self._callback is not None
            try:
                await self.office.web.notify(self._callback.url, self._callback.method, form)
            except Refused as refused:
                self.errors.append(refused.error)
