"""Takes over calls of other processes: those that wait for their stream, and those of dead owners.

The process that replaces the call's entry in `store.waiting` by one of its own owns the call from then on.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import structlog

from connector.call.dependencies import CallDependencies
from connector.call.record.changes import new_record
from connector.call.registry.live_calls import LiveCalls
from connector.call.registry.resume import LOOK_AGAIN, TAKE_OVER_TIME, Resumes
from connector.call.session.call_session import CallSession
from connector.call.session.wait import USED_ELSEWHERE
from connector.call.session.waiting_entry import claimed_by
from connector.errors import ConnectorError, ConnectUrlError, TokenExpired, TokenInvalid, TokenUsed, Unavailable
from connector.logs import bind_call
from connector.model.call import CallRecord, CallState, Direction, WaitingCall
from connector.model.end_reason import EndReason
from connector.model.webhook import LifecycleEvent
from connector.tasks import BackgroundTasks

log = structlog.get_logger()

ORPHAN_GRACE = 15.0
"""Seconds after the end of a call's wait in which the process that created it should have ended it."""


class TakeOvers:
    """The entries of calls that this process does not hold, and the claims on them. The methods raise TokenUsed if
    another process serves the call or another stream is expected, TokenExpired if the call has ended, TokenInvalid if
    it never existed, and StoreError."""

    def __init__(self, parts: CallDependencies, held: LiveCalls, resumes: Resumes) -> None:
        self._parts = parts
        self._held = held
        self._resumes = resumes
        self.running = BackgroundTasks()
        """The claims that are being made."""
        self._stopped = False

    # The entries

    async def waiting(self, call_id: str) -> WaitingCall:
        """The entry of a call that waits for its stream. Raises the errors of the class."""
        waiting = await self._entry(call_id)
        if waiting.served:
            raise TokenUsed(USED_ELSEWHERE)
        return waiting

    async def _entry(self, call_id: str) -> WaitingCall:
        # The order matters. The entry in `store.waiting` is written before the record. If we read the record first, a
        # call that is being opened cannot look like one that another process has claimed (record without entry).
        record = await self._parts.store.get_call(call_id)
        waiting = await self._parts.store.waiting.get(call_id)
        if waiting is None and record is None:
            raise TokenInvalid("no such call")
        if waiting is None:
            record = await self._parts.store.get_call(call_id)
        if record is not None and record.end_reason is not None:
            raise TokenExpired("the call has ended")
        if waiting is not None:
            return waiting
        raise TokenUsed(USED_ELSEWHERE)

    async def entry_for(self, call_id: str, stream: int) -> WaitingCall:
        """The entry of the call. The owner of an active call writes it in the background, so for a later stream it may
        come a moment after the carrier has asked for that stream."""
        until = asyncio.get_running_loop().time() + (TAKE_OVER_TIME if stream > 1 else 0.0)
        while True:
            try:
                entry = await self._entry(call_id)
            except TokenUsed:
                if asyncio.get_running_loop().time() >= until:
                    raise
            else:
                if entry.stream >= stream or asyncio.get_running_loop().time() >= until:
                    return entry
            await asyncio.sleep(LOOK_AGAIN)

    # The claims

    async def take(self, call_id: str, stream: int = 0) -> CallSession:
        """Take over a waiting call; it continues here. Raises the errors of the class, and Unavailable
        after the drain, because the store closes then."""
        if self._stopped:
            raise Unavailable("the connector is shutting down and takes no calls over")
        # Runs as a task so that it is completed even if the client disconnects: the store may have given us the call.
        taking = self.running.start(self._take(call_id, stream), f"take over {call_id}", awaited=True)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(_abandon)
            raise

    async def take_if_waiting(self, call_id: str) -> CallSession | None:
        """As `take`; None if there is no call to take over."""
        try:
            return await self.take(call_id)
        except ConnectUrlError:
            return None

    def stop(self) -> None:
        """Take no more calls over."""
        self._stopped = True

    async def _take(self, call_id: str, stream: int) -> CallSession:
        entry = await self.entry_for(call_id, stream)
        is_gone = self._resumes.is_gone(entry)
        reopens = self._parts.carriers[entry.request.provider].reopens_streams
        if reopens and stream and stream == entry.stream - 1:
            is_gone = await self._resumes.until_lost(entry)
        elif stream not in (0, entry.stream):
            raise TokenUsed(USED_ELSEWHERE)
        # The token of the next stream is issued only after the carrier has ended the stream before it.
        may_be_served = is_gone or (stream != 0 and stream == entry.stream)
        if entry.served and not may_be_served:
            raise TokenUsed(USED_ELSEWHERE)
        return await self._carry_on(await self._claimed(entry, may_be_served=may_be_served))

    async def _claimed(self, entry: WaitingCall, *, may_be_served: bool) -> WaitingCall:
        """Claim the call in the store: of several processes exactly one succeeds. Returns the entry as it was."""
        store = self._parts.store.waiting
        there: WaitingCall | None = entry
        while there is not None and there.stream == entry.stream and (may_be_served or not there.served):
            if self._parts.limits.resume_grace:
                waiting = self._resumes.lost(there)
                if await store.replace(claimed_by(self._parts.owner, waiting), there):
                    return waiting
            else:
                taken = await store.take(entry.id)
                if taken == there:
                    return taken
                if taken is not None:
                    await self._resumes.put_back(taken)
            there = await store.get(entry.id)
        raise TokenUsed(USED_ELSEWHERE)

    async def _carry_on(self, waiting: WaitingCall) -> CallSession:
        call_id = waiting.id
        # Read the record only now: before the claim, other processes could write it.
        try:
            record = await self._parts.store.get_call(call_id)
        except ConnectorError as error:
            log.warning("the record of a call that was taken over cannot be read", call_id=call_id, error=error.message)
            record = None
        if record is not None and record.end_reason is not None:
            raise TokenExpired("the call has ended")
        record = _active(record, waiting) if record is not None else record_of(waiting)
        call = self._held.begin(waiting.request, record, waiting)
        with bind_call(call_id):
            call.learn(waiting)
            log.info("call taken over", owner=waiting.owner)
            # Save at once, so that the old owner, if it restarts, does not end the call as one of its dead ones.
            await call.save()
        return call

    # Calls that no process claims

    async def sweep(self) -> None:
        """End calls that waited too long and were not ended by their owner, so that it must be dead. Raises
        StoreError."""
        for waiting in await self._parts.store.waiting.list():
            # Calls whose stream was lost are looked after by `Resumes`.
            is_return = waiting.stream > 1 and waiting.transfer is None
            if waiting.expires_at + ORPHAN_GRACE >= time.time() or self._held.get(waiting.id) is not None or is_return:
                continue
            try:
                await self._sweep(waiting.id)
            except ConnectorError:
                raise
            except Exception:
                # One call that cannot be ended must not delay the others.
                log.exception("abandoned call could not be ended", call_id=waiting.id)

    async def _sweep(self, call_id: str) -> None:
        call = await self.take_if_waiting(call_id)
        if call is None:
            record = await self._parts.store.get_call(call_id)
            if record is None or record.end_reason is not None:
                # The call has ended, but its entry could not be deleted because the store failed.
                await self._parts.store.waiting.delete(call_id)
        elif call.transfers.is_open:
            await call.transfers.give_up()
        else:
            call.end(EndReason.INTERRUPTED, "the process that owned the waiting call has stopped")


def record_of(waiting: WaitingCall) -> CallRecord:
    """A new record for a call if the store has lost its record, or if the stored one is not used."""
    state = CallState.PENDING if waiting.request.direction is Direction.INBOUND else CallState.RINGING
    is_answered = bool(waiting.started_at) or waiting.transfer is not None
    return replace(
        new_record(waiting.request, waiting.owner),
        state=CallState.ACTIVE if is_answered else state,
        created_at=waiting.created_at,
        started_at=(waiting.started_at or waiting.created_at) if is_answered else 0.0,
        carrier_call_id=waiting.carrier_call_id,
        from_number=waiting.from_number,
        to_number=waiting.to_number,
        account_id=waiting.account_id,
    )


def _active(record: CallRecord, waiting: WaitingCall) -> CallRecord:
    """The record, with the answer of the call if its owner could not save that."""
    if not waiting.started_at or record.state is CallState.ACTIVE:
        return record
    answered = (LifecycleEvent.ANSWERED.value, waiting.started_at)
    return replace(record, state=CallState.ACTIVE, started_at=waiting.started_at, timelog=(*record.timelog, answered))


def _abandon(taking: asyncio.Task[CallSession]) -> None:
    if not taking.cancelled() and taking.exception() is None:
        taking.result().returns.lose(EndReason.CARRIER_LOST, "the WebSocket handshake was cancelled")
