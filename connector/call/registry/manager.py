"""All calls of this process, and access to calls of other processes: admission, look-up, take-over, drain."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import structlog

from connector.call.dependencies import FINAL_STATUSES, CallDependencies
from connector.call.ports import Peers
from connector.call.record.call_recorder import CallRecorder
from connector.call.record.changes import new_record
from connector.call.record.late_ends import LateEnds
from connector.call.registry.resume import LOOK_AGAIN, TAKE_OVER_TIME, Resumes
from connector.call.session.call_session import CallSession
from connector.call.session.returns import Resume
from connector.call.session.transfer import WayBack
from connector.call.session.wait import place_of, with_facts
from connector.errors import (
    ConnectorError,
    ConnectUrlError,
    ResourceExhausted,
    TokenExpired,
    TokenInvalid,
    TokenUsed,
    Unavailable,
)
from connector.logs import bind_call
from connector.model.call import (
    LIVE_STATES,
    NOT_REACHED,
    CallFilter,
    CallRecord,
    CallRequest,
    CallState,
    Direction,
    Transfer,
    TransferStatus,
    WaitingCall,
)
from connector.model.end_reason import EndReason
from connector.model.webhook import LifecycleEvent
from connector.storage.base import NameTaken
from connector.tasks import BackgroundTasks

log = structlog.get_logger()

LOOK_EVERY = 0.1
MAX_IDENTITY = 256
"""Bytes; livekit-server's limit."""
MOST_SUFFIXES = 1000
MOST_OF_A_ROOM = 1000
"""Maximum number of live calls, per room and state, that are searched for an identity."""
ORPHAN_GRACE = 15.0
"""Seconds after the end of a call's wait in which the process that created it should have ended it."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A call that waits for its stream, in this or another process."""

    request: CallRequest
    deadline: float
    """Latest Unix time at which the stream may open."""
    stream: int = 1
    """Number of the expected stream within the call, from 1."""


async def nothing_before() -> None:
    """The default of `CallManager.drain`."""


class CallManager:
    """Holds every live call of this process, until the call's resources are released."""

    def __init__(self, parts: CallDependencies, max_calls: int, peers: Peers | None = None) -> None:
        self._parts = parts
        self._max_calls = max_calls
        self.taken = 0
        """Number of calls that this process has held since its start."""
        self._calls: dict[str, CallSession] = {}
        self._late = LateEnds(parts)
        self._empty = asyncio.Event()
        self._empty.set()
        self.draining = False
        self._drained = False
        self._taking = BackgroundTasks()
        self._resumes = Resumes(parts, self, peers)

    @property
    def full(self) -> bool:
        return len(self._calls) >= self._max_calls

    def live(self) -> list[CallSession]:
        return list(self._calls.values())

    def waiting_of(self, connector_id: str) -> int:
        """Number of calls of this connector that wait for their first stream in this process."""
        return sum(
            call.request.connector_id == connector_id and not call.claimed and call.state is not CallState.ACTIVE
            for call in self._calls.values()
        )

    def count_states(self) -> None:
        """Update the gauge of active calls; called when metrics are read."""
        counts = dict.fromkeys(CallState, 0)
        for call in self._calls.values():
            counts[call.state] += 1
        for state in LIVE_STATES:
            self._parts.metrics.active.labels(state.value).set(counts[state])
        self._parts.metrics.joins_waiting.set(self._parts.joins.waiting)

    async def create(self, request: CallRequest) -> CallSession:
        """Admit and open a call. Raises Unavailable, ResourceExhausted, or an error that LiveKit's state causes.

        If another phone of ours is in the room with this identity, it stays there and the new one gets a suffix."""
        self._admit()
        started = time.monotonic()
        call = await self._open(request)
        self._parts.metrics.setup.labels("api", request.direction.value).observe(time.monotonic() - started)
        return call

    async def _open(self, request: CallRequest) -> CallSession:
        taken = await self._identities(request)
        for wanted in suffixed(request.participant.identity):
            if wanted in taken:
                continue
            if wanted != request.participant.identity:
                log.warning("another phone in the room has this identity: the new phone gets a suffix", identity=wanted)
            self._admit()
            mine = replace(request, participant=replace(request.participant, identity=wanted))
            self._parts.joins.expect(request.call_id)
            call = self._hold(CallSession(mine, self._parts, self._finished))
            try:
                await call.open()
            except NameTaken as error:
                # Another call with this identity was requested at the same moment, perhaps at another process.
                if error.name != place_of(mine):
                    raise
                await call.finished.wait()
                continue
            return call
        raise ResourceExhausted("too many calls of one room have this identity")

    async def _identities(self, request: CallRequest) -> set[str]:
        """Identities of the phones that are in the room, or about to join it."""
        room = request.room
        taken = {
            call.request.participant.identity
            for call in self._calls.values()
            if call.record.room == room and not call.is_ending
        }
        for state in LIVE_STATES:
            where = CallFilter(room=room, state=state)
            records = await self._parts.store.list_calls(MOST_OF_A_ROOM, where)
            taken |= {record.identity for record in records if record.call_id != request.call_id}
        return taken

    def _admit(self) -> None:
        if self.draining:
            raise Unavailable("the connector is shutting down and takes no new calls")
        if self.full:
            raise ResourceExhausted(f"the connector holds {self._max_calls} calls, its configured maximum")

    def _hold(self, call: CallSession) -> CallSession:
        self._calls[call.call_id] = call
        self.taken += 1
        self._empty.clear()
        return call

    def _finished(self, call: CallSession) -> None:
        self._calls.pop(call.call_id, None)
        if call.late_end is not None:
            self._late.keep(call.late_end)
        if not self._calls:
            self._empty.set()

    def live_call(self, call_id: str) -> CallSession | None:
        """The call, if this process holds it; otherwise None."""
        return self._calls.get(call_id)

    def known_record(self, call_id: str) -> CallRecord | None:
        """The record of a call that this process holds, or has ended without being able to save the end yet."""
        call = self._calls.get(call_id)
        return call.record if call is not None else self._late.get(call_id)

    # The stream's way to its call, wherever that is held

    async def expected(self, call_id: str, stream: int = 0) -> Expected:
        """The call for which the stream is expected. `stream`: its number, from the token; 0: not known. Raises
        TokenUsed if another stream is expected, or another process carries the call, TokenExpired if it has ended,
        TokenInvalid if it never existed."""
        call = self._calls.get(call_id)
        if call is not None:
            # For a call with a stream here, `claim` raises TokenUsed; its answer document may be fetched again.
            wait = call.wait
            is_former = stream == wait.stream - 1 and call.state is CallState.ACTIVE
            if stream not in (0, wait.stream) and not is_former:
                raise TokenUsed("this connect_url has been used by a WebSocket")
            deadline = math.inf if call.claimed or is_former else call.deadline
            return Expected(call.request, deadline, stream or wait.stream)
        waiting = await self._entry_for(call_id, stream)
        if stream and stream == waiting.stream - 1 and waiting.started_at:
            # The carrier opens the URL of a stream again, or fetches its document again: `claim` knows more.
            return Expected(waiting.request, math.inf, stream)
        if stream not in (0, waiting.stream) or (waiting.served and not stream):
            raise TokenUsed("this connect_url has been used by a WebSocket, on another process")
        return Expected(waiting.request, math.inf if waiting.served else waiting.expires_at, waiting.stream)

    async def resume(self, call_id: str, stream: int, *, carrier_let_go: bool) -> Resume:
        """The carrier asks how the phone goes on, after the stream with this number is over as far as its document is
        concerned. Any process may be asked. `carrier_let_go`: the request itself proves that the stream has ended;
        otherwise the carrier asks in regular intervals. The same request again gets the same answer.

        Raises TokenInvalid if there never was such a call, and StoreError: then the carrier should ask again.
        """
        call = self._calls.get(call_id)
        if call is not None and not call.finished.is_set():
            with bind_call(call_id):
                return call.resume(stream, carrier_let_go=carrier_let_go)
        return await self._resumes.resume(call_id, stream, carrier_let_go=carrier_let_go)

    async def stream_of(self, call_id: str) -> int:
        """Number of the call's current or latest stream; before the first one has started, 1. Raises StoreError."""
        call = self._calls.get(call_id)
        if call is not None:
            return call.stream
        entry = await self._parts.store.waiting.get(call_id)
        if entry is None:
            return 1
        return entry.stream - 1 if entry.stream > 1 else entry.stream

    async def fetched(
        self, call_id: str, carrier_call_id: str, from_number: str, to_number: str, account_id: str = ""
    ) -> None:
        """The carrier fetched the answer document. Raises the errors of `expected`, and TokenUsed if another carrier
        call fetched it before."""
        call = self._calls.get(call_id)
        if call is not None:
            await call.fetched(carrier_call_id, from_number, to_number, account_id)
            return
        while True:
            waiting = await self._waiting(call_id)
            known = waiting.carrier_call_id
            if carrier_call_id and known and carrier_call_id != known:
                raise TokenUsed("this connect_url belongs to another carrier call")
            recorder = CallRecorder(waiting.request, self._parts, _record_of(waiting))
            grace = self._parts.limits.answer_grace
            extended = with_facts(waiting, recorder, carrier_call_id, from_number, to_number, account_id, grace)
            # Two carrier calls may fetch it at the same time, from different processes.
            if await self._parts.store.waiting.replace(extended, waiting):
                break
        log.info("answer document fetched for another process", owner=waiting.owner)

    async def claim(self, call_id: str, stream: int = 0) -> CallSession:
        """Claim the call for one WebSocket, before the handshake is answered. `stream`: its number, from the token; 0:
        the expected one. Raises the errors of `expected`.

        A call that waits in another process, or whose process is gone, is taken over: it continues here. A second
        socket of a stream waits until the first one is known to be lost, and is refused if it lives.
        """
        call = self._calls.get(call_id)
        if call is not None:
            await call.claim(stream)
            return call
        self._admit()
        return await self._take_over(call_id, stream)

    async def end_waiting(self, call_id: str, reason: EndReason, detail: str = "") -> CallSession | None:
        """End a call that waits for its stream in another process; None if there is no such call. Raises StoreError,
        and Unavailable if this process is about to stop."""
        call = await self._taken_over(call_id)
        if call is not None:
            call.end(reason, detail)
        return call

    async def carrier_said(self, call_id: str, status: str, number: int) -> CallSession | None:
        """Handle a carrier's report, see `CallSession.carrier_said`. A final report takes a waiting call over from
        another process. Return the call if this process holds it now. Raises the errors of `end_waiting`."""
        call = self._calls.get(call_id)
        if call is None and status in FINAL_STATUSES:
            call = await self._taken_over(call_id)
        if call is not None:
            call.carrier_said(status, number)
        return call

    async def until_over(self, call_id: str, seconds: float) -> bool:
        """Wait up to `seconds` for the end of a call of any process; return whether it ended. Raises StoreError."""
        ends = time.monotonic() + seconds
        while True:
            call = self._calls.get(call_id)
            if call is None:
                record = await self._parts.store.get_call(call_id)
                if record is None or record.end_reason is not None:
                    return True
            left = ends - time.monotonic()
            if left <= 0:
                return False
            try:
                # Other processes send no notification, so the record is polled.
                await asyncio.wait_for(call.finished.wait() if call else asyncio.sleep(60), min(left, LOOK_EVERY))
            except TimeoutError:
                continue

    async def phone_is_back(self, call_id: str) -> None:
        """The carrier asks for instructions for the phone of a call that has, or had, a stream: no process may hang the
        phone up when that stream ends. Raises StoreError."""
        call = self._calls.get(call_id)
        if call is not None:
            call.is_elsewhere(True)
        await self._parts.hang_ups.withdraw(call_id)

    async def phone_has_stayed(self, call_id: str) -> None:
        """Undo `phone_is_back`: it was a repeated request, and the phone is where it was. Raises StoreError."""
        call = self._calls.get(call_id)
        if call is not None:
            call.is_elsewhere(False)
        await self._parts.hang_ups.allow(call_id)

    # What a carrier tells of a transfer, wherever the call is held

    async def transfer_over(
        self, call_id: str, stream: int, status: TransferStatus, *, caller_left: bool
    ) -> WayBack | None:
        """The transfer's dial has ended: return the carrier's instructions for the phone; None: hang up. `stream` is
        the number of the stream with which the phone would come back. Raises StoreError."""
        call = self._calls.get(call_id)
        if call is not None:
            return await call.transfers.over(status, caller_left) if call.wait.stream == stream else None
        waiting = await self._parts.store.waiting.get(call_id)
        if waiting is None or waiting.transfer is None or waiting.stream != stream:
            return None
        transfer = waiting.transfer
        if status is TransferStatus.ANSWERED or caller_left or transfer.say:
            call = await self._taken_over(call_id)
            return await call.transfers.over(status, caller_left) if call is not None else None
        if transfer.status not in NOT_REACHED:
            # The owner reads this status when the stream comes back, or when its time is over.
            deadline = max(waiting.expires_at, time.time() + self._parts.limits.answer_grace)
            waiting = replace(waiting, transfer=replace(transfer, status=status), expires_at=deadline)
            if not await self._parts.store.waiting.replace(waiting):
                return None
            log.info("failed transfer recorded for another process", owner=waiting.owner, status=status.value)
        return WayBack("", stream, waiting.expires_at, waiting.request.region)

    async def transfer_order(self, call_id: str, stream: int) -> Transfer | None:
        """The current transfer of a call; None if there is none. Raises StoreError."""
        call = self._calls.get(call_id)
        if call is not None:
            return call.wait.transfer if call.transfers.is_open and call.wait.stream == stream else None
        waiting = await self._parts.store.waiting.get(call_id)
        return waiting.transfer if waiting is not None and waiting.stream == stream else None

    async def transfer_progress(self, call_id: str, stream: int, status: TransferStatus) -> None:
        """Handle the report that the number rings, or that somebody has answered. Raises StoreError."""
        call = self._calls.get(call_id)
        if call is None and status is TransferStatus.ANSWERED:
            waiting = await self._parts.store.waiting.get(call_id)
            if waiting is not None and waiting.stream == stream:
                call = await self._taken_over(call_id)
        if call is not None and call.wait.stream == stream:
            await call.transfers.progress(status)

    async def _taken_over(self, call_id: str) -> CallSession | None:
        try:
            return await self._take_over(call_id)
        except ConnectUrlError:
            return None

    async def _waiting(self, call_id: str) -> WaitingCall:
        """The entry of a call that waits for its stream. Raises the errors of `expected`."""
        waiting = await self._entry(call_id)
        if waiting.served:
            raise TokenUsed("this connect_url has been used by a WebSocket, on another process")
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
        raise TokenUsed("this connect_url has been used by a WebSocket, on another process")

    async def _entry_for(self, call_id: str, stream: int) -> WaitingCall:
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

    async def _take_over(self, call_id: str, stream: int = 0) -> CallSession:
        """Take over a waiting call; it continues here. Raises the errors of `expected`, and Unavailable after the
        drain, because the store closes then."""
        if self._drained:
            raise Unavailable("the connector is shutting down and takes no calls over")
        # Runs as a task so that it is completed even if the client disconnects: the store may have given us the call.
        taking = self._taking.start(self._take(call_id, stream), f"take over {call_id}", awaited=True)
        try:
            return await asyncio.shield(taking)
        except asyncio.CancelledError:
            taking.add_done_callback(_abandon)
            raise

    async def _take(self, call_id: str, stream: int) -> CallSession:
        entry = await self._entry_for(call_id, stream)
        is_gone = self._resumes.is_gone(entry)
        reopens = self._parts.carriers[entry.request.provider].reopens_streams
        if reopens and stream and stream == entry.stream - 1 and entry.started_at:
            is_gone = await self._resumes.until_lost(entry)
        elif stream not in (0, entry.stream):
            raise TokenUsed("this connect_url has been used by a WebSocket, on another process")
        # The token of the next stream is only given out when the carrier has let go of the one before.
        may_be_served = is_gone or (stream != 0 and stream == entry.stream)
        if entry.served and not may_be_served:
            raise TokenUsed("this connect_url has been used by a WebSocket, on another process")
        waiting = await self._parts.store.waiting.take(call_id)
        if waiting is not None and (waiting.stream != entry.stream or (waiting.served and not may_be_served)):
            await self._resumes.put_back(waiting)
            waiting = None
        if waiting is None:
            raise TokenUsed("this connect_url has been used by a WebSocket, on another process")
        return await self._carry_on(waiting)

    async def _carry_on(self, taken: WaitingCall) -> CallSession:
        call_id, waiting = taken.id, self._resumes.lost(taken)
        # Read the record only now: before the claim, other processes could write it.
        try:
            record = await self._parts.store.get_call(call_id)
        except ConnectorError as error:
            log.warning("the record of a call that was taken over cannot be read", call_id=call_id, error=error.message)
            record = None
        if record is not None and record.end_reason is not None:
            raise TokenExpired("the call has ended")
        record = _active(record, waiting) if record is not None else _record_of(waiting)
        call = self._hold(CallSession(waiting.request, self._parts, self._finished, record, waiting))
        with bind_call(call_id):
            call.learn(waiting)
            log.info("call taken over", owner=waiting.owner)
            # Save at once, so that the old owner, if it restarts, does not end the call as one of its dead ones.
            await call.save()
        return call

    async def sweep(self) -> None:
        """End calls that waited too long and were not ended by their owner, so that it must be dead. Raises
        StoreError."""
        for waiting in await self._parts.store.waiting.list():
            # Calls whose stream was lost are looked after by `Resumes`.
            is_return = waiting.started_at and waiting.transfer is None
            if waiting.expires_at + ORPHAN_GRACE >= time.time() or waiting.id in self._calls or is_return:
                continue
            try:
                await self._sweep(waiting.id)
            except ConnectorError:
                raise
            except Exception:
                # One call that cannot be ended must not keep the others waiting.
                log.exception("abandoned call could not be ended", call_id=waiting.id)

    async def _sweep(self, call_id: str) -> None:
        call = await self._taken_over(call_id)
        if call is None:
            record = await self._parts.store.get_call(call_id)
            if record is None or record.end_reason is not None:
                # The call has ended, but its entry could not be deleted because the store failed.
                await self._parts.store.waiting.delete(call_id)
        elif call.transfers.is_open:
            await call.transfers.give_up()
        else:
            call.end(EndReason.INTERRUPTED, "the process that owned the waiting call has stopped")

    async def look(self) -> None:
        """See `Resumes.look`."""
        await self._resumes.look()

    async def close(self) -> None:
        """Stop the work in the background that belongs to no call of this process."""
        await self._resumes.close()

    # The end

    async def has_heirs(self) -> bool:
        """Whether another process can carry on with the calls of this one."""
        return await self._resumes.has_others()

    async def drain(self, limit: float, before_hand_over: Callable[[], Awaitable[None]] = nothing_before) -> None:
        """Accept no new calls, wait up to `limit` seconds for live calls to finish, then hand them over to another
        process; without one, end them and wait until they have ended. Unsaved final records are tried a last time.

        `before_hand_over`: closes the doors, so that carriers that come back reach another process."""
        self.draining = True
        if self._calls and limit:
            log.info("draining", calls=len(self._calls), limit_seconds=limit)
            try:
                await asyncio.wait_for(self._empty.wait(), limit)
            except TimeoutError:
                log.warning("drain limit reached, ending live calls", calls=len(self._calls))
        if self._calls and await self.has_heirs():
            await before_hand_over()
            await self._resumes.hand_over(self.live())
        while self._calls or self._taking:
            self.end_all()
            await self._empty.wait()
            await self._taking.wait()
        # No `await` since the last check, so no call can have been added.
        self._drained = True
        await self._late.close()

    def end_all(self) -> None:
        """Request the end of every live call; each runs its own teardown."""
        for call in self.live():
            call.end(EndReason.SHUTDOWN)


def suffixed(identity: str) -> Iterator[str]:
    """Yield the identity, then the identity with a number appended; each is short enough for LiveKit."""
    yield identity
    for number in range(2, MOST_SUFFIXES):
        suffix = f"-{number}"
        yield identity.encode()[: MAX_IDENTITY - len(suffix)].decode(errors="ignore") + suffix


def _record_of(waiting: WaitingCall) -> CallRecord:
    """A new record for a call if the store has lost its record, or if the stored one is not used."""
    state = CallState.PENDING if waiting.request.direction is Direction.INBOUND else CallState.RINGING
    return replace(
        new_record(waiting.request, waiting.owner),
        state=CallState.ACTIVE if waiting.stream > 1 else state,
        created_at=waiting.created_at,
        started_at=(waiting.started_at or waiting.created_at) if waiting.stream > 1 else 0.0,
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
        taking.result().lose(EndReason.CARRIER_LOST, "the WebSocket handshake was cancelled")
