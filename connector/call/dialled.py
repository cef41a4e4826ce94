"""Calls that a carrier dials to LiveKit SIP. No process holds them: all that is known of one is its record, and the
carrier's reports, whichever process they reach, are what changes it."""

from __future__ import annotations

import time
from dataclasses import replace

import structlog

from connector.call.chronicle import Chronicle
from connector.call.ports import CarrierControl
from connector.call.privacy import Privacy
from connector.call.records import count_end, ended, event_of_end, new_record
from connector.call.state import Trigger, next_state
from connector.call.terms import CARRIER_ENDS, Parts
from connector.errors import FailedPrecondition
from connector.logs import bind_call
from connector.model import CallFilter, CallRecord, CallRequest, CallState, CarrierCall, EndReason, LifecycleEvent

log = structlog.get_logger()

OWNER = "livekit-sip"
"""In the place of a process: a connector that starts finds none of its own dead calls among these."""
REPORT_MARGIN = 3600.0
"""Seconds past the longest call after which its last report will not come any more."""
MOST = 1000


class DialledCalls:
    """Every method but `sweep` raises StoreError when the store fails."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def is_over(self, call_id: str) -> bool:
        record = await self._parts.store.get_call(call_id)
        return record is not None and record.state is CallState.ENDED

    async def announce(self, request: CallRequest) -> CallRecord:
        """The carrier is about to dial; the record, which is the old one where the carrier asks again."""
        known = await self._parts.store.get_call(request.call_id)
        if known is not None:
            return known
        return await self._keep(new_record(Privacy(request).request, OWNER), LifecycleEvent.STARTED)

    async def answered(self, call_id: str) -> None:
        """LiveKit has picked up. A report that comes late or again changes nothing."""
        record = await self._parts.store.get_call(call_id)
        if record is not None and record.state is CallState.PENDING:
            await self._keep(_active(record, time.time()), LifecycleEvent.ANSWERED)

    async def ended(self, call_id: str, status: str, seconds: float, detail: str) -> None:
        """The dial is over. `status` is one of the carrier's final ones, `seconds` the length of the talk."""
        record = await self._parts.store.get_call(call_id)
        if record is None or record.state is CallState.ENDED:
            return
        if status == "completed" and record.state is CallState.PENDING:
            # Its answer was not reported: the two reports are requests of their own, and either may be lost.
            record = await self._keep(_active(record, time.time() - seconds), LifecycleEvent.ANSWERED)
        reason = CARRIER_ENDS.get(status, EndReason.CARRIER_FAILED)
        await self._end(replace(record, carrier_status=status), reason, detail)

    async def hang_up(self, record: CallRecord) -> CallRecord:
        """End the call at the carrier. FailedPrecondition without the carrier's credentials."""
        await self._control(record).hang_up(CarrierCall(record.carrier_call_id, record.account_id))
        return await self._end(record, EndReason.ENDED_BY_API, "")

    async def transfer(self, record: CallRecord, to: str) -> CallRecord:
        """Have the carrier connect the phone with `to`, E.164, in LiveKit's place. FailedPrecondition as above, and
        for a call that was not answered yet."""
        if record.state is not CallState.ACTIVE:
            raise FailedPrecondition(f"the call is {record.state.value}, not active")
        await self._control(record).transfer(CarrierCall(record.carrier_call_id, record.account_id), to)
        record = await self._keep(record, LifecycleEvent.TRANSFERRED, to=to)
        return await self._end(record, EndReason.TRANSFERRED, "")

    def _control(self, record: CallRecord) -> CarrierControl:
        control = self._parts.control.get(record.provider)
        if control is None:
            raise FailedPrecondition("this call is LiveKit SIP's: it needs TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
        return control

    async def sweep(self) -> None:
        """End those of which the last report never came: the carrier could not reach us, say."""
        before = time.time() - self._parts.limits.max_duration - REPORT_MARGIN
        for state in (CallState.PENDING, CallState.ACTIVE):
            where = CallFilter(state=state, owner=OWNER, created_before=before)
            for record in await self._parts.store.list_calls(MOST, where):
                await self._end(record, EndReason.INTERRUPTED, "the carrier did not report its end")

    async def _end(self, record: CallRecord, reason: EndReason, detail: str) -> CallRecord:
        over = await self._keep(ended(record, reason, detail), event_of_end(record), reason=reason.value)
        with bind_call(over.call_id):
            count_end(self._parts.metrics, over)
        return over

    async def _keep(self, record: CallRecord, event: LifecycleEvent, **details: str) -> CallRecord:
        record = replace(record, timelog=(*record.timelog, (event.value, time.time())))
        await self._parts.store.save_call(record)
        chronicle = Chronicle(self._parts.lifecycle)
        chronicle.tell(event, record, details)
        await chronicle.told()
        return record


def _active(record: CallRecord, at: float) -> CallRecord:
    state = next_state(record.direction, record.state, Trigger.STREAM_STARTED)
    return replace(record, state=state, started_at=at)
