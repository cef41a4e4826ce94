"""Calls that a carrier dials to LiveKit SIP. No process holds them. Such a call has only a record, which changes with
the carrier's reports; a report may reach any process."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

import structlog

from connector.call.dependencies import CARRIER_ENDS, CallDependencies
from connector.call.ports import CarrierControl
from connector.call.record.changes import Trigger, end_of, new_record, next_state, write_end
from connector.call.record.event_dispatcher import EventDispatcher
from connector.call.record.privacy import Privacy
from connector.carriers.transfers import TransferDial
from connector.errors import PASSING, FailedPrecondition
from connector.model.call import CallFilter, CallRecord, CallRequest, CallState, CarrierCall, Transfer, TransferStatus
from connector.model.end_reason import EndReason
from connector.model.webhook import LifecycleEvent
from connector.numbers import E164

log = structlog.get_logger()

OWNER = "livekit-sip"
"""The owner in these records, instead of a process name. So a connector that starts does not take them for calls of its
dead predecessor."""
REPORT_MARGIN = 3600.0
"""Seconds after the maximum duration of a call, after which we do not expect its last report any more."""
MOST = 1000


class DialledCalls:
    """Keeps the records of dialled calls. All methods raise StoreError if the store fails."""

    def __init__(self, parts: CallDependencies) -> None:
        self._parts = parts

    async def is_over(self, call_id: str) -> bool:
        record = await self._parts.store.get_call(call_id)
        return record is not None and record.state is CallState.ENDED

    async def announce(self, request: CallRequest) -> CallRecord:
        """Create and report the record of a call that the carrier is about to dial. If the carrier asks again, returns
        the existing record."""
        known = await self._parts.store.get_call(request.call_id)
        if known is not None:
            return known
        record = _noted(new_record(Privacy(request).request, OWNER), LifecycleEvent.STARTED)
        if await self._parts.store.change_call(None, record):
            await self._tell(LifecycleEvent.STARTED, record)
            return record
        # The carrier has sent two requests at the same time.
        return await self._parts.store.get_call(request.call_id) or record

    async def answered(self, call_id: str) -> None:
        """Handle the report that LiveKit has answered. A late or repeated report changes nothing."""
        await self._answer(call_id, time.time())

    async def _answer(self, call_id: str, at: float) -> None:
        def change(record: CallRecord) -> CallRecord | None:
            return _active(record, at) if record.state is CallState.PENDING else None

        await self._change(call_id, change, LifecycleEvent.ANSWERED)

    async def ended(self, call_id: str, status: str, seconds: float, detail: str) -> None:
        """Handle the report that the dial is over. `status`: a final status of the carrier. `seconds`: length of the
        conversation."""
        if status == "completed":
            # The report of the answer may be missing: the two reports are separate requests, and each may be lost.
            await self._answer(call_id, time.time() - seconds)
        await self._end(call_id, CARRIER_ENDS.get(status, EndReason.CARRIER_FAILED), detail, status)

    async def hang_up(self, record: CallRecord) -> CallRecord:
        """End the call at the carrier. The carrier's report may arrive before its response; then the reported end is
        kept. Failures are retried, as for all hang-ups. Raises FailedPrecondition without the carrier's credentials,
        and the carrier's error if it is not temporary; the call then goes on until a retry succeeds."""
        self._control(record)
        call = CarrierCall(record.carrier_call_id, record.account_id)
        refusal = await self._parts.hang_ups.hang_up(record.call_id, record.provider, call)
        if refusal is not None and not isinstance(refusal, PASSING):
            raise refusal
        return await self._end(record.call_id, EndReason.ENDED_BY_API, "") or record

    async def transfer(self, record: CallRecord, order: Transfer) -> CallRecord:
        """Ask the carrier to connect the phone with a number instead of LiveKit. The phone does not come back. Raises
        FailedPrecondition without the carrier's credentials or if the call is not active, and the carrier's errors."""
        if record.state is not CallState.ACTIVE:
            raise FailedPrecondition(f"the call is {record.state.value}, not active")
        ours = record.to_number if E164.fullmatch(record.to_number) else ""
        dial = TransferDial(order.to, order.timeout, order.caller_id or ours)
        await self._control(record).transfer(CarrierCall(record.carrier_call_id, record.account_id), dial, "")

        def change(now: CallRecord) -> CallRecord | None:
            if now.state is not CallState.ACTIVE:
                return None
            return replace(now, transfer_to=order.to, transfer_status=TransferStatus.UNKNOWN.value)

        await self._change(record.call_id, change, LifecycleEvent.TRANSFERRED, to=order.to)
        return await self._end(record.call_id, EndReason.TRANSFERRED, "") or record

    def _control(self, record: CallRecord) -> CarrierControl:
        control = self._parts.control.get(record.provider)
        if control is None:
            raise FailedPrecondition(
                f"this call runs over LiveKit SIP: it needs {self._parts.carriers[record.provider].rest_settings}"
            )
        return control

    async def sweep(self) -> None:
        """End the calls without a last report, for example because the carrier could not reach us."""
        before = time.time() - self._parts.limits.max_duration - REPORT_MARGIN
        for state in (CallState.PENDING, CallState.ACTIVE):
            where = CallFilter(state=state, owner=OWNER, created_before=before)
            for record in await self._parts.store.list_calls(MOST, where):
                await self._end(record.call_id, EndReason.INTERRUPTED, "the carrier did not report its end")

    async def _end(self, call_id: str, reason: EndReason, detail: str, status: str = "") -> CallRecord | None:
        """End a call if it has not ended yet. Returns its ended record, or None if there is no such call."""
        dispatcher = EventDispatcher(self._parts.lifecycle)
        while True:
            record = await self._parts.store.get_call(call_id)
            if record is None or record.state is CallState.ENDED:
                return record
            end = end_of(replace(record, carrier_status=status or record.carrier_status), reason, detail)
            if await write_end(self._parts, dispatcher, end, record):
                await dispatcher.told()
                return end.record

    async def _change(
        self, call_id: str, change: Callable[[CallRecord], CallRecord | None], event: LifecycleEvent, **details: str
    ) -> None:
        """Apply `change` to the current record and report the event; if it returns None, do nothing. Retries if another
        process changes the record meanwhile, because reports of one call may reach several processes at once."""
        while True:
            record = await self._parts.store.get_call(call_id)
            changed = change(record) if record is not None else None
            if changed is None:
                return
            changed = _noted(changed, event)
            if await self._parts.store.change_call(record, changed):
                await self._tell(event, changed, **details)
                return

    async def _tell(self, event: LifecycleEvent, record: CallRecord, **details: str) -> None:
        dispatcher = EventDispatcher(self._parts.lifecycle)
        dispatcher.tell(event, record, details)
        await dispatcher.told()


def _noted(record: CallRecord, event: LifecycleEvent) -> CallRecord:
    return replace(record, timelog=(*record.timelog, (event.value, time.time())))


def _active(record: CallRecord, at: float) -> CallRecord:
    state = next_state(record.direction, record.state, Trigger.STREAM_STARTED)
    return replace(record, state=state, started_at=at)


def _if_active(record: CallRecord) -> CallRecord | None:
    return record if record.state is CallState.ACTIVE else None
