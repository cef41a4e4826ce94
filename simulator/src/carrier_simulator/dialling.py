"""`<Dial><Number>` of one call: somebody is called, and the application is told how far that has got."""

from __future__ import annotations

import asyncio
import math
import time
from typing import TYPE_CHECKING

from carrier_simulator.faults import Refused
from carrier_simulator.terms import Answer, CallStatus, Outcome
from carrier_simulator.verbs import Dial, Target
from carrier_simulator.web import Form

if TYPE_CHECKING:
    from carrier_simulator.call import PhoneCall

_DIALLED = {
    Answer.ANSWERS: CallStatus.COMPLETED,
    Answer.BUSY: CallStatus.BUSY,
    Answer.NO_ANSWER: CallStatus.NO_ANSWER,
    Answer.FAILED: CallStatus.FAILED,
}
_EVENTS = {CallStatus.RINGING: "ringing", CallStatus.IN_PROGRESS: "answered"}


class NumberDialling:
    """`run` until the far end has hung up or never answered; cancelled, when the caller has hung up, `give_up`."""

    def __init__(self, call: PhoneCall, dial: Dial, target: Target) -> None:
        self._call = call
        self._dial = dial
        self._target = target
        self._id = call.office.dialect.call_id()
        self._began = 0.0

    async def run(self) -> Form:
        """The fields that tell the outcome."""
        call, dial = self._call, self._dial
        call.dialled_as.append(dial.caller_id)
        fault = call.office.dialect.caller_id_fault(call, dial.caller_id)
        if fault is not None:
            call.errors.append(fault)
            return self._fields(CallStatus.FAILED)
        outcome = call.office.outcome_of(self._target.address)
        await self._tell(CallStatus.RINGING)
        answer = outcome.answer if outcome.after <= dial.timeout else Answer.NO_ANSWER
        await asyncio.sleep(min(outcome.after, dial.timeout))
        if answer is Answer.ANSWERS:
            await self._talk(outcome)
        return self._fields(_DIALLED[answer])

    async def _talk(self, outcome: Outcome) -> None:
        self._began = time.monotonic()
        self._call.transferred.come()
        await self._tell(CallStatus.IN_PROGRESS)
        if outcome.talks is None:
            await asyncio.get_running_loop().create_future()
        else:
            await asyncio.sleep(outcome.talks)

    def give_up(self) -> Form:
        """The caller has hung up: so does the carrier at the far end."""
        return self._fields(CallStatus.COMPLETED if self._began else CallStatus.CANCELED)

    def _fields(self, status: CallStatus) -> Form:
        seconds = math.ceil(time.monotonic() - self._began) if self._began else 0
        return self._call.office.dialect.dialled(self._id, status, seconds)

    async def _tell(self, status: CallStatus) -> None:
        target = self._target
        if not target.callback or _EVENTS[status] not in target.callback_events:
            return
        form = self._call.office.dialect.leg_notice(self._call, self._id, target.address, status)
        try:
            await self._call.office.web.notify(target.callback, target.callback_method, form)
        except Refused as refused:
            self._call.errors.append(refused.error)
