"""One call as its document steers it: the caller's mouth and keypad, the streams, and the application that is told."""

from __future__ import annotations

import asyncio

from carrier_simulator.dialect import Office
from carrier_simulator.keypad import Keypad
from carrier_simulator.notices import Notices
from carrier_simulator.phone import Mouth
from carrier_simulator.record import CallRecord
from carrier_simulator.stream import MediaStream
from carrier_simulator.terms import Callback, CallStatus, Document
from carrier_simulator.verbs import Target
from carrier_simulator.web import Form


class Line(CallRecord):
    def __init__(self, office: Office, to: str, from_: str, callback: Callback | None = None) -> None:
        super().__init__(office.dialect.call_id(), office.dialect.account_id, to, from_)
        self.office = office
        self.streams: list[MediaStream] = []
        self.mouth = Mouth()
        self.keypad = Keypad()
        self.orders: asyncio.Queue[Document | CallStatus] = asyncio.Queue()
        self._delays = office.delays_of_a_call()
        self._notices = Notices(office.web, callback, self._delays, self.errors)

    @property
    def stream(self) -> MediaStream:
        """The latest media stream; RuntimeError before the first."""
        if not self.streams:
            raise RuntimeError("the call has no stream yet")
        return self.streams[-1]

    def form(self) -> Form:
        """The fields of every request that the carrier makes about this call."""
        return self.office.dialect.form(self)

    def set_status(self, status: CallStatus) -> None:
        self.status = status
        if status is CallStatus.RINGING:
            self.ringing.come()
        elif status is CallStatus.IN_PROGRESS:
            self.answered.come()
        if self._notices.wants(status):
            self._notices.add(self.office.dialect.notice(self, self._notices.count))

    async def tell(self, url: str, method: str, form: Form) -> None:
        """Send a callback; one that the application does not take is an error of the call."""
        await self._notices.tell(url, method, form)

    async def jitter(self, kind: str) -> None:
        """Delay the call's next step, if the simulator shuffles independent requests."""
        if self._delays:
            await asyncio.sleep(self._delays.next(kind))

    async def tell_of_leg(self, target: Target, leg_id: str, status: CallStatus) -> None:
        """Send the callback that a dialled target asked for, if it asked for this event."""
        event = "answered" if status is CallStatus.IN_PROGRESS else status.value
        if target.callback and event in target.callback_events:
            form = self.office.dialect.leg_notice(self, leg_id, target.address, status)
            await self.tell(target.callback, target.callback_method, form)
