"""Waits for the carrier's media stream: how long, and which process owns the call when the stream arrives.

While a call waits, it has an entry in `store.waiting` (`connector.call.session.waiting_entry`), visible to every
process with the same store. The process that takes the entry owns the call: the process that created it (for its own
socket, or to end the call), or another process that the stream has reached. So the store decides about ownership, not
this process's memory.

The claim of a socket replaces the entry by one for the stream after it, with the name of its process: if that process
or the socket is lost, another process can take the call over. Once the call is active, that entry is kept up to date in
the background, with retries; audio does not depend on the store.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from enum import Enum, auto

import structlog

from connector.call.ports import CallStore
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.waiting_entry import STORE_PATIENCE, EntryWriter, StoredEntry, answer_of, entry_of
from connector.errors import ConnectorError, TokenUsed
from connector.model.call import NO_EXPIRY, NOT_REACHED, Transfer, WaitingCall
from connector.storage.base import NameTaken, StoreError

log = structlog.get_logger()

USED_ELSEWHERE = "this connect_url has been used by a WebSocket, on another process"


class Stage(Enum):
    ALONE = auto()
    """Other processes do not know the call yet."""
    SHARED = auto()
    """The call is in the store; any process that the stream reaches may claim it."""
    SERVED = auto()
    """This process serves the stream before this one. Another process may claim this one if we are lost."""
    CLAIMING = auto()
    """A socket of this process claims it; the store has not answered yet."""
    UNSURE = auto()
    """The store failed during the claim, so the owner is unknown."""
    OURS = auto()
    """This process has claimed it."""
    LOST = auto()
    """Another process has claimed it."""
    OVER = auto()
    """The call ended while it waited."""


class Wait:
    """The wait of one call; `on_over` is called if no stream came in time."""

    def __init__(
        self,
        recorder: CallRecorder,
        store: CallStore,
        seconds: float,
        on_over: Callable[[], None],
        stream: int = 1,
        transfer: Transfer | None = None,
        former: Wait | None = None,
        *,
        can_return: bool = False,
    ) -> None:
        """`stream`: number of the call's stream, from 1. `transfer`: the transfer from which the phone may come
        back. `former`: the wait that this one replaces; it may have written the entry already. `can_return`: the call
        goes on if its stream, or its process, is lost."""
        self._recorder = recorder
        self.stream = stream
        self.transfer = transfer
        self.returns: tuple[float, ...] = former.returns if former is not None else ()
        """See `WaitingCall.returns`."""
        self._store = store
        self._can_return: bool = former._can_return if former is not None else can_return
        self._next: StoredEntry | None = None
        """The entry that our claim has left, for the stream after this one."""
        is_written = former is not None and (
            former._next is not None or (former.stage is Stage.SERVED and former.stored.is_written)
        )
        self.stored: StoredEntry = StoredEntry(recorder, store, stream, is_written=is_written)
        self._writer = EntryWriter(recorder.record.call_id, self._write, self._is_shared, lambda: self.on_taken())
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self.stage: Stage = Stage.ALONE
        self.deadline = (recorder.record.created_at if stream == 1 else time.time()) + seconds
        """Latest Unix time at which the stream may open."""
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._on_timer)
        self._looking: asyncio.Task[None] | None = None
        self._checking: asyncio.Task[None] | None = None
        self.is_certain = False
        """The store has confirmed that this process owns the call, and no other process can claim it."""
        self.reopened_at = float("-inf")
        """Event loop time at which another process was seen to have opened the entry of a stream served here: it has
        taken this process for dead, and the carrier may leave the stream."""
        self._decided = asyncio.Event()
        """Set when a claim of this process has been answered by the store, or has failed."""
        self.complete: Callable[[WaitingCall], WaitingCall] = former.complete if former is not None else _as_it_is
        """Adds the facts of an active call to its entry."""
        self.on_taken: Callable[[], None] = former.on_taken if former is not None else _nothing
        """Called when the entry shows that another process has the call."""

    @classmethod
    def taken(
        cls,
        recorder: CallRecorder,
        store: CallStore,
        stream: int = 1,
        transfer: Transfer | None = None,
        returns: tuple[float, ...] = (),
        *,
        can_return: bool = False,
    ) -> Wait:
        """The wait of a call that this process has claimed from another process."""
        wait = cls(recorder, store, 0.0, _nothing, stream, transfer, can_return=can_return)
        wait.stop()
        wait.stage, wait.is_certain, wait.returns = Stage.OURS, True, returns
        if can_return:
            wait._has_left_an_entry()
        return wait

    @classmethod
    def after(cls, former: Wait) -> Wait:
        """The wait for the stream after the one of `former`, which is served from now on."""
        wait = cls(former._recorder, former._store, 0.0, _nothing, former.stream + 1, former=former)
        wait.stop()
        wait.stage, wait.deadline = Stage.SERVED, NO_EXPIRY
        return wait

    @property
    def is_return(self) -> bool:
        """Whether it waits, or would wait, for the return of a lost stream."""
        return self.stream > 1 and self.transfer is None

    def entry(self) -> WaitingCall:
        """The entry as it should be in the store."""
        is_served = self.stage is Stage.SERVED
        entry = entry_of(self._recorder, self.stream, self.deadline, self.transfer, self.returns, is_served=is_served)
        return self.complete(entry)

    # The entry of an active call

    def open(self, seconds: float, on_over: Callable[[], None]) -> None:
        """The stream that was served here is lost: the next one may come within `seconds`."""
        self.stage = Stage.SHARED
        self.deadline = time.time() + seconds
        self._on_over = on_over
        self._rearm(seconds)
        self.sync()

    def sync(self) -> None:
        """Bring the entry in the store up to date, in the background and with retries."""
        self._writer.sync()

    def _is_shared(self) -> bool:
        return self.stage in (Stage.SERVED, Stage.SHARED)

    async def _write(self) -> bool:
        return await self.stored.write(self.entry, self._note_opening)

    def _note_opening(self, there: WaitingCall) -> None:
        if self.stage is Stage.SERVED:
            self.reopened_at = self._loop.time()
            self.returns = max(self.returns, there.returns, key=len)
        else:
            self._adopt(there)

    def seen(self, there: WaitingCall | None) -> None:
        """`there`: the entry that was read from the store a moment ago. Write it again if it differs; that shows, too,
        whether another process has taken the call."""
        is_ours = there is not None and there.stream == self.stream and there.owner == self._recorder.record.owner
        if self.stage is Stage.SHARED and self.stream == 1 and not is_ours and self._checking is None:
            self._checking = asyncio.create_task(self._step_aside(), name=f"check {self._recorder.record.call_id}")
            return
        is_wrong = self.stage is Stage.SERVED and there != self.entry()
        is_lost = self.stage is Stage.SHARED and self.is_return and (there is None or there.stream > self.stream)
        if is_wrong or is_lost:
            self.sync()

    # A call that waits

    async def _step_aside(self) -> None:
        """Our entry is missing: end the wait if another process has taken the call. An inbound call has no participant
        yet, so nothing else would tell."""
        is_taken = await answer_of(self.stored.has_another_owner())  # None: the next look asks again.
        self._checking = None
        if is_taken and self.stage is Stage.SHARED:
            self.on_taken()

    async def is_claimed_elsewhere(self) -> bool:
        """Whether the store shows that another process has claimed the call that waits here."""
        if self.stage is not Stage.SHARED:
            return False
        return bool(await answer_of(self.stored.is_claimed_elsewhere()))

    async def share(self) -> None:
        """Write the entry to the store, so that any process that the stream reaches can claim the call. Raises
        StoreError, and NameTaken if another process has written the same call before: that process owns it."""
        try:
            is_ours = await self._shared()
        except NameTaken:
            self.stage = Stage.LOST
            raise
        if not is_ours:
            self.stage = Stage.LOST
            raise TokenUsed("another process has claimed the call")
        if self.stage is Stage.ALONE:
            self.stage = Stage.SHARED

    async def _shared(self) -> bool:
        if not self.stored.is_written:
            try:
                await self.stored.insert(self.entry())
                return True
            except NameTaken:
                if self.stream == 1:
                    raise
        # The call is active, and its entry is there already; or there is an entry for an earlier stream, or one of ours
        # for which the store's answer was lost.
        return await self._write()

    async def update(self) -> bool:
        """Write new facts to the store. False: the call does not wait any more, and we must not write its record."""
        if self.stage is not Stage.SHARED:
            return self.stage is not Stage.LOST
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                return await self.stored.merge(self.entry, self._adopt)
        except (ConnectorError, TimeoutError) as error:
            log.warning("the state of the waiting call could not be saved for other processes", error=str(error))
            return True

    def extend(self, seconds: float) -> None:
        """Give the stream at least `seconds` from now to open; `update` writes this to the store."""
        self.deadline = max(self.deadline, time.time() + seconds)
        self._rearm(self.deadline - time.time())

    def _rearm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def stop(self) -> None:
        """Stop the timer, and the writing in the background."""
        self._disarm()
        self._writer.stop()

    def _on_timer(self) -> None:
        self._looking = asyncio.create_task(self._look(), name=f"look for {self._recorder.record.call_id}")

    async def _look(self) -> None:
        """The time is over according to this process; another process may have extended it in the store."""
        entry = await answer_of(self.stored.read())
        is_same = entry is not None and entry.stream == self.stream and not entry.served
        if self.stage is Stage.SHARED and entry is not None and is_same and entry.expires_at > self.deadline:
            self._adopt(entry)
            self._rearm(self.deadline - time.time())
        elif self.stage in (Stage.ALONE, Stage.SHARED):
            self._on_over()

    def _adopt(self, entry: WaitingCall) -> None:
        """Take over facts that other processes have learnt."""
        if not entry.served:
            self.deadline = max(self.deadline, entry.expires_at)
        self.returns = max(self.returns, entry.returns, key=len)
        if self.transfer is None or self.transfer.status not in NOT_REACHED:
            # A failure that was reported to this process stays: the entry may not have it yet.
            self.transfer = entry.transfer or self.transfer
        self._recorder.learn(
            carrier_call_id=entry.carrier_call_id,
            from_number=entry.from_number,
            to_number=entry.to_number,
            account_id=entry.account_id,
        )

    @property
    def claimed(self) -> bool:
        """Whether the stream that was waited for has been claimed, or the call is served."""
        return self.stage in (Stage.SERVED, Stage.CLAIMING, Stage.UNSURE, Stage.OURS, Stage.LOST)

    def mark(self) -> None:
        """Claim the call for one WebSocket within this process. Synchronous on purpose: with an `await` between check
        and mark, several sockets could pass the check. Raises TokenUsed for all but the first."""
        if self.claimed:
            raise TokenUsed("this connect_url has been used by a WebSocket")
        self._disarm()
        self.stage = Stage.CLAIMING

    async def take(self, *, for_stream: bool = False) -> None:
        """Claim the call in the store, after `mark`, for a stream or in order to end the call. Raises TokenUsed if
        another process was first. If the store fails,
        StoreError is raised, except for the return of a lost stream: the participant is here, so the call goes on, and
        `DuplicateIdentity` of LiveKit shows whether another process has joined."""
        decision, is_certain = Stage.UNSURE, False
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                # Another process may take the entry as soon as the store has it.
                await self._writer.end()
                entry = await (self._claim() if for_stream and self._can_return else self.stored.take())
                if entry is None and self.is_return:
                    is_lost = await self.stored.has_been_taken()
                else:
                    is_lost = entry is None
            decision, is_certain = (Stage.LOST, False) if is_lost else (Stage.OURS, True)
        except (ConnectorError, TimeoutError) as error:
            if not self.is_return:
                raise StoreError("the store did not answer in time") from error
            log.warning("the stream is accepted without a check in the store", error=str(error) or "no answer in time")
            decision, entry = Stage.OURS, None
        finally:
            self.stage, self.is_certain = decision, is_certain
            self._decided.set()
        if decision is Stage.LOST:
            raise TokenUsed(USED_ELSEWHERE)
        if entry is not None:
            self._adopt(entry)

    async def _claim(self) -> WaitingCall | None:
        entry = await self.stored.claim(self.entry, self._adopt)
        if entry is not None:
            self._has_left_an_entry()
        return entry

    def _has_left_an_entry(self) -> None:
        self._next = StoredEntry(self._recorder, self._store, self.stream + 1, is_written=True)

    async def withdraw(self) -> None:
        """Stop the wait: the call goes on with its current stream. Raises StoreError."""
        self._disarm()
        self.stage = Stage.OURS
        self.is_certain = True
        await self._writer.end()
        await self.stored.delete()

    def leave(self) -> None:
        """This process stops; the call stays in the store for another process, or for its successor of the same
        name."""
        self.stop()
        self.stage = Stage.LOST

    async def settle(self, *, yields: bool = False) -> bool:
        """The call ends here: return whether this process owns it. From now on no other process can claim it. `yields`:
        the carrier has ended the stream; if another process is bringing the call back to itself, the call is left to
        that process.

        If the store fails, the call is ended anyway; a process that claims it in spite of that finds its record ended.
        """
        self._disarm()
        await self._writer.end()
        for task in (self._looking, self._checking):
            if task is not None:
                task.cancel()
        if self.stage is Stage.CLAIMING:
            await self._decided.wait()
        if self.stage is Stage.SERVED or (self.is_return and self.stage in (Stage.SHARED, Stage.UNSURE)):
            return await self._settle_return(self.stored, yields and self.stage is Stage.SERVED)
        if self.stage is Stage.OURS and self._next is not None:
            return await self._settle_return(self._next, yields)
        if self.stage in (Stage.ALONE, Stage.SHARED, Stage.UNSURE):
            stage, self.stage = self.stage, Stage.OVER
            deleted = self.is_certain = await self.stored.take() is not None
            if not deleted and (
                stage is Stage.SHARED or (stage is Stage.UNSURE and await self.stored.has_another_owner())
            ):
                # Not for ALONE: its `share` may have been cancelled before or after the entry was written.
                self.stage = Stage.LOST
        return self.stage is not Stage.LOST

    async def _settle_return(self, stored: StoredEntry, yields: bool) -> bool:
        """`stored`: the entry that should be in the store."""
        # While the store fails, an active call belongs to the process that has its participant. Its late end is dropped
        # if the record has another owner by then.
        self.stage, self.is_certain = Stage.OURS, True
        is_ours = await stored.release(yields=yields)
        if not is_ours:
            self.stage, self.is_certain = Stage.LOST, False
        return is_ours


def _nothing() -> None:
    return


def _as_it_is(entry: WaitingCall) -> WaitingCall:
    return entry
