"""One transfer of a live call: what was asked of the carrier, and what is known of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from dataclasses import dataclass, replace
from typing import Any, Protocol

import structlog

from connector.call.dependencies import STEP_TIMEOUT, CallDependencies
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.call_watch import CallWatch
from connector.call.session.phone_leg import PhoneLeg
from connector.call.session.presence import Presence
from connector.call.session.wait import STORE_PATIENCE, Stage, Wait
from connector.errors import ConnectorError, FailedPrecondition, TokenUsed, Unavailable
from connector.model import NOT_REACHED, EndReason, LifecycleEvent, Transfer, TransferStatus
from connector.storage.base import StoreError

log = structlog.get_logger()

AWAY = "transferring"
"""`connector.callStatus` of a participant whose phone is away."""
STREAM_GRACE = 15.0
"""Seconds for a carrier to end the stream of a call that it transfers."""

MARGIN = 15.0
"""Seconds past the time of ringing in which the carrier must have told the outcome."""
DOUBT = 5.0
"""Seconds in which the end of the stream shows that the carrier has taken a transfer whose answer was lost."""


_STREAM_ENDS = frozenset({EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED, EndReason.CARRIER_LOST})
"""How a stream ends when the carrier takes the call away from it."""
_ROOM_ENDS = frozenset({EndReason.ROOM_DELETED, EndReason.LIVEKIT_LOST})


class CallTransfer:
    """Keeps the record's `transfer_status` and tells the events. Statuses may come doubled and in any order: what is
    final stays."""

    def __init__(self, order: Transfer, recorder: CallRecorder) -> None:
        self.order = order
        self._recorder = recorder
        self.settled = asyncio.Event()
        """The phone has gone for good, or is back: what is said from now on is heard."""
        self.parted = asyncio.Event()
        """The phone has left its stream."""

    @property
    def status(self) -> TransferStatus:
        return self.order.status

    @property
    def failed(self) -> bool:
        """The phone comes back, or has."""
        return self.order.status in NOT_REACHED

    @property
    def is_final(self) -> bool:
        return self.failed or self.order.status in (TransferStatus.ANSWERED, TransferStatus.UNKNOWN)

    def begin(self) -> None:
        self._recorder.transfer_is(self.order.to, self.order.status)
        self._recorder.tell(LifecycleEvent.TRANSFER_INITIATED, to=self.order.to)

    def accepted(self) -> None:
        """The carrier has agreed, and calls the number."""
        if not self.is_final:
            self._recorder.tell(LifecycleEvent.TRANSFERRING, to=self.order.to)
        log.info("call is being transferred", to=self.order.to, timeout_seconds=self.order.timeout)

    def hear(self, status: TransferStatus) -> None:
        """The carrier tells how far it has got."""
        if self.is_final or status in (self.order.status, TransferStatus.INITIATED):
            return
        self.order = replace(self.order, status=status)
        self._recorder.transfer_is(self.order.to, status)
        match status:
            case TransferStatus.RINGING:
                self._recorder.tell(LifecycleEvent.TRANSFER_RINGING, to=self.order.to)
            case TransferStatus.ANSWERED:
                self._recorder.tell(LifecycleEvent.TRANSFER_ACCEPTED, to=self.order.to)
                self._recorder.tell(LifecycleEvent.TRANSFERRED, to=self.order.to)
            case TransferStatus.UNKNOWN:
                self._recorder.tell(LifecycleEvent.TRANSFERRED, to=self.order.to)
            case TransferStatus.BUSY | TransferStatus.NO_ANSWER | TransferStatus.FAILED | TransferStatus.CANCELED:
                self._recorder.tell(LifecycleEvent.TRANSFER_FAILED, to=self.order.to, reason=status.value)
                log.info("transfer failed", to=self.order.to, status=status.value)


@dataclass(frozen=True, slots=True)
class WayBack:
    """What the carrier is to do with a phone whose transfer has failed: `say` a sentence and hang up, or, where there
    is none, stream again."""

    say: str
    stream: int
    deadline: float
    region: str = ""


class Transferable(Protocol):
    """The call, see `CallSession`."""

    wait: Wait
    watch: CallWatch

    def end(self, reason: EndReason, detail: str = "") -> None: ...
    def detach(self, status: str, grace: float) -> None: ...
    def begin(self, what: str, work: Coroutine[Any, Any, None]) -> None: ...
    @property
    def is_ending(self) -> bool: ...


class Transfers:
    """The transfers of one call, one at a time.

    While the number rings, the phone is away from its stream and its participant stays in the room. The call stands in
    `store.waiting`, as one that waits for its first stream does, so that every process can serve what the carrier
    tells, and the stream with which the phone comes back.
    """

    def __init__(
        self, call: Transferable, parts: CallDependencies, recorder: CallRecorder, leg: PhoneLeg, presence: Presence
    ) -> None:
        self._call = call
        self._parts = parts
        self._recorder = recorder
        self._leg = leg
        self._presence = presence
        self._current: CallTransfer | None = None
        self._stream_end: tuple[EndReason, str] | None = None
        self._room_end: tuple[EndReason, str] | None = None
        self._running: asyncio.Task[None] | None = None
        self._telling = asyncio.Lock()
        """The carrier's reports take turns: they may come doubled, and each may have to ask the store."""

    @property
    def is_open(self) -> bool:
        """Asked for, and the phone has neither gone for good nor come back."""
        return self._current is not None

    def resume(self, order: Transfer) -> None:
        """Of a call that this process has taken over from another, whose record says how far that has told."""
        told = TransferStatus(self._recorder.record.transfer_status or TransferStatus.INITIATED)
        self._current = CallTransfer(replace(order, status=told), self._recorder)
        self._current.parted.set()

    def catch_up(self) -> None:
        """Tell what some process was told, and left to the one that would have the call."""
        transfer, told = self._current, self._call.wait.transfer
        if transfer is not None and told is not None:
            transfer.hear(told.status)

    async def until_asked(self) -> None:
        """Wait for the carrier's answer to a transfer that it is being asked for."""
        if self._running is not None:
            await asyncio.wait([self._running], timeout=STEP_TIMEOUT)

    async def start(self, order: Transfer) -> CallTransfer:
        """Have the carrier connect the phone with a number; returns when it has agreed. Raises ConnectorError, then the
        call goes on."""
        if self._current is not None:
            raise FailedPrecondition("the call is being transferred already")
        self._leg.can_transfer(order)
        order = replace(order, caller_id=order.caller_id or self._leg.caller_id())
        transfer = self._current = CallTransfer(order, self._recorder)
        self._call.watch.hold(AWAY)
        # A task: a client that goes away must not leave it half done.
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
            log.warning("the call could not be transferred", error=str(error))

    async def _run(self, transfer: CallTransfer) -> None:
        before, order = self._call.wait, transfer.order
        seconds = order.timeout + MARGIN
        wait = Wait(self._recorder, self._parts.store, seconds, self._on_time_over, before.stream + 1, order)
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                await wait.share()
        except (ConnectorError, TimeoutError) as error:
            self._current = None
            self._call.watch.resume(AWAY)
            await self._withdraw(wait)
            raise StoreError("the store, which keeps the way back, does not answer") from error
        if self._call.is_ending:
            await self._withdraw(wait)
            raise FailedPrecondition("the call ended before the carrier was asked")
        self._call.wait = wait
        transfer.begin()
        # Whoever takes the call over reads what has been told.
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
        if self._call.is_ending:
            raise FailedPrecondition("the call ended before the carrier answered")
        transfer.accepted()
        if refusal is None and not asking.result():
            transfer.hear(TransferStatus.UNKNOWN)
            self._call.end(EndReason.TRANSFERRED, "the carrier does not tell whether anybody answered")
            return
        self._call.detach(AWAY, 0.0 if self._leg.stream_outlives_transfer else STREAM_GRACE)
        await self._recorder.save()

    async def _was_taken(self, transfer: CallTransfer, error: BaseException) -> bool:
        """Whether the carrier has done what its answer denies, or what it never answered: it tells the outcome, or has
        ended the stream."""
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
        log.warning("the carrier seems to have taken the call, though it did not say so", error=str(error))
        return True

    def _refused(self, transfer: CallTransfer, before: Wait) -> None:
        """The carrier will not: the call is as it was, or has ended while it was asked."""
        transfer.hear(TransferStatus.FAILED)
        self._current = None
        wait, ended = self._call.wait, self._stream_end or self._room_end
        if ended is not None:
            self._call.end(*ended)
            return
        self._call.wait = before
        self._call.watch.resume(AWAY)
        self._call.begin("withdraw", self._withdraw(wait))

    async def _withdraw(self, wait: Wait) -> None:
        """Once nobody can take the call any more: an entry that stayed would be swept, and the call with it."""
        while True:
            try:
                async with asyncio.timeout(STORE_PATIENCE):
                    await wait.withdraw()
                return
            except (ConnectorError, TimeoutError) as error:
                log.warning("the store could not be told that the call stays", error=str(error))
                await asyncio.sleep(1.0)

    # What happens meanwhile

    def takes_stream_end(self, reason: EndReason, detail: str) -> bool:
        """Whether the end of the stream is the transfer's doing, and not the call's end."""
        transfer = self._current
        if transfer is None or reason not in _STREAM_ENDS:
            return False
        self._stream_end = (reason, detail)
        transfer.parted.set()
        return True

    def takes_room_end(self, reason: EndReason, detail: str) -> bool:
        """Whether the room may end: the phone is leaving it, and gets it back when it returns."""
        if self._current is None or reason not in _ROOM_ENDS:
            return False
        log.info("the room has ended while the phone is transferred", reason=reason.value, detail=detail)
        self._room_end = (reason, detail)
        self._presence.lose()
        return True

    async def progress(self, status: TransferStatus) -> None:
        """The carrier tells that the number rings, or that somebody has answered."""
        async with self._telling:
            transfer = self._current
            if transfer is None or self._call.is_ending:
                return
            if status is not TransferStatus.ANSWERED:
                transfer.hear(status)
            elif not transfer.is_final and await self._has_the_call():
                transfer.hear(status)
                self._call.end(EndReason.TRANSFERRED)

    async def over(self, status: TransferStatus, caller_left: bool) -> WayBack | None:
        """The carrier tells how the dial ended. None: it is to hang up. Told again, the same."""
        async with self._telling:
            return await self._over(status, caller_left)

    async def _has_the_call(self) -> bool:
        """Whether this process tells how the transfer has ended: of several that learn it, the one that the store gives
        the call. A store that fails is no reason to leave a call unended."""
        wait = self._call.wait
        if wait.stage is Stage.SHARED:
            try:
                wait.mark()
                await wait.take()
            except TokenUsed:
                self._call.end(EndReason.INTERRUPTED, "another process has the call")
                return False
            except ConnectorError as error:
                log.warning("whether another process has the call is not known", error=error.message)
        return wait.stage is not Stage.LOST

    async def _over(self, status: TransferStatus, caller_left: bool) -> WayBack | None:
        transfer, wait = self._current, self._call.wait
        if transfer is None:
            # The phone is back. Whoever asks again has had its answer.
            return None
        if self._call.is_ending:
            return self._way_back(transfer) if transfer.failed and transfer.order.say else None
        if transfer.failed:
            return self._way_back(transfer)
        is_end = status is TransferStatus.ANSWERED or caller_left or transfer.order.say
        if is_end and not await self._has_the_call():
            return None
        if status is TransferStatus.ANSWERED:
            transfer.hear(status)
            self._call.end(EndReason.TRANSFERRED)
            return None
        if caller_left:
            transfer.hear(TransferStatus.CANCELED)
            self._call.end(EndReason.CARRIER_HANGUP, "hung up while the number rang")
            return None
        transfer.hear(status)
        wait.transfer = transfer.order
        if transfer.order.say:
            self._call.end(EndReason.TRANSFER_FAILED, f"{transfer.order.to}: {status.value}")
            return self._way_back(transfer)
        self._call.detach(AWAY, 0.0)
        wait.extend(self._parts.limits.answer_grace)
        self._call.begin("announce the return", self._announce(wait))
        return self._way_back(transfer)

    async def _announce(self, wait: Wait) -> None:
        if await wait.update():
            await self._recorder.save()

    def _way_back(self, transfer: CallTransfer) -> WayBack:
        wait = self._call.wait
        return WayBack(transfer.order.say, wait.stream, wait.deadline, self._recorder.request.region)

    def _on_time_over(self) -> None:
        self._call.begin("ask for the outcome", self.give_up())

    async def give_up(self) -> None:
        """Nobody has told an outcome, or the phone has not come back."""
        transfer, told = self._current, self._call.wait.transfer
        if transfer is None:
            return
        if told is not None:
            transfer.hear(told.status)
        if transfer.failed:
            self._call.end(EndReason.CONNECT_TIMEOUT, "the phone did not come back after the transfer had failed")
        else:
            await self._conclude(transfer, await self._leg.is_live() is not False)

    async def _conclude(self, transfer: CallTransfer, is_live: bool) -> None:
        """The end of a transfer whose outcome nobody tells."""
        async with self._telling:
            if self._current is not transfer or transfer.is_final or self._call.is_ending:
                return  # It was told in the last moment.
            if not await self._has_the_call():
                return
            if is_live:
                transfer.hear(TransferStatus.UNKNOWN)
                self._call.end(EndReason.TRANSFERRED, "the carrier did not tell whether anybody answered")
            else:
                transfer.hear(TransferStatus.CANCELED)
                self._call.end(EndReason.CARRIER_HANGUP, "the carrier had not told what became of the transfer")

    def back(self) -> None:
        """The phone streams again."""
        transfer, told = self._current, self._call.wait.transfer
        if transfer is not None:
            transfer.hear(told.status if told is not None else TransferStatus.FAILED)
            transfer.hear(TransferStatus.FAILED)
            transfer.settled.set()
            # An agent that has left meanwhile is dispatched at once; to a room that was set up anew it comes by itself.
            self._call.watch.resume(AWAY, None if self._room_end else 0.0)
        self._current = self._stream_end = self._room_end = None

    def close(self) -> None:
        """The call ends."""
        if self._current is not None:
            self._current.settled.set()
