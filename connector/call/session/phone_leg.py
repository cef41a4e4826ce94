"""The phone's leg of a call, as far as the carrier's REST API moves it and its reports tell of it."""

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
from connector.model import CarrierCall, Direction, EndReason, Transfer
from connector.numbers import E164

log = structlog.get_logger()

_IN_PLACE = frozenset({EndReason.CARRIER_HANGUP, EndReason.TRANSFERRED, EndReason.TRANSFER_FAILED})
"""Ends after which there is nothing of ours to hang up: the phone has, talks to somebody else, or follows a document
that hangs it up."""

_LET_GO = frozenset({EndReason.CARRIER_CLOSED, EndReason.CARRIER_LOST})
"""Ends that the carrier has made: the phone has hung up, or comes back for the next document."""


class PhoneLeg:
    """Dials, hears what became of it, transfers, hangs up."""

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
        """The phone follows another document than ours: it is not to be hung up."""
        self.may_be_held = False
        """The carrier has been told, or can be at any moment, to keep the phone for the stream."""

    def streams(self, started: StreamStarted | FormatRefused) -> None:
        """The carrier streams the call, and has told its own names for it."""
        self._stream = started

    @property
    def stream_outlives_transfer(self) -> bool:
        """Whether the stream goes on beside another document until we close it."""
        return self._control is not None and self._control.stream_outlives_transfer

    def _call(self) -> CarrierCall:
        record = self._recorder.record
        return CarrierCall(record.carrier_call_id, record.account_id, self._stream.call_id if self._stream else "")

    async def dial(self, place: Callable[[], Awaitable[tuple[str, str]]], from_number: str, to_number: str) -> None:
        """Have the carrier call the phone; `place` returns its id and first status. The call is then ours to hang up.

        That needs the id, so a call that ends before the carrier has answered waits for the answer, whether or not
        somebody still waits here. Raises what `place` does, and Unavailable when the call has ended.
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
        """The carrier reports progress, in the common words; reports may come out of order, `number` counts them.
        The end that a final one means."""
        if number < self._status_number:
            return None
        self._status_number = number
        self._recorder.learn(carrier_status=status)
        if status == "ringing":
            self._recorder.rings()
        return CARRIER_ENDS.get(status)

    def can_transfer(self, order: Transfer) -> None:
        """Raise FailedPrecondition or InvalidArgument when `transfer` would."""
        if self._control is None or not self._recorder.record.carrier_call_id:
            raise FailedPrecondition("transferring a call needs the credentials of the carrier's REST API")
        self._carrier.check_ring_time(order.timeout)

    def begin_transfer(self, order: Transfer, stream: int) -> asyncio.Task[bool]:
        """Have the carrier connect the phone with a number; `stream` is the number of the stream with which it would
        come back. The task's result: whether it can, and the stream ends; else the stream goes on beside. Raises
        ConnectorError, then the call goes on here."""
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
        """What somebody to whom the phone is transferred sees: the number of ours that it called, or was called from.
        A carrier may want it of callers who have no number (apps, SIP); else it stands in only for one that is none, or
        is to be hidden. Empty: the carrier's own choice."""
        record, inbound = self._recorder.record, self._recorder.request.direction is Direction.INBOUND
        ours, theirs = (record.to_number, record.from_number) if inbound else (record.from_number, record.to_number)
        wanted = self._carrier.needs_caller_id or not E164.fullmatch(theirs)
        return ours if wanted and E164.fullmatch(ours) else ""

    async def is_live(self) -> bool | None:
        """Whether the carrier still has the call; None when it does not say."""
        if self._control is None:
            return None
        try:
            async with asyncio.timeout(STEP_TIMEOUT):
                return await self._control.is_live(self._call())
        except (ConnectorError, TimeoutError) as error:
            log.warning("the carrier does not say whether the call lives", error=str(error))
            return None

    async def settle(self) -> None:
        """Wait for a call that is being placed, or transferred: it can be hung up only when it is known where it is."""
        for task in (self._dialing, self._transferring):
            if task is not None:
                try:
                    await asyncio.wait([task], timeout=STEP_TIMEOUT)
                finally:
                    task.cancel()

    async def hang_up(self, end: End, was_active: bool, away: bool) -> str:
        """End the phone's leg over the carrier's REST API where the end of the stream would not do it.

        That is: always, at a carrier that keeps a call whose stream is closed, or never comes; else when the API asked
        for the end (the answer document may go on after the stream), when a call that we placed still rings, and when
        the phone shall hear a sentence, or is away from its stream. What fails is tried again, without us. Where the
        carrier itself has ended the stream, it gets a moment to come back with the phone.

        Returns why the phone may be up still, where that needs somebody to look: an account or credentials that are not
        the call's.
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
