"""One call: from the request for it until all its resources are released.

The parts: `Lifetime` (the one end, and the call's tasks), `Wait` (waits for the stream; which process owns the call),
`Streams` (the media sockets, each with its `StreamReader`), `Answer` (connects the phone with the room), `Presence`
(the room), `PhoneLeg` (the phone, through the carrier's REST API), `Transfers`, `Returns`, `CallRecorder` (record and
events), `Teardown`. The path of audio from the WebSocket to the room: `StreamReader.read`, `Bridge.from_carrier`,
`Presence.capture`.

A call may continue after its stream has ended: `Streams.detach` releases the stream, the participant stays in the room,
and a later `claim` and `carry` attach a new stream. That is so for a transfer (`Transfers`), and for a stream that was
lost (`Returns`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

import structlog

from connector.call.dependencies import IN_PROGRESS, CallDependencies
from connector.call.media.bridge import Bridge
from connector.call.media.digits import DigitRelay
from connector.call.media.media_stream import MediaStream
from connector.call.ports import CarrierSocket
from connector.call.record.call_recorder import CallRecorder
from connector.call.record.changes import CallEnd
from connector.call.session.answer import Answer
from connector.call.session.call_watch import CallWatch
from connector.call.session.lifetime import Lifetime
from connector.call.session.moves import Moves
from connector.call.session.opening import open_call
from connector.call.session.phone_leg import PhoneLeg
from connector.call.session.presence import Presence
from connector.call.session.returns import Resume, Returns
from connector.call.session.streams import Streams
from connector.call.session.teardown import Teardown
from connector.call.session.transfer import AWAY as TRANSFERRING
from connector.call.session.transfer import Transfers
from connector.call.session.transfer_progress import CallTransfer
from connector.call.session.wait import Stage, Wait
from connector.errors import FailedPrecondition, ResourceExhausted, TokenExpired, TokenUsed, Unavailable
from connector.logs import bind_call
from connector.model.call import AgentDispatch, CallRecord, CallRequest, CallState, Transfer, WaitingCall
from connector.model.end_reason import EndReason

log = structlog.get_logger()

FALLBACK_RING = 30
"""Seconds for which the fallback number (for calls without an agent) rings."""


class CallSession:
    """See the module. First `open`, then the media socket uses `claim` and `carry`. Anyone may call `end`."""

    def __init__(
        self,
        request: CallRequest,
        parts: CallDependencies,
        on_finished: Callable[[CallSession], None],
        record: CallRecord | None = None,
        waiting: WaitingCall | None = None,
    ) -> None:
        """`record`, `waiting`: given if this process has claimed the call from another process."""
        self._parts = parts
        self._on_finished = on_finished
        self._recorder = CallRecorder(request, parts, record)
        self.request = self._recorder.request
        self._life = Lifetime(self.call_id)
        self.finished = self._life.finished
        self.settled = asyncio.Event()
        """Set when the phone was answered, or when it is certain that it will not be."""
        codec = parts.new_codec(request.provider)
        self.watch = CallWatch(self._life, parts, self._recorder, self._transfer_for_good)
        self.presence = Presence(parts, self._recorder, codec, self.room_ended, self.watch)
        self._leg = PhoneLeg(parts, self._recorder)
        self._moves = Moves(self._recorder, self.presence)
        digits = DigitRelay(self.presence.send_dtmf, parts.metrics)
        self.streams = Streams(self._life, parts, self._recorder, self.presence, codec, digits, self._wait(waiting))
        self.returns = Returns(self._life, self.streams, self.watch, parts, self._recorder, self.presence)
        self.transfers = Transfers(
            self._life, self.streams, self.returns, self.watch, parts, self._recorder, self._leg, self.presence
        )
        answer = Answer(
            self._life,
            self.streams,
            parts,
            self._recorder,
            self.presence,
            self._leg,
            self._moves,
            digits,
            self._is_answered,
        )
        self.streams.on_started, self.streams.on_refused = answer.started, answer.refused
        self.streams.on_over = self._on_stream_over
        self._runs = False
        """The watchdog and the timer for the longest call run."""
        self._leg.may_be_held = self._recorder.inherited
        if waiting is not None and waiting.transfer is not None:
            self.transfers.resume(waiting.transfer)
        elif waiting is not None and waiting.stream > 1 and self.record.started_at:
            # Without `started_at`, its process was lost between claim and answer: this is the first stream again.
            self.returns.inherit(waiting)
        self._teardown = Teardown(
            parts,
            self._recorder,
            self.streams,
            self.presence,
            self._leg,
            self.transfers,
            self.watch,
            self._moves,
        )
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.call_id}")

    def _wait(self, waiting: WaitingCall | None) -> Wait:
        recorder, store = self._recorder, self._parts.store
        can_return = bool(self._parts.limits.resume_grace)
        if recorder.inherited:
            taken = (waiting.stream, waiting.transfer, waiting.returns) if waiting else (1, None, ())
            wait = Wait.taken(recorder, store, *taken, can_return=can_return)
        else:
            seconds = self._parts.limits.connect_timeout
            wait = Wait(recorder, store, seconds, self._on_connect_timeout, can_return=can_return)
        wait.on_taken = self._life.taken_over
        return wait

    @property
    def call_id(self) -> str:
        return self.request.call_id

    @property
    def bridge(self) -> Bridge:
        return self.presence.bridge

    @property
    def wait(self) -> Wait:
        """See `Streams.wait`."""
        return self.streams.wait

    @property
    def is_ending(self) -> bool:
        return self._life.is_ending

    @property
    def record(self) -> CallRecord:
        return self._recorder.record

    @property
    def state(self) -> CallState:
        return self.record.state

    @property
    def late_end(self) -> CallEnd | None:
        """The end that is not yet in the store because the store did not answer. None if another process may own the
        call: this process must own it, or no event of the call was published."""
        end = self._recorder.unwritten
        return end if end is not None and (self.wait.is_certain or end.event is None) else None

    @property
    def claimed(self) -> bool:
        return self.wait.claimed

    @property
    def deadline(self) -> float:
        """Latest Unix time at which the stream may open."""
        return self.wait.deadline

    # Before the stream

    async def open(self) -> None:
        """Create the resources for the call's direction. Raises the error for the client, at most OPEN_LIMIT seconds
        after the call's turn to join. An outbound call may have to wait for its turn."""
        with bind_call(self.call_id):
            await open_call(self._life, self._parts, self._recorder, self.presence, self.wait)
            self._leg.may_be_held = True

    async def fetched(self, carrier_call_id: str, from_number: str, to_number: str, account_id: str = "") -> None:
        """The carrier fetched the answer document: the callee has picked up. Empty strings are ignored.

        Raises TokenUsed if another carrier call fetched it before: one connect_url serves one call.
        """
        known = self.record.carrier_call_id
        if carrier_call_id and known and carrier_call_id != known:
            raise TokenUsed("this connect_url belongs to another carrier call")
        self._recorder.learn(
            carrier_call_id=carrier_call_id, from_number=from_number, to_number=to_number, account_id=account_id
        )
        with bind_call(self.call_id):
            if not self.claimed and not self.is_ending:
                await self.extend_deadline(self._parts.limits.answer_grace)
            log.info("answer document fetched", **{"from": self.record.from_number, "to": self.record.to_number})

    async def dial(self, place: Callable[[], Awaitable[tuple[str, str]]], from_number: str, to_number: str) -> None:
        """See `PhoneLeg.dial`. Raises the errors of `place`, and Unavailable if the call has ended."""
        if self.is_ending:
            raise Unavailable("the call ended before the phone was called")
        await self._leg.dial(place, from_number, to_number)
        if await self.wait.update():
            await self._recorder.save()

    async def extend_deadline(self, seconds: float) -> None:
        """Give the stream at least `seconds` from now to open."""
        self.wait.extend(seconds)
        await self.wait.update()

    def carrier_said(self, status: str, number: int) -> None:
        """Handle a progress report of the carrier. `status` is one of the words common to all carriers; `number` counts
        the reports, which may arrive out of order."""
        reason = self._leg.said(status, number)
        if status == IN_PROGRESS:
            self.settled.set()
        # While there is a stream, its own end gives a more exact reason than the report that follows.
        if reason is not None and self.streams.current is None:
            self.end(reason, f"the carrier reports {status}")

    def check_claimable(self) -> None:
        """Raise TokenUsed or TokenExpired if `claim` would raise them."""
        if self.claimed:
            raise TokenUsed("this connect_url has been used by a WebSocket")
        if self.is_ending:
            raise TokenExpired("the call has ended")

    async def claim(self, stream: int = 0) -> None:
        """Claim the call for one WebSocket: first among those of this process, then among all processes. Raises
        TokenUsed for every other WebSocket. `stream`: the number of the stream in its token; 0: the expected one."""
        if self.returns.is_handed_over:
            raise Unavailable("the connector is shutting down: another process is to carry on")
        if self.wait.stage is Stage.SERVED and stream == self.wait.stream:
            # Another process has told the carrier to come back, since it took this one for dead.
            self.returns.begin(EndReason.CARRIER_LOST, "the carrier opens the next stream")
        elif self._reopens and stream and stream == self.wait.stream - 1 and not self.transfers.is_open:
            await self.returns.until_free()
        elif stream and stream != self.wait.stream:
            raise TokenUsed("this connect_url has been used by a WebSocket")
        self.check_claimable()
        wait = self.wait
        wait.mark()
        try:
            await wait.take(for_stream=True)
        except TokenUsed:
            self._life.taken_over()
            raise
        except BaseException as error:
            self.returns.lose(EndReason.CARRIER_LOST, f"the WebSocket could not be accepted: {error!r}")
            raise
        if wait is not self.wait:
            raise TokenUsed("the carrier has closed this stream in the meantime")

    async def has_moved(self) -> bool:
        """Whether another process has claimed the call while it waited here. Then it has ended here; usually the next
        look at the store would have shown it."""
        if not await self.wait.is_claimed_elsewhere():
            return False
        self._life.taken_over()
        await self.finished.wait()
        return True

    @property
    def _reopens(self) -> bool:
        return self._parts.carriers[self.request.provider].reopens_streams

    def resume(self, stream: int, *, carrier_let_go: bool) -> Resume:
        """See `CallManager.resume`."""
        return self.returns.asked(stream, carrier_let_go=carrier_let_go, in_transfer=self.transfers.is_open)

    def learn(self, waiting: WaitingCall) -> None:
        """Take over the facts that other processes learnt while the call waited for its stream."""
        self._recorder.learn(
            carrier_call_id=waiting.carrier_call_id,
            from_number=waiting.from_number,
            to_number=waiting.to_number,
            account_id=waiting.account_id,
        )
        self.transfers.catch_up()

    async def save(self) -> None:
        """Write the current record. A failure of the store is logged, not raised."""
        await self._recorder.save()

    # The stream

    async def carry(self, socket: CarrierSocket) -> None:
        """Serve a claimed media socket until the call has ended and its resources are released, or until the call has
        released this stream and goes on without it."""
        with bind_call(self.call_id):
            await self.streams.carry(socket)

    def hand_over(self, seconds: float) -> bool:
        """Hand the call over to another process: the carrier opens its next stream there, within `seconds`. The
        participant stays until that process has joined. False: the call has no stream that could be opened again."""
        return not self.transfers.is_open and self.returns.hand_over(seconds)

    def _on_stream_over(
        self, line: MediaStream, reason: EndReason, detail: str = "", close_code: int | None = None
    ) -> None:
        if line is not self.streams.current:
            return
        if not self.is_ending and self.transfers.takes_stream_end(reason, detail):
            self.streams.detach(TRANSFERRING, 0.0)
        elif not self.returns.takes_stream_end(reason, detail, is_broken=line.is_broken):
            self.end(reason, detail, close_code)

    def _is_answered(self) -> None:
        """The phone and the room hear each other, or will in a moment."""
        self.transfers.back()
        self.returns.back()
        self.returns.serve()
        self.settled.set()
        if not self._runs:
            self._runs = True
            self.watch.start()
            lasted = time.time() - self.record.started_at
            self._life.end_in(max(0.0, self._parts.limits.max_duration - lasted), EndReason.MAX_DURATION)

    def room_ended(self, reason: EndReason, detail: str) -> None:
        """The caller's room was deleted, or the caller was removed from it."""
        if not self.transfers.takes_room_end(reason, detail):
            self.end(reason, detail)

    # What the API asks

    def send_dtmf(self, digits: str) -> None:
        """Play digits to the phone. Raises FailedPrecondition if the call is not active or digits are turned off,
        ResourceExhausted if too many digits wait."""
        self._require_active()
        if not self.request.dtmf:
            raise FailedPrecondition("digits are turned off for this call")
        if not self.bridge.play_tones(digits):
            raise ResourceExhausted("too many digits are queued")
        self._parts.metrics.dtmf.labels("to_carrier").inc(len(digits))

    def clear_audio(self) -> None:
        """Drop all audio that the phone has not heard yet. Raises FailedPrecondition if the call is not active."""
        self._require_active()
        self.bridge.clear()

    async def switch_room(self, room: str, agents: Sequence[AgentDispatch] = ()) -> None:
        """Move the caller to another room and dispatch `agents` to it; the phone call goes on. If the caller is in
        `room` already, nothing happens. After an error (FailedPrecondition, Unavailable …) the caller is still in the
        old room."""
        self._require_active()
        await self._moves.to(room, agents)

    async def transfer(self, order: Transfer) -> CallTransfer:
        """Ask the carrier to connect the phone with a number. If somebody answers there, the call ends here as
        `transferred`; otherwise the phone comes back. Raises ConnectorError; the call then goes on."""
        self._require_active()
        return await self.transfers.start(order)

    async def _transfer_for_good(self, number: str) -> None:
        """Transfer to the fallback number (for calls without an agent). If nobody answers there, the phone comes
        back."""
        await self.transfer(Transfer(number, FALLBACK_RING))

    def _require_active(self) -> None:
        if self.state is not CallState.ACTIVE or self.is_ending:
            raise FailedPrecondition(f"the call is {self.state.value}, not active")
        if self.returns.is_open:
            raise Unavailable("the phone's media stream is lost, and the carrier is expected to open it again")
        if self.streams.current is None:
            raise FailedPrecondition("the phone has no stream now: the call is being transferred")

    # The end

    def end(self, reason: EndReason, detail: str = "", close_code: int | None = None, say: str = "") -> None:
        """Request the end of the call; the first reason is kept. Does not wait: `finished` is set when all resources
        are released.

        `say`: a sentence that the phone hears, through the carrier's REST API, before it is hung up.
        """
        self._life.end(reason, detail, close_code, say)

    def is_elsewhere(self, elsewhere: bool) -> None:
        """Set whether the phone may follow another document than ours. If so, it is not hung up when its stream
        ends."""
        self._leg.is_elsewhere = elsewhere

    async def _supervise(self) -> None:
        end = await self._life.until_end()
        with bind_call(self.call_id):
            try:
                await self._teardown.run(end, self._life)
            except Exception:
                log.exception("teardown of the call failed")
            self.settled.set()
            self.finished.set()
            self._on_finished(self)

    def _on_connect_timeout(self) -> None:
        self.end(EndReason.CONNECT_TIMEOUT, "no media WebSocket was opened in time")
