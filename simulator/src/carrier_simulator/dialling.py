"""`<Dial><Number>` of one call: calls a number, and reports the progress to the application."""

from __future__ import annotations

import asyncio
import math
import time

from carrier_simulator.line import Line
from carrier_simulator.terms import Answer, CallStatus, Outcome
from carrier_simulator.verbs import Dial, Target
from carrier_simulator.web import Form

_DIALLED = {
    Answer.ANSWERS: CallStatus.COMPLETED,
    Answer.BUSY: CallStatus.BUSY,
    Answer.NO_ANSWER: CallStatus.NO_ANSWER,
    Answer.FAILED: CallStatus.FAILED,
}


class NumberDialling:
    """`run` until the far end has hung up or never answered; cancelled, when the caller has hung up, `give_up`."""

    def __init__(self, line: Line, dial: Dial, target: Target) -> None:
        self._line = line
        self._dial = dial
        self._target = target
        self._id = line.office.dialect.call_id()
        self._began = 0.0

    async def run(self) -> Form:
        """The fields that tell the outcome."""
        line, dial = self._line, self._dial
        line.dialled_as.append(dial.caller_id)
        fault = line.office.dialect.caller_id_fault(line, dial.caller_id)
        if fault is not None:
            line.errors.append(fault)
            return self._fields(CallStatus.FAILED)
        outcome = line.office.outcome_of(self._target.address)
        await self._line.tell_of_leg(self._target, self._id, CallStatus.RINGING)
        answer = outcome.answer if outcome.after <= dial.timeout else Answer.NO_ANSWER
        await asyncio.sleep(min(outcome.after, dial.timeout))
        if answer is Answer.ANSWERS:
            await self._talk(outcome)
        return self._fields(_DIALLED[answer])

    async def _talk(self, outcome: Outcome) -> None:
        self._began = time.monotonic()
        self._line.transferred.come()
        await self._line.tell_of_leg(self._target, self._id, CallStatus.IN_PROGRESS)
        if outcome.talks is None:
            await asyncio.get_running_loop().create_future()
        else:
            await asyncio.sleep(outcome.talks)

    def give_up(self) -> Form:
        """The caller has hung up: so does the carrier at the far end."""
        return self._fields(CallStatus.COMPLETED if self._began else CallStatus.CANCELED)

    def _fields(self, status: CallStatus) -> Form:
        seconds = math.ceil(time.monotonic() - self._began) if self._began else 0
        return self._line.office.dialect.dialled(self._id, status, seconds)
