"""Admits calls to this process, finds the call that a carrier asks for (here or in another process), and drains."""

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
from connector.call.registry.live_calls import LiveCalls
from connector.call.registry.resume import Resumes
from connector.call.registry.take_over import TakeOvers, record_of
from connector.call.session.call_session import CallSession
from connector.call.session.returns import Resume
from connector.call.session.wait import USED_ELSEWHERE
from connector.call.session.waiting_entry import place_of, with_facts
from connector.errors import (
    ResourceExhausted,
    TokenUsed,
    Unavailable,
)
from connector.logs import bind_call
from connector.model.call import (
    LIVE_STATES,
    CallFilter,
    CallRecord,
    CallRequest,
    CallState,
    Direction,
    WaitingCall,
)
from connector.model.end_reason import EndReason
from connector.storage.base import NameTaken

log = structlog.get_logger()

LOOK_EVERY = 0.1
MAX_IDENTITY = 256
"""Bytes; livekit-server's limit."""
MOST_SUFFIXES = 1000
MOST_OF_A_ROOM = 1000
"""Maximum number of live calls, per room and state, that are searched for an identity."""


@dataclass(frozen=True, slots=True)
class Expected:
    """A call that waits for its stream, in this or another process."""

    request: CallRequest
    deadline: float
    """Latest Unix time at which the stream may open."""
    stream: int = 1
    """Number of the expected stream within the call, from 1."""
    holder: str = ""
    """The other process whose participant is in the room already; empty: there is none."""


async def nothing_before() -> None:
    """The default of `CallManager.drain`."""


class CallManager:
    """Admits calls, and finds the call that a carrier asks for, wherever it is held."""

    def __init__(self, parts: CallDependencies, max_calls: int, peers: Peers | None = None) -> None:
        self._parts = parts
        self._max_calls = max_calls
        self.held = LiveCalls(parts)
        self.draining = False
        self._drain_is_over = False
        """From now on this process serves no further call: its calls are handed over, or end."""
        self.resumes = Resumes(parts, self.held, peers)
        self.take_overs = TakeOvers(parts, self.held, self.resumes)

    @property
    def full(self) -> bool:
        return len(self.held) >= self._max_calls

    def live(self) -> list[CallSession]:
        """The calls that this process holds."""
        return self.held.all()

    def waiting_of(self, connector_id: str) -> int:
        """Number of calls of this connector that wait for their first stream in this process."""
        return sum(
            call.request.connector_id == connector_id and not call.claimed and call.state is not CallState.ACTIVE
            for call in self.live()
        )

    def count_states(self) -> None:
        """Update the gauge of active calls; called when metrics are read."""
        counts = dict.fromkeys(CallState, 0)
        for call in self.live():
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
            call = self.held.begin(mine)
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
            call.request.participant.identity for call in self.live() if call.record.room == room and not call.is_ending
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
            raise self._is_full()

    async def _admit_stream(self, stream: int) -> None:
        """Whether a call of another process may continue here. As long as this process drains, it carries on with a
        call whose stream comes back to it: a refusal would be one more gap. A call that has not begun is left to the
        others, if there are any. Raises Unavailable and ResourceExhausted."""
        if self._drain_is_over or (self.draining and stream <= 1 and await self.resumes.leaves_waiting_calls()):
            raise Unavailable("the connector is shutting down: another process is to serve the call")
        if self.full:
            raise self._is_full()

    def _is_full(self) -> ResourceExhausted:
        return ResourceExhausted(f"the connector holds {self._max_calls} calls, its configured maximum")

    async def record(self, call_id: str) -> CallRecord | None:
        """The record of a call, including changes that this process has not saved yet; None if there never was such a
        call. Raises StoreError."""
        return self.held.known_record(call_id) or await self._parts.store.get_call(call_id)

    # The stream's way to its call, wherever that is held

    async def expected(self, call_id: str, stream: int = 0) -> Expected:
        """The call for which the stream is expected. `stream`: its number, from the token; 0: not known. Raises
        TokenUsed if another stream is expected, or another process carries the call, TokenExpired if it has ended,
        TokenInvalid if it never existed."""
        call = await self._held(call_id, stream)
        if call is not None:
            # For a call with a stream here, `claim` raises TokenUsed; its answer document may be fetched again.
            wait = call.wait
            is_former = stream == wait.stream - 1 and call.state is CallState.ACTIVE
            if stream not in (0, wait.stream) and not is_former:
                raise TokenUsed("this connect_url has been used by a WebSocket")
            deadline = math.inf if call.claimed or is_former else call.deadline
            return Expected(call.request, deadline, stream or wait.stream)
        waiting = await self.take_overs.entry_for(call_id, stream)
        if stream and stream == waiting.stream - 1:
            # The carrier opens the URL of a stream again, or fetches its document again: `claim` knows more.
            return Expected(waiting.request, math.inf, stream, self._holder(waiting))
        if stream not in (0, waiting.stream) or (waiting.served and not stream):
            raise TokenUsed(USED_ELSEWHERE)
        deadline = math.inf if waiting.served else waiting.expires_at
        return Expected(waiting.request, deadline, waiting.stream, self._holder(waiting))

    def _holder(self, waiting: WaitingCall) -> str:
        is_in_the_room = waiting.request.direction is Direction.OUTBOUND or waiting.started_at > 0
        return waiting.owner if is_in_the_room and not self.resumes.is_gone(waiting) else ""

    async def _held(self, call_id: str, stream: int) -> CallSession | None:
        """The call, if this process holds it. If it waits here for an earlier stream than that with this number,
        another process may have claimed it, and may have died since."""
        call = self.held.get(call_id)
        if call is not None and stream > call.wait.stream and await call.has_moved():
            return None
        return call

    async def resume(self, call_id: str, stream: int, *, carrier_let_go: bool) -> Resume:
        """The carrier asks how the phone goes on, after the stream with this number is over as far as its document is
        concerned. Any process may be asked. `carrier_let_go`: the request itself proves that the stream has ended;
        otherwise the carrier asks in regular intervals. The same request again gets the same answer.

        Raises TokenInvalid if there never was such a call, and StoreError: then the carrier should ask again.
        """
        call = await self._held(call_id, stream + 1)
        if call is not None and not call.finished.is_set():
            with bind_call(call_id):
                return call.resume(stream, carrier_let_go=carrier_let_go)
        return await self.resumes.resume(call_id, stream, carrier_let_go=carrier_let_go)

    async def stream_of(self, call_id: str) -> int:
        """Number of the call's current or latest stream; before the first one has started, 1. Raises StoreError."""
        call = self.held.get(call_id)
        if call is not None:
            return call.streams.number
        entry = await self._parts.store.waiting.get(call_id)
        if entry is None:
            return 1
        return entry.stream - 1 if entry.stream > 1 else entry.stream

    async def fetched(
        self, call_id: str, carrier_call_id: str, from_number: str, to_number: str, account_id: str = ""
    ) -> None:
        """The carrier fetched the answer document. Raises the errors of `expected`, and TokenUsed if another carrier
        call fetched it before."""
        call = self.held.get(call_id)
        if call is not None:
            await call.fetched(carrier_call_id, from_number, to_number, account_id)
            return
        while True:
            waiting = await self.take_overs.waiting(call_id)
            known = waiting.carrier_call_id
            if carrier_call_id and known and carrier_call_id != known:
                raise TokenUsed("this connect_url belongs to another carrier call")
            recorder = CallRecorder(waiting.request, self._parts, record_of(waiting))
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
        call = await self._held(call_id, stream)
        if call is not None:
            await call.claim(stream)
            return call
        await self._admit_stream(stream)
        return await self.take_overs.take(call_id, stream)

    async def end_waiting(self, call_id: str, reason: EndReason, detail: str = "") -> CallSession | None:
        """End a call that waits for its stream in another process; None if there is no such call. Raises StoreError,
        and Unavailable if this process is about to stop."""
        call = await self.take_overs.take_if_waiting(call_id)
        if call is not None:
            call.end(reason, detail)
        return call

    async def carrier_said(self, call_id: str, status: str, number: int) -> CallSession | None:
        """Handle a carrier's report, see `CallSession.carrier_said`. A final report takes a waiting call over from
        another process. Return the call if this process holds it now. Raises the errors of `end_waiting`."""
        call = self.held.get(call_id)
        if call is None and status in FINAL_STATUSES:
            call = await self.take_overs.take_if_waiting(call_id)
        if call is not None:
            call.carrier_said(status, number)
        return call

    async def until_over(self, call_id: str, seconds: float) -> bool:
        """Wait up to `seconds` for the end of a call of any process; return whether it ended. Raises StoreError."""
        ends = time.monotonic() + seconds
        while True:
            call = self.held.get(call_id)
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
        call = self.held.get(call_id)
        if call is not None:
            call.is_elsewhere(True)
        await self._parts.hang_ups.withdraw(call_id)

    async def phone_has_stayed(self, call_id: str) -> None:
        """Undo `phone_is_back`: it was a repeated request, and the phone is where it was. Raises StoreError."""
        call = self.held.get(call_id)
        if call is not None:
            call.is_elsewhere(False)
        await self._parts.hang_ups.allow(call_id)

    # The end

    def begin_drain(self) -> None:
        """Accept no new calls from now on."""
        self.draining = True

    async def drain(self, limit: float, before_hand_over: Callable[[], Awaitable[None]] = nothing_before) -> None:
        """Accept no new calls, wait up to `limit` seconds for live calls to finish, then hand them over to another
        process; without one, end them and wait until they have ended. Unsaved final records are tried a last time.

        Processes that drain do not count as others: without a living one, the calls end.

        `before_hand_over`: closes the doors, so that carriers that come back reach another process."""
        self.begin_drain()
        if self.held and limit:
            log.info("draining", calls=len(self.held), limit_seconds=limit)
            try:
                await asyncio.wait_for(self.held.until_none(), limit)
            except TimeoutError:
                log.warning("drain limit reached, ending live calls", calls=len(self.held))
        self._drain_is_over = True
        if self.held and await self.resumes.has_others():
            await before_hand_over()
            await self.resumes.hand_over(self.live())
        while self.held or self.take_overs.running:
            self.end_all()
            await self.held.until_none()
            await self.take_overs.running.wait()
        # No `await` since the last check, so no call can have been added.
        self.take_overs.stop()
        await self.held.late.close()

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
