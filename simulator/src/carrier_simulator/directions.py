"""How a call begins: somebody rings us, or the REST API has us ring somebody."""

from __future__ import annotations

import asyncio

from carrier_simulator.call import PhoneCall
from carrier_simulator.dialect import Office
from carrier_simulator.program import Over
from carrier_simulator.terms import Answer, Callback, CallStatus, Document


class InboundCall(PhoneCall):
    """An incoming call to a number with the voice webhook `url`."""

    direction = "inbound"

    def __init__(
        self, office: Office, to: str, from_: str, webhook: Document, callback: Callback | None = None
    ) -> None:
        super().__init__(office, to, from_, callback)
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
        super().__init__(office, to, from_, callback)
        self._document = document
        self._outcome = office.outcome_of(to)
        self._ring_timeout = ring_timeout

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
