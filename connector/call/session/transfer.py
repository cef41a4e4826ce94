"""Transfers of a live call: the request to the carrier, and its outcome. The status of each transfer is kept in
`connector.call.session.transfer_progress`."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import structlog

from connector.call.dependencies import STEP_TIMEOUT, CallDependencies
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.call_watch import CallWatch
from connector.call.session.lifetime import Lifetime
from connector.call.session.phone_leg import PhoneLeg
from connector.call.session.presence import Presence
from connector.call.session.returns import Returns
from connector.call.session.streams import Streams
from connector.call.session.transfer_progress import CallTransfer
from connector.call.session.wait import Stage, Wait
from connector.call.session.waiting_entry import STORE_PATIENCE
from connector.errors import ConnectorError, FailedPrecondition, TokenUsed, Unavailable
from connector.model.call import Transfer, TransferStatus
from connector.model.end_reason import EndReason
from connector.storage.base import StoreError

log = structlog.get_logger()

AWAY = "transferring"
"""`connector.callStatus` of the participant while the phone is away from its stream."""
STREAM_GRACE = 15.0
"""Seconds in which the carrier should end the stream of a transferred call."""

MARGIN = 15.0
"""The carrier must report the outcome at most so many seconds after the ring time."""
DOUBT = 5.0
"""If the answer to a transfer request is lost: seconds to wait for the end of the stream, which shows that the carrier
has accepted the transfer."""


_STREAM_ENDS = frozenset({EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED, EndReason.CARRIER_LOST})
"""End reasons of the stream that a transfer by the carrier can cause."""
_ROOM_ENDS = frozenset({EndReason.ROOM_DELETED, EndReason.LIVEKIT_LOST})


@dataclass(frozen=True, slots=True)
class WayBack:
    """Instructions for the carrier after a failed transfer: `say` a sentence and hang up, or, if `say` is empty, stream
    again."""

    say: str
    stream: int
    deadline: float
    region: str = ""


class Transfers:
    """The transfers of one call, one at a time.

    While the number rings, the phone is away from its stream and its participant stays in the room. The call has an
    entry in `store.waiting`, as before its first stream, so that every process can handle the carrier's reports and the
    stream with which the phone comes back.
    """

    def __init__(
        self,
        life: Lifetime,
        streams: Streams,
        returns: Returns,
        watch: CallWatch,
        parts: CallDependencies,
        recorder: CallRecorder,
        leg: PhoneLeg,
        presence: Presence,
    ) -> None:
        self._life = life
        self._streams = streams
        self._returns = returns
        self._watch = watch
        self._parts = parts
        self._recorder = recorder
        self._leg = leg
        self._presence = presence
        self._current: CallTransfer | None = None
        self._stream_end: tuple[EndReason, str] | None = None
        self._room_end: tuple[EndReason, str] | None = None
        self._running: asyncio.Task[None] | None = None
        self._telling = asyncio.Lock()
        """The carrier's reports are handled one at a time: they may arrive twice, and each may need the store."""

    @property
    def is_open(self) -> bool:
        """A transfer was requested, and the phone has not come back yet."""
        return self._current is not None

    def resume(self, order: Transfer) -> None:
        """Continue the transfer of a call taken over from another process. The record holds the last status that was
        reported in an event."""
        told = TransferStatus(self._recorder.record.transfer_status or TransferStatus.INITIATED)
        self._current = CallTransfer(replace(order, status=told), self._recorder)
        self._current.parted.set()

    def catch_up(self) -> None:
        """Report a status that another process received and left for the owner of the call."""
        transfer, told = self._current, self._streams.wait.transfer
        if transfer is not None and told is not None:
            transfer.hear(told.status)

    async def until_asked(self) -> None:
        """Wait for the carrier's answer to a pending transfer request, at most STEP_TIMEOUT seconds."""
        if self._running is not None:
            await asyncio.wait([self._running], timeout=STEP_TIMEOUT)

    async def start(self, order: Transfer) -> CallTransfer:
        """Ask the carrier to connect the phone with a number; return when it has accepted. Raises ConnectorError; the
        call then goes on."""
        if self._current is not None:
            raise FailedPrecondition("the call is being transferred already")
        self._leg.can_transfer(order)
        order = replace(order, caller_id=order.caller_id or self._leg.caller_id())
        transfer = self._current = CallTransfer(order, self._recorder)
        self._watch.hold(AWAY)
        # Runs as a task so that it is completed even if the client disconnects.
        running = asyncio.create_task(self._run(transfer), name=f"transfer {self._recorder.record.call_id}")
        self._running = running
        running.add_done_callback(self._on_run)
        await asyncio.wait([running])
        if running.cancelled():
            raise FailedPrecondition("the call ended before the carrier answered")
        running.result()
        return transfer

    def _on_run(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("transfer request failed", error=str(error))

    async def _run(self, transfer: CallTransfer) -> None:
        before, order = self._streams.wait, transfer.order
        seconds = order.timeout + MARGIN
        stream = before.stream + (before.stage is not Stage.SERVED)
        wait = Wait(self._recorder, self._parts.store, seconds, self._on_time_over, stream, order, before)
        before.stop()
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                await wait.share()
        except (ConnectorError, TimeoutError) as error:
            self._current = None
            self._watch.resume(AWAY)
            await self._withdraw(wait, before)
            raise StoreError("the store does not answer, so the return from the transfer cannot be recorded") from error
        if self._life.is_ending:
            await self._withdraw(wait, before)
            raise FailedPrecondition("the call ended before the carrier was asked")
        self._streams.wait = wait
        transfer.begin()
        # A process that takes the call over reads from the record which status was reported.
        await self._recorder.save()
        asking = self._leg.begin_transfer(order, wait.stream)
        await asyncio.wait([asking])
        if asking.cancelled():
            raise FailedPrecondition("the call ended before the carrier answered")
        refusal = asking.exception()
        if refusal is not None and not await self._was_taken(transfer, refusal):
            self._refused(transfer, before)
            raise refusal
        if transfer.is_final:
            return
        if self._life.is_ending:
            raise FailedPrecondition("the call ended before the carrier answered")
        transfer.accepted()
        if refusal is None and not asking.result():
            transfer.hear(TransferStatus.UNKNOWN)
            self._life.end(EndReason.TRANSFERRED, "the carrier does not report whether anybody answered")
            return
        self._streams.detach(AWAY, 0.0 if self._leg.stream_outlives_transfer else STREAM_GRACE)
        await self._recorder.save()

    async def _was_taken(self, transfer: CallTransfer, error: BaseException) -> bool:
        """Whether the carrier has accepted the transfer although it answered with an error or not at all. The proof: it
        has reported the outcome, or has ended the stream and still has the call."""
        if transfer.is_final:
            return True
        if not isinstance(error, Unavailable):
            return False
        try:
            await asyncio.wait_for(transfer.parted.wait(), DOUBT)
        except TimeoutError:
            return False
        if await self._leg.is_live() is False:
            return False
        log.warning("the carrier probably accepted the transfer, although its response failed", error=str(error))
        return True

    def _refused(self, transfer: CallTransfer, before: Wait) -> None:
        """The carrier refused: the call goes on as before, or ends if its stream or room ended in the meantime."""
        transfer.hear(TransferStatus.FAILED)
        self._current = None
        wait, stream_end = self._streams.wait, self._stream_end
        if self._room_end is not None:
            self._life.end(*self._room_end)
            return
        if stream_end is not None and stream_end[0] is not EndReason.CARRIER_LOST:
            self._life.end(*stream_end)
            return
        self._streams.wait = before
        self._watch.resume(AWAY)
        self._life.begin("withdraw", self._withdraw(wait, before))
        if stream_end is not None:
            self._stream_end = None
            self._returns.lose(*stream_end)

    async def _withdraw(self, wait: Wait, before: Wait) -> None:
        """Delete the entry in the store, with retries. Otherwise the sweep for abandoned calls would find it and end
        the call. The entry of an active call is written again instead."""
        wait.stop()
        if before.stage is not Stage.OURS:
            if before.stage is Stage.SERVED:
                before.sync()
            return
        while True:
            try:
                async with asyncio.timeout(STORE_PATIENCE):
                    await wait.withdraw()
                return
            except (ConnectorError, TimeoutError) as error:
                log.warning("the transfer could not be withdrawn from the store", error=str(error))
                await asyncio.sleep(1.0)

    # What happens meanwhile

    def takes_stream_end(self, reason: EndReason, detail: str) -> bool:
        """Whether the end of the stream belongs to the transfer, so that the call does not end."""
        transfer = self._current
        if transfer is None or reason not in _STREAM_ENDS:
            return False
        self._stream_end = (reason, detail)
        transfer.parted.set()
        return True

    def takes_room_end(self, reason: EndReason, detail: str) -> bool:
        """Whether the call goes on although its room ended: the phone is being transferred. The room is joined again
        when the phone comes back."""
        if self._current is None or reason not in _ROOM_ENDS:
            return False
        log.info("the room ended during the transfer", reason=reason.value, detail=detail)
        self._room_end = (reason, detail)
        self._presence.lose()
        return True

    async def progress(self, status: TransferStatus) -> None:
        """Handle the carrier's report that the number rings, or that somebody has answered."""
        async with self._telling:
            transfer = self._current
            if transfer is None or self._life.is_ending:
                return
            if status is not TransferStatus.ANSWERED:
                transfer.hear(status)
            elif not transfer.is_final and await self._has_the_call():
                transfer.hear(status)
                self._life.end(EndReason.TRANSFERRED)

    async def over(self, status: TransferStatus, caller_left: bool) -> WayBack | None:
        """Handle the carrier's report of how the dial ended, and return instructions for it. None: hang up. The same
        report again gets the same answer."""
        async with self._telling:
            return await self._over(status, caller_left)

    async def _has_the_call(self) -> bool:
        """Whether this process reports the end of the transfer. If several processes learn of it, only the one that
        claims the call in the store does. If the store fails, this process does: a call must not stay open for that."""
        wait = self._streams.wait
        if wait.stage is Stage.SHARED:
            try:
                wait.mark()
                await wait.take()
            except TokenUsed:
                self._life.taken_over()
                return False
            except ConnectorError as error:
                log.warning("the claim on the call could not be checked in the store", error=error.message)
        return wait.stage is not Stage.LOST

    async def _over(self, status: TransferStatus, caller_left: bool) -> WayBack | None:
        transfer, wait = self._current, self._streams.wait
        if transfer is None:
            # The phone is back. This is a repeated request, which was answered before.
            return None
        if self._life.is_ending:
            return self._way_back(transfer) if transfer.failed and transfer.order.say else None
        if transfer.failed:
            return self._way_back(transfer)
        is_end = status is TransferStatus.ANSWERED or caller_left or transfer.order.say
        if is_end and not await self._has_the_call():
            return None
        if status is TransferStatus.ANSWERED:
            transfer.hear(status)
            self._life.end(EndReason.TRANSFERRED)
            return None
        if caller_left:
            transfer.hear(TransferStatus.CANCELED)
            self._life.end(EndReason.CARRIER_HANGUP, "the caller hung up while the number rang")
            return None
        transfer.hear(status)
        wait.transfer = transfer.order
        if transfer.order.say:
            self._life.end(EndReason.TRANSFER_FAILED, f"{transfer.order.to}: {status.value}")
            return self._way_back(transfer)
        self._streams.detach(AWAY, 0.0)
        wait.extend(self._parts.limits.answer_grace)
        self._life.begin("announce the return", self._announce(wait))
        return self._way_back(transfer)

    async def _announce(self, wait: Wait) -> None:
        if await wait.update():
            await self._recorder.save()

    def _way_back(self, transfer: CallTransfer) -> WayBack:
        wait = self._streams.wait
        return WayBack(transfer.order.say, wait.stream, wait.deadline, self._recorder.request.region)

    def _on_time_over(self) -> None:
        self._life.begin("ask for the outcome", self.give_up())

    async def give_up(self) -> None:
        """Time is over: no outcome was reported, or the phone has not come back."""
        transfer, told = self._current, self._streams.wait.transfer
        if transfer is None:
            return
        if told is not None:
            transfer.hear(told.status)
        if transfer.failed:
            self._life.end(EndReason.CONNECT_TIMEOUT, "the phone did not come back after the transfer had failed")
        else:
            await self._conclude(transfer, await self._leg.is_live() is not False)

    async def _conclude(self, transfer: CallTransfer, is_live: bool) -> None:
        """End a transfer without a reported outcome."""
        async with self._telling:
            if self._current is not transfer or transfer.is_final or self._life.is_ending:
                return  # The outcome arrived at the last moment.
            if not await self._has_the_call():
                return
            if is_live:
                transfer.hear(TransferStatus.UNKNOWN)
                self._life.end(EndReason.TRANSFERRED, "the carrier did not report whether anybody answered")
            else:
                transfer.hear(TransferStatus.CANCELED)
                self._life.end(EndReason.CARRIER_HANGUP, "the carrier did not report the outcome of the transfer")

    def back(self) -> None:
        """The phone has come back: it streams again."""
        transfer, told = self._current, self._streams.wait.transfer
        if transfer is not None:
            transfer.hear(told.status if told is not None else TransferStatus.FAILED)
            transfer.hear(TransferStatus.FAILED)
            transfer.settled.set()
            # An agent that left in the meantime is dispatched again at once. If the room was created again, LiveKit
            # has already dispatched the agents to it.
            self._watch.resume(AWAY, None if self._room_end else 0.0)
        self._current = self._stream_end = self._room_end = None

    def close(self) -> None:
        """The call ends."""
        if self._current is not None:
            self._current.settled.set()
