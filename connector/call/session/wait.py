"""Waits for the carrier's media stream: how long, and which process owns the call when the stream arrives.

While a call waits, it has an entry in `store.waiting`, visible to every process with the same store. The process that
deletes the entry owns the call: the process that created it (for its own socket, or to end the call), or another
process that the stream has reached. So the store decides about ownership, not this process's memory.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from enum import Enum, auto

import structlog

from connector.call.ports import CallStore
from connector.call.record.call_recorder import CallRecorder
from connector.errors import ConnectorError, TokenUsed
from connector.model.call import NOT_REACHED, CallRequest, Transfer, WaitingCall
from connector.storage.base import NameTaken, StoreError

log = structlog.get_logger()

STORE_PATIENCE = 3.0
"""Seconds for the store's answer to a claim; the carrier waits for the handshake meanwhile."""


class Stage(Enum):
    ALONE = auto()
    """Other processes do not know the call yet."""
    SHARED = auto()
    """The call is in the store; any process that the stream reaches may claim it."""
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
    ) -> None:
        """`stream`: number of the call's stream, from 1. `transfer`: the transfer from which the phone may come
        back."""
        self._recorder = recorder
        self.stream = stream
        self.transfer = transfer
        self._store = store
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self.stage = Stage.ALONE
        self.deadline = (recorder.record.created_at if stream == 1 else time.time()) + seconds
        """Latest Unix time at which the stream may open."""
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._on_timer)
        self._looking: asyncio.Task[None] | None = None
        self.is_certain = False
        """The store has confirmed that this process owns the call, and no other process can claim it."""
        self._decided = asyncio.Event()
        """Set when a claim of this process has been answered by the store, or has failed."""

    @classmethod
    def taken(cls, recorder: CallRecorder, store: CallStore, stream: int = 1, transfer: Transfer | None = None) -> Wait:
        """The wait of a call that this process has claimed from another process."""
        wait = cls(recorder, store, 0.0, lambda: None, stream, transfer)
        wait.stop()
        wait.stage, wait.is_certain = Stage.OURS, True
        return wait

    def _entry(self) -> WaitingCall:
        record = self._recorder.record
        return WaitingCall(
            id=record.call_id,
            request=self._recorder.request,
            owner=record.owner,
            created_at=record.created_at,
            expires_at=self.deadline,
            carrier_call_id=record.carrier_call_id,
            from_number=record.from_number,
            to_number=record.to_number,
            account_id=record.account_id,
            stream=self.stream,
            transfer=self.transfer,
            place=place_of(self._recorder.request) if self.stream == 1 else "",
        )

    async def share(self) -> None:
        """Write the entry to the store, so that any process that the stream reaches can claim the call. Raises
        StoreError, and NameTaken if another process has written the same call before: that process owns it."""
        try:
            await self._store.waiting.insert(self._entry())
        except NameTaken:
            self.stage = Stage.LOST
            raise
        if self.stage is Stage.ALONE:
            self.stage = Stage.SHARED

    async def update(self) -> bool:
        """Write new facts to the store. False: the call does not wait any more, and we must not write its record."""
        if self.stage is not Stage.SHARED:
            return self.stage is not Stage.LOST
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                return await self._merge()
        except (ConnectorError, TimeoutError) as error:
            log.warning("the state of the waiting call could not be saved for other processes", error=str(error))
            return True

    async def _merge(self) -> bool:
        """Write our facts together with those of other processes, which may have served the answer document."""
        while (entry := await self._store.waiting.get(self._recorder.record.call_id)) is not None:
            self._adopt(entry)
            if await self._store.waiting.replace(self._entry(), entry):
                return True
        return False

    def extend(self, seconds: float) -> None:
        """Give the stream at least `seconds` from now to open; `update` writes this to the store."""
        self.deadline = max(self.deadline, time.time() + seconds)
        self._rearm(self.deadline - time.time())

    def _rearm(self, seconds: float) -> None:
        self.stop()
        self._timer = self._loop.call_later(seconds, self._on_timer)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _on_timer(self) -> None:
        self._looking = asyncio.create_task(self._look(), name=f"look for {self._recorder.record.call_id}")

    async def _look(self) -> None:
        """The time is over according to this process; another process may have extended it in the store."""
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                entry = await self._store.waiting.get(self._recorder.record.call_id)
        except (StoreError, TimeoutError) as error:
            log.warning("the wait of the call could not be checked in the store", error=str(error))
            entry = None
        except Exception:
            log.exception("the wait of the call could not be checked in the store")
            entry = None
        if self.stage is Stage.SHARED and entry is not None and entry.expires_at > self.deadline:
            self._adopt(entry)
            self._rearm(self.deadline - time.time())
        elif self.stage in (Stage.ALONE, Stage.SHARED):
            self._on_over()

    def _adopt(self, entry: WaitingCall) -> None:
        """Take over facts that other processes have learnt."""
        self.deadline = max(self.deadline, entry.expires_at)
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
        return self.stage in (Stage.CLAIMING, Stage.UNSURE, Stage.OURS, Stage.LOST)

    def mark(self) -> None:
        """Claim the call for one WebSocket within this process. Synchronous on purpose: with an `await` between check
        and mark, several sockets could pass the check. Raises TokenUsed for all but the first."""
        if self.claimed:
            raise TokenUsed("this connect_url has been used by a WebSocket")
        self.stop()
        self.stage = Stage.CLAIMING

    async def take(self) -> None:
        """Claim the call in the store, after `mark`. Raises TokenUsed if another process was first."""
        decision = Stage.UNSURE
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                entry = await self._store.waiting.take(self._recorder.record.call_id)
            decision = Stage.OURS if entry is not None else Stage.LOST
        except TimeoutError as error:
            raise StoreError("the store did not answer in time") from error
        finally:
            self.stage = decision
            self.is_certain = decision is Stage.OURS
            self._decided.set()
        if entry is None:
            raise TokenUsed("this connect_url has been used by a WebSocket, on another process")
        self._adopt(entry)

    async def withdraw(self) -> None:
        """Stop the wait: the call goes on with its current stream. Raises StoreError."""
        self.stop()
        self.stage = Stage.OURS
        self.is_certain = True
        await self._store.waiting.delete(self._recorder.record.call_id)

    def leave(self) -> None:
        """This process stops; the call stays in the store for another process, or for its successor of the same
        name."""
        self.stop()
        self.stage = Stage.LOST

    async def settle(self) -> bool:
        """The call ends here: return whether this process owns it. From now on no other process can claim it.

        If the store fails, the call is ended anyway; a process that claims it in spite of that finds its record ended.
        """
        self.stop()
        if self._looking is not None:
            self._looking.cancel()
        if self.stage is Stage.CLAIMING:
            await self._decided.wait()
        if self.stage in (Stage.ALONE, Stage.SHARED, Stage.UNSURE):
            stage, self.stage = self.stage, Stage.OVER
            deleted = self.is_certain = await self._store.waiting.delete(self._recorder.record.call_id)
            if not deleted and (stage is Stage.SHARED or (stage is Stage.UNSURE and await self._has_another_owner())):
                # Not for ALONE: its `share` may have been cancelled before or after the entry was written.
                self.stage = Stage.LOST
        return self.stage is not Stage.LOST

    async def _has_another_owner(self) -> bool:
        """Whether another process owns the call. If our own delete succeeded but its answer was lost, the record still
        names us as the owner; another process would have written its own name."""
        record = await self._store.get_call(self._recorder.record.call_id)
        return record is not None and record.owner != self._recorder.record.owner


def place_of(request: CallRequest) -> str:
    """See `WaitingCall.place`."""
    return f"{request.room}\n{request.participant.identity}"


def with_facts(
    entry: WaitingCall,
    recorder: CallRecorder,
    carrier_call_id: str,
    from_number: str,
    to_number: str,
    account_id: str,
    seconds: float,
) -> WaitingCall:
    """Another process's entry, with the facts from a fetch of the answer document, and a later deadline."""
    recorder.learn(carrier_call_id=carrier_call_id, from_number=from_number, to_number=to_number, account_id=account_id)
    record = recorder.record
    return replace(
        entry,
        carrier_call_id=record.carrier_call_id,
        from_number=record.from_number,
        to_number=record.to_number,
        account_id=record.account_id,
        expires_at=max(entry.expires_at, time.time() + seconds),
    )
