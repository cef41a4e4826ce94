"""The phone's leg of a call: controlled by the carrier's REST API, and followed by the carrier's reports."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from connector.call.dependencies import CARRIER_ENDS, FINAL_STATUSES, STEP_TIMEOUT, CallDependencies, End
from connector.call.ports import CarrierControl
from connector.call.record.call_recorder import CallRecorder
from connector.carriers.events import FormatRefused, StreamStarted
from connector.carriers.transfers import TransferDial
from connector.errors import PASSING, ConnectorError, FailedPrecondition, Unavailable
from connector.model.call import CarrierCall, Direction, Transfer
from connector.model.end_reason import EndReason
from connector.numbers import E164

log = structlog.get_logger()

_IN_PLACE = frozenset({EndReason.CARRIER_HANGUP, EndReason.TRANSFERRED, EndReason.TRANSFER_FAILED})
"""End reasons after which we must not hang up: the phone already did, was transferred, or follows a document that hangs
it up."""

_LET_GO = frozenset({EndReason.CARRIER_CLOSED, EndReason.CARRIER_LOST})
"""End reasons caused by the carrier: the phone has hung up, or will come back for the next document."""


class PhoneLeg:
    """Dials, handles the carrier's reports, transfers and hangs up."""

    def __init__(self, parts: CallDependencies, recorder: CallRecorder) -> None:
        self._carrier = parts.carriers[recorder.request.provider]
        self._control: CarrierControl | None = parts.control.get(recorder.request.provider)
        self._hang_ups = parts.hang_ups
        self._urls = parts.transfer_urls
        self._recorder = recorder
        self._placed = False
        self._dialing: asyncio.Task[None] | None = None
        self._transferring: asyncio.Task[bool] | None = None
        self._status_number = -1
        self._stream: StreamStarted | FormatRefused | None = None
        self.is_elsewhere = False
        """The phone follows a document that is not ours, so we must not hang it up."""
        self.may_be_held = False
        """The carrier may keep the phone on the line for a stream: it has such a document, or may fetch one at any
        moment."""

    def streams(self, started: StreamStarted | FormatRefused) -> None:
        """Store the start event of the stream, which contains the carrier's ids of the call."""
        self._stream = started

    @property
    def stream_outlives_transfer(self) -> bool:
        """Whether the stream continues in parallel with another document until we close it."""
        return self._control is not None and self._control.stream_outlives_transfer

    def _call(self) -> CarrierCall:
        record = self._recorder.record
        return CarrierCall(record.carrier_call_id, record.account_id, self._stream.call_id if self._stream else "")

    async def dial(self, place: Callable[[], Awaitable[tuple[str, str]]], from_number: str, to_number: str) -> None:
        """Ask the carrier to call the phone. `place` returns the carrier's call id and first status. From then on we
        have to hang up the phone.

        A hang-up needs the id. So if the call ends before the carrier has answered, teardown still waits for the
        answer, even if the caller of this method was cancelled. Raises the errors of `place`, and Unavailable if the
        call has ended.
        """

        async def dial() -> None:
            carrier_call_id, status = await place()
            self._placed = True
            self._recorder.learn(
                carrier_call_id=carrier_call_id,
                from_number=from_number,
                to_number=to_number,
                carrier_status=status,
            )

        self._dialing = asyncio.create_task(dial(), name=f"dial {self._recorder.record.call_id}")
        self._dialing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([self._dialing])
        if self._dialing.cancelled():
            raise Unavailable("the call ended before the carrier answered")
        self._dialing.result()

    def said(self, status: str, number: int) -> EndReason | None:
        """Handle a status report of the carrier. `status` is one of the statuses common to all carriers; `number` is
        the position of the report, because reports may arrive out of order. Returns the end reason for a final status,
        else None."""
        if number < self._status_number:
            return None
        self._status_number = number
        self._recorder.learn(carrier_status=status)
        if status == "ringing":
            self._recorder.rings()
        return CARRIER_ENDS.get(status)

    def can_transfer(self, order: Transfer) -> None:
        """Raise FailedPrecondition or InvalidArgument if the transfer is not possible."""
        if self._control is None or not self._recorder.record.carrier_call_id:
            raise FailedPrecondition("transferring a call needs the credentials of the carrier's REST API")
        self._carrier.check_ring_time(order.timeout)

    def begin_transfer(self, order: Transfer, stream: int) -> asyncio.Task[bool]:
        """Start a task that asks the carrier to connect the phone with a number. `stream`: number of the stream with
        which the phone would come back. The task returns True if the phone can come back and the stream ends, and False
        if the stream continues in parallel. If it raises ConnectorError, the call goes on here."""
        control, request = self._control, self._recorder.request
        assert control is not None
        urls = self._urls(request.provider, request.call_id, request.region, stream)
        dial = TransferDial(order.to, order.timeout, order.caller_id, urls.action, urls.progress)
        call = self._call()
        task = self._transferring = asyncio.create_task(
            control.transfer(call, dial, urls.document), name=f"transfer {call.id}"
        )
        task.add_done_callback(lambda task: task.cancelled() or task.exception())
        return task

    def caller_id(self) -> str:
        """The caller id for a transfer: our number in this call, or "" to leave the choice to the carrier. Our number
        is used if the carrier requires a caller id (for callers without a number: apps, SIP), or if the phone's number
        is hidden or is not a number."""
        record, inbound = self._recorder.record, self._recorder.request.direction is Direction.INBOUND
        ours, theirs = (record.to_number, record.from_number) if inbound else (record.from_number, record.to_number)
        wanted = self._carrier.needs_caller_id or not E164.fullmatch(theirs)
        return ours if wanted and E164.fullmatch(ours) else ""

    async def is_live(self) -> bool | None:
        """Whether the call still exists at the carrier; None if unknown."""
        if self._control is None:
            return None
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                return await self._control.is_live(self._call())
        except (ConnectorError, TimeoutError) as error:
            log.warning("the carrier's API could not be asked whether the call is still live", error=str(error))
            return None

    async def settle(self) -> None:
        """Wait for running dial and transfer requests: before their results we cannot know what to hang up."""
        for task in (self._dialing, self._transferring):
            if task is not None:
                try:
                    await asyncio.wait([task], timeout=STEP_TIMEOUT)
                finally:
                    task.cancel()

    async def hang_up(self, end: End, was_active: bool, away: bool) -> str:
        """End the phone's leg with the carrier's REST API if the end of the stream is not enough.

        This is needed at carriers that keep a call whose stream was closed or never came. At other carriers it is
        needed if the API asked for the end (the answer document may continue after the stream), if a call that we
        placed still rings, if the phone is to hear the sentence `end.say`, or if the phone is away from its stream.
        Failures are retried in the background. If the carrier itself has ended the stream, it gets a moment to come
        back with the phone.

        Returns "", or the reason why the phone may still be connected if an operator has to look at it: the account or
        the credentials are not those of the call.
        """
        record = self._recorder.record
        is_over = record.carrier_status in FINAL_STATUSES or end.reason in _IN_PLACE
        if self.is_elsewhere or is_over or not record.carrier_call_id:
            return ""
        provider = self._recorder.request.provider
        if self._control is None:
            if self._carrier.holds_calls and self.may_be_held:
                log.warning("the phone is not hung up: a setting is missing", set=self._carrier.rest_settings)
            elif end.say:
                log.warning("the phone hears no last sentence: a setting is missing", set=self._carrier.rest_settings)
            return ""
        still_rings = self._placed and not was_active
        is_held = self.may_be_held and not self._control.ends_with_stream
        if end.reason is EndReason.ENDED_BY_API or still_rings or is_held or end.say or away:
            say = "" if still_rings else end.say
            if end.reason in _LET_GO and not (say or still_rings):
                await self._hang_ups.make_sure(record.call_id, provider, self._call())
                return ""
            refusal = await self._hang_ups.hang_up(record.call_id, provider, self._call(), say)
            if refusal is not None and not isinstance(refusal, PASSING):
                return refusal.message
        return ""
