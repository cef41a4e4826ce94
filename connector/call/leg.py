"""The phone's leg of a call, as far as the carrier's REST API moves it and its reports tell of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace

import structlog

from connector.call.ledger import Ledger
from connector.call.ports import CarrierControl
from connector.call.terms import CARRIER_ENDS, FINAL_STATUSES, STEP_TIMEOUT, End, Parts
from connector.carriers.events import FormatRefused, StreamStarted
from connector.errors import FailedPrecondition, Unavailable
from connector.model import HOLDING, REST_SETTINGS, CarrierCall, EndReason, LifecycleEvent

log = structlog.get_logger()

_STREAM_ENDS = frozenset({EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED, EndReason.CARRIER_LOST})
"""How a stream ends when the carrier takes the call away from it."""
_IN_PLACE = frozenset({EndReason.CARRIER_HANGUP, EndReason.TRANSFERRED})
"""Ends after which there is nothing of ours to hang up: the phone has, or talks to somebody else."""


class Leg:
    """Dials, hears what became of it, transfers, hangs up."""

    def __init__(self, parts: Parts, ledger: Ledger, on_transferred: Callable[[], None]) -> None:
        self._control: CarrierControl | None = parts.control.get(ledger.request.provider)
        self._hang_ups = parts.hang_ups
        self._ledger = ledger
        self._on_transferred = on_transferred
        self._placed = False
        self._dialing: asyncio.Task[None] | None = None
        self._transferring: asyncio.Task[None] | None = None
        self._status_number = -1
        self._stream: StreamStarted | FormatRefused | None = None
        self.may_be_held = False
        """The carrier has been told, or can be at any moment, to keep the phone for the stream."""

    def streams(self, started: StreamStarted | FormatRefused) -> None:
        """The carrier streams the call, and has told its own names for it."""
        self._stream = started

    @property
    def stream_outlives_transfer(self) -> bool:
        return self._control is not None and self._control.stream_outlives_transfer

    def _call(self) -> CarrierCall:
        record = self._ledger.record
        return CarrierCall(record.carrier_call_id, record.account_id, self._stream.call_id if self._stream else "")

    async def dial(self, place: Callable[[], Awaitable[tuple[str, str]]], from_number: str, to_number: str) -> None:
        """Have the carrier call the phone; `place` returns its id and first status. The call is then ours to hang up.

        That needs the id, so a call that ends before the carrier has answered waits for the answer, whether or not
        somebody still waits here. Raises what `place` does, and Unavailable when the call has ended.
        """

        async def dial() -> None:
            carrier_call_id, status = await place()
            self._placed = True
            self._ledger.learn(
                carrier_call_id=carrier_call_id,
                from_number=from_number,
                to_number=to_number,
                carrier_status="" if self._ledger.record.carrier_status else status,
            )

        self._dialing = asyncio.create_task(dial(), name=f"dial {self._ledger.record.call_id}")
        self._dialing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([self._dialing])
        if self._dialing.cancelled():
            raise Unavailable("the call ended before the carrier answered")
        self._dialing.result()

    def said(self, status: str, number: int) -> EndReason | None:
        """The carrier reports progress, in Twilio's words; reports may come out of order, `number` counts them.
        The end that a final one means."""
        if number < self._status_number:
            return None
        self._status_number = number
        self._ledger.learn(carrier_status=status)
        if status == "ringing":
            self._ledger.rings()
        return CARRIER_ENDS.get(status)

    async def transfer(self, to: str) -> None:
        """Have the carrier connect the phone with a number; the stream's end follows. Raises ConnectorError, then
        the call goes on here."""
        control = self._control
        if control is None or not self._ledger.record.carrier_call_id:
            raise FailedPrecondition("transferring a call needs the credentials of the carrier's REST API")
        if self._transferring is not None:
            raise FailedPrecondition("the call is being transferred already")
        call = self._call()

        async def transfer() -> None:
            await control.transfer(call, to)
            self._ledger.tell(LifecycleEvent.TRANSFERRED, to=to)
            log.info("call transferred", to=to)
            self._on_transferred()

        transferring = self._transferring = asyncio.create_task(transfer(), name=f"transfer {call.id}")
        transferring.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([transferring])
        if transferring.cancelled():
            raise FailedPrecondition("the call ended before the carrier answered")
        if transferring.exception() is not None:
            self._transferring = None
        transferring.result()

    async def verdict(self, end: End) -> End:
        """How the call ended, now that it has: a stream that the carrier ends while it transfers is a transfer.
        Waits for a transfer that is under way."""
        transferring = self._transferring
        if transferring is None:
            return end
        await asyncio.wait([transferring], timeout=STEP_TIMEOUT)
        if not transferring.done():
            transferring.cancel()
        elif not transferring.cancelled() and transferring.exception() is None and end.reason in _STREAM_ENDS:
            return replace(end, reason=EndReason.TRANSFERRED)
        return end

    async def settle(self) -> None:
        """Wait for a call that is being placed: it can be hung up only when it is known."""
        if self._dialing is not None:
            try:
                await asyncio.wait([self._dialing], timeout=STEP_TIMEOUT)
            finally:
                self._dialing.cancel()

    async def hang_up(self, end: End, was_active: bool) -> None:
        """End the phone's leg over the carrier's REST API where the end of the stream would not do it.

        That is: always, at a carrier that keeps a call whose stream is closed, or never comes; else when the API asked
        for the end (the answer document may go on after the stream), when a call that we placed still rings, and when
        the phone shall hear a sentence. What fails is tried again, without us.
        """
        record = self._ledger.record
        if not record.carrier_call_id or record.carrier_status in FINAL_STATUSES or end.reason in _IN_PLACE:
            return
        provider = self._ledger.request.provider
        if self._control is None:
            if end.say or (provider in HOLDING and self.may_be_held):
                log.warning("the phone is not hung up: a setting is missing", set=REST_SETTINGS[provider])
            return
        still_rings = self._placed and not was_active
        is_held = self.may_be_held and not self._control.ends_with_stream
        if end.reason is EndReason.ENDED_BY_API or still_rings or is_held or end.say:
            say = "" if still_rings else end.say
            await self._hang_ups.hang_up(record.call_id, provider, self._call(), say)
