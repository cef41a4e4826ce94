"""`<Dial><Sip>` of one call: the INVITE, the ringing, the talk, and the reports to the application."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from carrier_simulator.faults import CarrierError, Fault, Refused
from carrier_simulator.line import Line
from carrier_simulator.sip.leg import SipLeg, SipOutcome
from carrier_simulator.terms import CallStatus
from carrier_simulator.verbs import Dial, Target

SCHEMES = ("sip:", "sips:")
_BUSY = {486, 600, 603}
_NOBODY = {408, 480, 487}


def status_of(outcome: SipOutcome) -> CallStatus:
    """What a final response counts as."""
    if outcome.status == 200:
        return CallStatus.FAILED if outcome.fault else CallStatus.COMPLETED
    if outcome.status in _BUSY:
        return CallStatus.BUSY
    return CallStatus.NO_ANSWER if outcome.status in _NOBODY else CallStatus.FAILED


@dataclass(frozen=True, slots=True)
class Dialled:
    """What became of it; `fields` are the carrier's own, of SIP."""

    leg_id: str
    status: CallStatus
    seconds: int
    fields: Sequence[tuple[str, str]] = ()


class SipDialling:
    """One dial. `run` until the far end has hung up or never answered; `give_up` when the caller has hung up."""

    def __init__(self, line: Line, dial: Dial, target: Target) -> None:
        self._line = line
        self._dial = dial
        self._target = target
        self._id = line.office.dialect.call_id()
        self._leg: SipLeg | None = None
        self._began = 0.0

    async def run(self) -> Dialled:
        line, target = self._line, self._target
        try:
            leg = await line.office.sip.open(
                target.address, self._dial.caller_id or line.from_, target.username, target.password
            )
        except Refused as refused:
            line.errors.append(refused.error)
            return Dialled(self._id, CallStatus.FAILED, 0)
        self._leg = leg
        dialling = asyncio.create_task(leg.dial())
        try:
            async with asyncio.timeout(self._dial.timeout):
                outcome = await asyncio.shield(dialling)
        except TimeoutError:
            await _stop(dialling)
            await leg.cancel()
            return Dialled(self._id, CallStatus.NO_ANSWER, 0, self._fields(leg, SipOutcome(487)))
        except asyncio.CancelledError:
            await _stop(dialling)
            raise
        return await self._talk(leg, outcome)

    async def _talk(self, leg: SipLeg, outcome: SipOutcome) -> Dialled:
        status = status_of(outcome)
        if status is not CallStatus.COMPLETED:
            if outcome.fault:
                self._line.errors.append(CarrierError(Fault.SIP_UNREACHABLE, outcome.fault))
            await leg.hang_up()
            return Dialled(self._id, status, 0, self._fields(leg, outcome))
        self._began = time.monotonic()
        self._line.transferred.come()
        await self._line.tell_of_leg(self._target, self._id, CallStatus.IN_PROGRESS)
        await leg.ended.wait(None)
        return Dialled(self._id, status, self._seconds(), self._fields(leg, outcome))

    async def give_up(self) -> Dialled:
        """The caller has hung up: so does the carrier at the far end."""
        if self._leg is None:
            return Dialled(self._id, CallStatus.CANCELED, 0)
        if not self._began:
            await self._leg.cancel()
            return Dialled(self._id, CallStatus.CANCELED, 0, self._fields(self._leg, SipOutcome(487)))
        await self._leg.hang_up()
        return Dialled(self._id, CallStatus.COMPLETED, self._seconds(), self._fields(self._leg, SipOutcome(200)))

    def _seconds(self) -> int:
        return math.ceil(time.monotonic() - self._began)

    def _fields(self, leg: SipLeg, outcome: SipOutcome) -> Sequence[tuple[str, str]]:
        fields = [("DialSipCallId", leg.call_id), ("DialSipResponseCode", str(outcome.status))]
        return [*fields, *((f"DialSipHeader_{name}", value) for name, value in outcome.headers.items())]


async def _stop(task: asyncio.Task[SipOutcome]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
