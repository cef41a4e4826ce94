"""The entry of a call in `store.waiting`: each access to it, and the task that keeps it up to date."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

import structlog

from connector.call.ports import CallStore
from connector.call.record.call_recorder import CallRecorder
from connector.errors import ConnectorError
from connector.model.call import NO_EXPIRY, CallRequest, Transfer, WaitingCall
from connector.storage.base import NameTaken

log = structlog.get_logger()

T = TypeVar("T")

STORE_PATIENCE = 3.0
"""Seconds for the store's answer to a claim; the carrier waits for the handshake meanwhile."""
SIGNING = 2.0
"""Seconds in which a process that takes a call over has written its name into the record."""
WRITE_AGAIN = 1.0
"""Seconds between two attempts to write the entry of an active call."""
LOOK_AGAIN = 0.2


class StoredEntry:
    """The entry for one stream of a call, as this process reads, writes and takes it. All methods raise StoreError."""

    def __init__(self, recorder: CallRecorder, store: CallStore, stream: int, *, is_written: bool) -> None:
        self._recorder = recorder
        self._store = store
        self._stream = stream
        self.is_written = is_written
        """The store has had an entry for this stream."""

    @property
    def _call_id(self) -> str:
        return self._recorder.record.call_id

    async def read(self) -> WaitingCall | None:
        return await self._store.waiting.get(self._call_id)

    async def insert(self, entry: WaitingCall) -> None:
        """Raises NameTaken if the call, or another one with its name in its room, has an entry already."""
        await self._store.waiting.insert(entry)
        self.is_written = True

    async def write(self, current: Callable[[], WaitingCall], opened: Callable[[WaitingCall], None]) -> bool:
        """Insert the entry, or replace the one in the store, by `current`. False: another process has the call.
        `opened` is called with an entry that another process has opened for this stream."""
        while True:
            there = await self.read()
            if there is None:
                if self.is_written and await self.has_been_taken():
                    return False
                try:
                    await self.insert(current())
                except NameTaken:
                    continue
                return True
            is_anothers = there.stream == self._stream and there.owner != self._recorder.record.owner
            if there.stream > self._stream or (is_anothers and await self.has_another_owner()):
                return False
            if there.stream == self._stream and not there.served and there.transfer is None:
                opened(there)
            self.is_written = True
            entry = current()
            if there == entry or await self._store.waiting.replace(entry, there):
                return True

    async def merge(self, current: Callable[[], WaitingCall], adopt: Callable[[WaitingCall], None]) -> bool:
        """Replace the entry by `current`, after the facts in it have been adopted: other processes may have served the
        answer document. False: the entry is gone, or is for another stream."""
        while (there := await self.read()) is not None:
            if there.stream != self._stream:
                return False
            adopt(there)
            if await self._store.waiting.replace(current(), there):
                return True
        return False

    async def claim(
        self, current: Callable[[], WaitingCall], adopt: Callable[[WaitingCall], None]
    ) -> WaitingCall | None:
        """Replace the entry by one for the stream after it, and return it as it was. None: see `take`."""
        while (there := await self.read()) is not None and there.stream <= self._stream:
            adopt(there)
            if await self._store.waiting.replace(claimed_by(self._recorder.record.owner, current()), there):
                return there
        return None

    async def take(self) -> WaitingCall | None:
        """Take the entry out of the store. None: it is not there, or it is for a later stream: another process has
        taken the call, and serves it."""
        there = await self.read()
        if there is None or there.stream > self._stream:
            return None
        entry = await self._store.waiting.take(self._call_id)
        if entry is not None and entry.stream > self._stream:
            await self.put_back(entry)
            return None
        return entry

    async def release(self, *, yields: bool) -> bool:
        """The call ends here: take the entry out of the store. False: another process has the call, or, with `yields`,
        is about to get its stream; then its entry stays."""
        entry = await self.take()
        if entry is None:
            return not await self.has_been_taken()
        is_this = entry.stream == self._stream
        is_anothers = is_this and entry.owner != self._recorder.record.owner
        is_opened = is_this and not entry.served and entry.transfer is None
        if is_anothers or (yields and is_opened):
            await self.put_back(entry)
            return False
        return True

    async def is_claimed_elsewhere(self) -> bool:
        """Whether another process has claimed the call, which waits here for this stream."""
        there = await self.read()
        if there is None:
            return await self.has_another_owner()
        return there.stream > self._stream and there.owner != self._recorder.record.owner

    async def put_back(self, entry: WaitingCall) -> None:
        """Undo a `take`."""
        with contextlib.suppress(NameTaken):
            await self._store.waiting.insert(entry)

    async def delete(self) -> None:
        await self._store.waiting.delete(self._call_id)

    async def has_been_taken(self) -> bool:
        """The entry is missing: whether another process has the call. A process that takes a call writes its name into
        the record within SIGNING. Otherwise the store has lost the entry, or it was never written."""
        loop = asyncio.get_running_loop()
        until = loop.time() + (SIGNING if self.is_written else 0.0)
        while not await self.has_another_owner():
            if loop.time() >= until:
                return False
            await asyncio.sleep(LOOK_AGAIN)
        return True

    async def has_another_owner(self) -> bool:
        """Whether another process owns the call, or has ended it. If our own delete succeeded but its answer was lost,
        the record still names us as the owner; another process would have written its own name."""
        record = await self._store.get_call(self._call_id)
        return record is not None and (record.owner != self._recorder.record.owner or record.end_reason is not None)


class EntryWriter:
    """Writes the entry of an active call in the background, with retries."""

    def __init__(
        self,
        call_id: str,
        write: Callable[[], Awaitable[bool]],
        is_wanted: Callable[[], bool],
        on_taken: Callable[[], None],
    ) -> None:
        """`write`: see `StoredEntry.write`. `is_wanted`: whether the entry must still be in the store. `on_taken` is
        called when the entry shows that another process has the call."""
        self._call_id = call_id
        self._write = write
        self._is_wanted = is_wanted
        self._on_taken = on_taken
        self._task: asyncio.Task[None] | None = None
        self._again = self._is_at_the_store = self._is_ending = False

    def sync(self) -> None:
        """Bring the entry in the store up to date."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._sync(), name=f"keep {self._call_id}")
        else:
            self._again = True

    async def _sync(self) -> None:
        try:
            while self._is_wanted() and not self._is_ending:
                self._again = False
                try:
                    self._is_at_the_store = True
                    async with asyncio.timeout(STORE_PATIENCE):
                        is_ours = await self._write()
                except (ConnectorError, TimeoutError) as error:
                    log.warning(
                        "the state of the waiting call could not be saved for other processes",
                        error=str(error) or "no answer",
                    )
                    self._is_at_the_store = False
                    await asyncio.sleep(WRITE_AGAIN)
                    continue
                finally:
                    self._is_at_the_store = False
                if not is_ours:
                    if not self._is_ending:
                        self._on_taken()
                    return
                if not self._again:
                    return
        except Exception:
            # Top level of a task: the call goes on as if the store failed.
            log.exception("the entry of an active call could not be written")

    def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def end(self) -> None:
        """Write no more: the call ends, or its stream is claimed here. A write that the store has got may still be
        carried out: it must not put the entry back afterwards."""
        self._is_ending = True
        task, self._task = self._task, None
        if task is None:
            return
        if self._is_at_the_store:
            await asyncio.wait([task], timeout=STORE_PATIENCE)
        task.cancel()


async def answer_of(question: Awaitable[T]) -> T | None:
    """The store's answer about the wait of a call; None if the store fails, or is too slow."""
    try:
        async with asyncio.timeout(STORE_PATIENCE):
            return await question
    except (ConnectorError, TimeoutError) as error:
        log.warning("the wait of the call could not be checked in the store", error=str(error) or "no answer")
    except Exception:
        log.exception("the wait of the call could not be checked in the store")
    return None


def entry_of(
    recorder: CallRecorder,
    stream: int,
    deadline: float,
    transfer: Transfer | None,
    returns: tuple[float, ...],
    *,
    is_served: bool,
) -> WaitingCall:
    """The entry for a stream of the call, with the facts of its record. `is_served`: the stream before is served."""
    record = recorder.record
    return WaitingCall(
        id=record.call_id,
        request=recorder.request,
        owner=record.owner,
        created_at=record.created_at,
        expires_at=deadline,
        carrier_call_id=record.carrier_call_id,
        from_number=record.from_number,
        to_number=record.to_number,
        account_id=record.account_id,
        stream=stream,
        transfer=transfer,
        place=place_of(recorder.request) if stream == 1 else "",
        served=is_served,
        returns=returns,
        started_at=record.started_at,
    )


def place_of(request: CallRequest) -> str:
    """See `WaitingCall.place`."""
    return f"{request.room}\n{request.participant.identity}"


def claimed_by(owner: str, entry: WaitingCall) -> WaitingCall:
    """The entry that a claim of `entry` leaves: `owner` serves its stream, and the next one is not expected yet."""
    return replace(
        entry, owner=owner, stream=entry.stream + 1, served=True, expires_at=NO_EXPIRY, transfer=None, place=""
    )


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
