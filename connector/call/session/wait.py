"""A call's wait for its stream: until when, and whose the call is when the stream comes.

While it waits, a call stands in `store.waiting`, where every process that shares the store can see it. Whoever
deletes it there has it: the process that made it, for its own socket or for its own end of the call, or another one
that the stream has reached. So nothing here trusts what this process remembers.
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
from connector.model import NOT_REACHED, CallRequest, Transfer, WaitingCall
from connector.storage.base import NameTaken, StoreError

log = structlog.get_logger()

STORE_PATIENCE = 3.0
"""Seconds for the store's answer to a claim: the carrier waits for its handshake."""


class Stage(Enum):
    ALONE = auto()
    """Nobody else can know of the call yet."""
    SHARED = auto()
    """It is in the store, for whoever the stream reaches."""
    CLAIMING = auto()
    """A socket of this process has it, if the store agrees."""
    UNSURE = auto()
    """The store failed to say whose it is."""
    OURS = auto()
    """This process has claimed it."""
    LOST = auto()
    """Another process has."""
    OVER = auto()
    """The call ended while it waited."""


class Wait:
    """The wait of one call; `on_over` is called when it was in vain."""

    def __init__(
        self,
        recorder: CallRecorder,
        store: CallStore,
        seconds: float,
        on_over: Callable[[], None],
        stream: int = 1,
        transfer: Transfer | None = None,
    ) -> None:
        """`stream` counts the call's streams; `transfer`, from which the phone may come back."""
        self._recorder = recorder
        self.stream = stream
        self.transfer = transfer
        self._store = store
        self._on_over = on_over
        self._loop = asyncio.get_running_loop()
        self.stage = Stage.ALONE
        self.deadline = (recorder.record.created_at if stream == 1 else time.time()) + seconds
        """Unix time until which the stream may open."""
        self._timer: asyncio.TimerHandle | None = self._loop.call_later(seconds, self._on_timer)
        self._looking: asyncio.Task[None] | None = None
        self.is_certain = False
        """The store has said that the call is this process's, and no other can get it any more."""
        self._decided = asyncio.Event()
        """A claim of this process has the store's answer, or will not get one."""

    @classmethod
    def taken(cls, recorder: CallRecorder, store: CallStore, stream: int = 1, transfer: Transfer | None = None) -> Wait:
        """Of a call that this process has claimed from another."""
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
        """Let every process have the call that its stream reaches. Raises StoreError; NameTaken when another process
        was asked for the same call a moment before: then it is that one's."""
        try:
            await self._store.waiting.insert(self._entry())
        except NameTaken:
            self.stage = Stage.LOST
            raise
        if self.stage is Stage.ALONE:
            self.stage = Stage.SHARED

    async def update(self) -> bool:
        """Tell the others what has been learnt. False: the call waits no more, its record is not ours to write."""
        if self.stage is not Stage.SHARED:
            return self.stage is not Stage.LOST
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                return await self._merge()
        except (ConnectorError, TimeoutError) as error:
            log.warning("other processes could not be told of the call", error=str(error))
            return True

    async def _merge(self) -> bool:
        """Another process may have been asked for the answer document, and have learnt of the call too."""
        while (entry := await self._store.waiting.get(self._recorder.record.call_id)) is not None:
            self._adopt(entry)
            if await self._store.waiting.replace(self._entry(), entry):
                return True
        return False

    def extend(self, seconds: float) -> None:
        """Leave the stream at least this long from now to open; `update` tells the others."""
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
        """The time is over as far as this process knows; another may have heard of the call and given it more."""
        try:
            async with asyncio.timeout(STORE_PATIENCE):
                entry = await self._store.waiting.get(self._recorder.record.call_id)
        except (StoreError, TimeoutError) as error:
            log.warning("whether the call waits on another process is not known", error=str(error))
            entry = None
        except Exception:
            log.exception("whether the call waits on another process is not known")
            entry = None
        if self.stage is Stage.SHARED and entry is not None and entry.expires_at > self.deadline:
            self._adopt(entry)
            self._rearm(self.deadline - time.time())
        elif self.stage in (Stage.ALONE, Stage.SHARED):
            self._on_over()

    def _adopt(self, entry: WaitingCall) -> None:
        """What other processes have learnt of the call."""
        self.deadline = max(self.deadline, entry.expires_at)
        if self.transfer is None or self.transfer.status not in NOT_REACHED:
            # What this process was told itself stands: the entry may not have it yet.
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
        """Take the one place for a WebSocket, of this process. Synchronous on purpose: between a check and a mark
        with an `await` between them several sockets get in. TokenUsed for all but the first."""
        if self.claimed:
            raise TokenUsed("this connect_url has been used by a WebSocket")
        self.stop()
        self.stage = Stage.CLAIMING

    async def take(self) -> None:
        """Take it from all other processes too; after `mark`. TokenUsed when one of them was first."""
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
        """The call goes on with the stream that it has. Raises StoreError."""
        self.stop()
        self.stage = Stage.OURS
        self.is_certain = True
        await self._store.waiting.delete(self._recorder.record.call_id)

    def leave(self) -> None:
        """This process stops; the call waits on, for another one or a later one of the same name."""
        self.stop()
        self.stage = Stage.LOST

    async def settle(self) -> bool:
        """The call ends here: whether that is this process's to say. From now on no other can have the call.

        A store that fails is no reason to leave a call unended; a process that takes it all the same finds its
        record ended.
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
                # Alone it may have been shared all the same: `share` was cut off, perhaps after the fact.
                self.stage = Stage.LOST
        return self.stage is not Stage.LOST

    async def _has_another_owner(self) -> bool:
        """What we deleted ourselves, without being told so, is not another's: that would have signed the record."""
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
    """Another process's entry, with what a fetch of the answer document has taught, and more time."""
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
