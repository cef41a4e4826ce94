"""One call: from the request for it until all its resources are released.

A call ends once. Any part that notices the end calls `end(reason)`; the first reason is kept, and one task, the
supervisor, runs the teardown in a fixed order. Nothing else closes the socket or leaves the room.

The parts: `Wait` (waits for the stream; which process owns the call), `MediaStream` (a media socket and its
`StreamReader`), `Presence` (the room), `PhoneLeg` (the phone, through the carrier's REST API), `Transfers`,
`CallRecorder` (record and events), `Teardown`. The path of audio from the WebSocket to the room: `StreamReader.read`,
`Bridge.from_carrier`, `Presence.capture`.

A call may continue after its stream has ended: `detach` releases the stream, the participant stays in the room, and a
later `claim` and `carry` attach a new stream. That is so for a transfer, and for a stream that was lost (`Returns`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import structlog

from connector.call.dependencies import (
    BUSY,
    CLOSE_CODES,
    CLOSE_NORMAL,
    CLOSE_POLICY,
    IN_PROGRESS,
    CallDependencies,
    End,
    why_not_opened,
)
from connector.call.media.bridge import Bridge
from connector.call.media.last_words import play_out
from connector.call.ports import CarrierSocket
from connector.call.record.call_recorder import CallRecorder
from connector.call.record.changes import CallEnd
from connector.call.session.call_watch import CallWatch
from connector.call.session.digits import DigitRelay
from connector.call.session.media_stream import MediaStream
from connector.call.session.moves import Moves
from connector.call.session.phone_leg import PhoneLeg
from connector.call.session.presence import Presence, RoomGone
from connector.call.session.returns import Resume, Returns
from connector.call.session.teardown import Teardown, stop_tasks
from connector.call.session.transfer import Transfers
from connector.call.session.transfer_progress import CallTransfer
from connector.call.session.wait import Stage, Wait
from connector.carriers.events import FormatRefused, StreamStarted
from connector.errors import (
    ConnectorError,
    FailedPrecondition,
    ResourceExhausted,
    TokenExpired,
    TokenUsed,
    Unavailable,
)
from connector.logs import bind_call
from connector.model.call import AgentDispatch, CallRecord, CallRequest, CallState, Direction, Transfer, WaitingCall
from connector.model.end_reason import EndReason

log = structlog.get_logger()

OPEN_BUDGET = 4.0
"""Time limit in seconds for all steps before the client is answered, together. Counted from the call's turn to join."""
OPEN_LIMIT = 4.7
"""Latest moment, in seconds, at which the request for a failed call is answered. Clean-up may continue in the
background."""
CANNOT_HEAR = "We are sorry, we cannot hear you because of a technical problem. Goodbye."
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
        self._codec = parts.new_codec(request.provider)
        self._recorder = CallRecorder(request, parts, record)
        self.request = self._recorder.request
        self.watch = CallWatch(parts, self._recorder, self.end, self._transfer_for_good)
        self.presence = Presence(parts, self._recorder, self._codec, self.room_ended, self.watch)
        self._leg = PhoneLeg(parts, self._recorder)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[End] = self._loop.create_future()
        self.finished = asyncio.Event()
        self.settled = asyncio.Event()
        """Set when the phone was answered, or when it is certain that it will not be."""
        self._line: MediaStream | None = None
        """The current stream."""
        self._socket: CarrierSocket | None = None
        """The last media socket, while it may still be open."""
        self._runs = self._relays = False
        """`_runs`: the watchdog and the timer for the longest call run. `_relays`: digits are relayed."""
        self._digits = DigitRelay(self.presence, parts.metrics)
        self._tasks: list[asyncio.Task[None]] = []
        self._moves = Moves(self._recorder, self.presence)
        self._timers: list[asyncio.TimerHandle] = []
        if record is None:
            seconds = parts.limits.connect_timeout
            self.wait = Wait(self._recorder, parts.store, seconds, self._on_connect_timeout)
            self.wait.on_taken = self._on_taken
        else:
            taken = (waiting.stream, waiting.transfer, waiting.returns) if waiting else (1, None, ())
            self.wait = Wait.taken(self._recorder, parts.store, *taken)
            self._leg.may_be_held = True
        self.transfers = Transfers(self, parts, self._recorder, self._leg, self.presence)
        self.returns = Returns(self, parts, self._recorder, self.presence)
        if waiting is not None and waiting.transfer is not None:
            self.transfers.resume(waiting.transfer)
        elif waiting is not None and waiting.stream > 1:
            self.returns.inherit(waiting)
        self._answering = asyncio.Lock()
        """A stream that breaks while it is connected to the room may be followed by the next one at once."""
        self._teardown = Teardown(self._recorder, self.presence, self._leg)
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.call_id}")

    @property
    def call_id(self) -> str:
        return self.request.call_id

    @property
    def bridge(self) -> Bridge:
        return self.presence.bridge

    @property
    def is_ending(self) -> bool:
        return self._ended.done()

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
            began, queued = self._loop.time(), time.monotonic()
            try:
                async with self._turn_to_open():
                    self._recorder.observe("queue", queued)
                    began = self._loop.time()
                    await self._open_in_time()
                self._leg.may_be_held = True
            except BaseException as error:
                self.end(*why_not_opened(error))
                await asyncio.wait([self._supervisor], timeout=max(0.0, began + OPEN_LIMIT - self._loop.time()))
                raise
            log.info(
                "call created",
                provider=self.request.provider.value,
                direction=self.request.direction.value,
                room=self.request.room,
                identity=self.request.participant.identity,
                agents=[agent.agent_name for agent in self.request.agents],
            )

    def _turn_to_open(self) -> AbstractAsyncContextManager[None]:
        """Only an outbound call joins the room before its stream starts, so only it needs a turn here."""
        is_outbound = self.request.direction is Direction.OUTBOUND
        return self._parts.joins.new_call(self.call_id) if is_outbound else nullcontext()

    async def _open_in_time(self) -> None:
        try:
            async with asyncio.timeout(OPEN_BUDGET):
                await self._open()
        except TimeoutError as error:
            raise Unavailable(f"LiveKit and the store took longer than {OPEN_BUDGET:g} s together") from error

    async def _open(self) -> None:
        # `share` comes first. If two calls use one identity, only the one that holds it in the store may join. If
        # several processes are asked for the same call, only the one that holds it may write its record.
        if self.request.direction is Direction.OUTBOUND:
            await self.wait.share()
            await self.presence.wait_hidden(self._recorder.attributes("ringing"))
            if self._ended.done():
                raise Unavailable("the caller was removed from the room right after the join")
        else:
            await self._parts.admin.check()
            await self.wait.share()
        self._recorder.open()
        await self._parts.store.save_call(self.record)

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
            if not self.claimed and not self._ended.done():
                await self.extend_deadline(self._parts.limits.answer_grace)
            log.info("answer document fetched", **{"from": self.record.from_number, "to": self.record.to_number})

    async def dial(self, place: Callable[[], Awaitable[tuple[str, str]]], from_number: str, to_number: str) -> None:
        """See `PhoneLeg.dial`. Raises the errors of `place`, and Unavailable if the call has ended."""
        if self._ended.done():
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
        if reason is not None and self._line is None:
            self.end(reason, f"the carrier reports {status}")

    def check_claimable(self) -> None:
        """Raise TokenUsed or TokenExpired if `claim` would raise them."""
        if self.claimed:
            raise TokenUsed("this connect_url has been used by a WebSocket")
        if self._ended.done():
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
            await wait.take()
        except TokenUsed:
            self.end(EndReason.INTERRUPTED, "another process has claimed the call")
            raise
        except BaseException as error:
            self.lose(EndReason.CARRIER_LOST, f"the WebSocket could not be accepted: {error!r}")
            raise
        if wait is not self.wait:
            raise TokenUsed("the carrier has closed this stream in the meantime")

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
            if self._ended.done():  # The call ended during the handshake: the supervisor does not know this socket.
                await socket.close(self._ended.result().close_code, self._ended.result().reason.value)
                await self.finished.wait()
                return
            if self.wait.stage is not Stage.OURS:
                # The carrier has given up this stream during the handshake, and comes with the next one.
                await socket.close(CLOSE_NORMAL, "another stream is expected")
                return
            line = self._attach(socket)
            log.info("stream opened")
            await line.read()
            if self._line is line:
                await self.finished.wait()
                return
            await line.close()
            if self._socket is socket:
                self._socket = None

    def _attach(self, socket: CarrierSocket) -> MediaStream:
        if self._socket is not None or self._runs:
            self._codec = self._parts.new_codec(self.request.provider)
            self.presence.attach(self._codec)
        line = MediaStream(self.request, self._parts, self._codec, self.bridge, self._digits, socket)
        line.on_started = lambda event: self._on_started(line, event)
        line.on_refused = lambda event: self._on_refused(line, event)
        line.on_over = lambda *end: self._on_stream_over(line, *end)
        self._line, self._socket = line, socket
        self.begin("send", line.send())
        return line

    def detach(self, status: str, grace: float, close_code: int = CLOSE_NORMAL) -> None:
        """Release the stream; the call goes on and waits for a claim of the next one. The carrier has `grace` seconds
        to end the old one. `status` is the participant's `connector.callStatus` in the meantime."""
        line, self._line = self._line, None
        if line is not None:
            line.let_go(status, close_code)
            self.begin("release", line.release(grace))
            self.begin("tell the room", self.presence.is_away(status))

    @property
    def stream(self) -> int:
        """Number of the current or latest stream; before the first one has started, 1."""
        is_next = self.wait.stage in (Stage.SERVED, Stage.SHARED) and self.wait.stream > 1
        return self.wait.stream - 1 if is_next else self.wait.stream

    @property
    def silent_for(self) -> float | None:
        """Seconds since the current stream's last message; None if there is no stream."""
        return self._line.silent_for if self._line is not None else None

    def hand_over(self, seconds: float) -> bool:
        """Let another process carry on: the carrier is told to open its next stream, within `seconds`. The participant
        stays until that process has joined. False: the call has no stream that could be opened again."""
        return not self.transfers.is_open and self.returns.hand_over(seconds)

    def lose(self, reason: EndReason, detail: str = "") -> None:
        """The stream is lost: the call waits for the next one if it can, otherwise it ends."""
        if not self.returns.begin(reason, detail):
            self.end(reason, detail)

    def _on_stream_over(
        self, line: MediaStream, reason: EndReason, detail: str = "", close_code: int | None = None
    ) -> None:
        if line is not self._line:
            return
        if not self.is_ending and self.transfers.takes_stream_end(reason, detail):
            self.detach("transferring", 0.0)
        elif not self.returns.takes_stream_end(reason, detail, is_broken=line.is_broken):
            self.end(reason, detail, close_code)

    def _on_started(self, line: MediaStream, event: StreamStarted) -> None:
        if line is not self._line:
            return
        known = self.record.carrier_call_id
        if known and not event.may_be_of(known):
            self.end(EndReason.CALL_MISMATCH, "the stream is not of the call that fetched the answer document")
            return
        self._recorder.learn(
            carrier_call_id=known or event.call_id,
            from_number=event.from_number,
            to_number=event.to_number,
            account_id=event.account_id,
        )
        self._leg.streams(event)
        self.begin("answer", self._answer(line, event, known))

    def _on_refused(self, line: MediaStream, event: FormatRefused) -> None:
        """The audio format of the stream cannot be decoded. The phone hears a sentence about it, not just silence."""
        if line is not self._line:
            return
        known = self.record.carrier_call_id
        log.warning("the carrier streams audio that cannot be decoded", format=event.format)
        if not known or event.may_be_of(known):
            self._recorder.learn(carrier_call_id=known or event.call_id, account_id=event.account_id)
            self._leg.streams(event)
        detail = f"the carrier streams {event.format}, which cannot be decoded"
        self.end(EndReason.PROTOCOL_ERROR, detail, CLOSE_POLICY, say=CANNOT_HEAR)

    async def _answer(self, line: MediaStream, event: StreamStarted, known: str) -> None:
        """Connect the phone with its room, for the first time or again."""
        started = time.monotonic()
        async with self._answering:
            is_first = not self.record.started_at
            if line is not self._line:
                return
            try:
                await self._moves.over()
                attributes = self._recorder.attributes_of(event, self._codec.attributes(event, known))
                async with self._turn_to_appear():
                    self._recorder.observe("queue", started)
                    await (self.presence.appear(attributes) if is_first else self.presence.come_back(attributes))
            except RoomGone as error:
                self.end(EndReason.ROOM_DELETED, error.message)
                return
            except ConnectorError as error:
                if line is self._line:
                    # An inbound caller hears a sentence if nobody answers: too many calls, or LiveKit is unavailable.
                    calls_in = self.request.direction is Direction.INBOUND
                    is_busy = calls_in or isinstance(error, ResourceExhausted)
                    self.end(*why_not_opened(error), say=BUSY if is_busy else "")
                return
            if self._ended.done() or line is not self._line:
                return
            if is_first:
                self._recorder.start()
            self._is_answered(is_first=is_first)
        self._recorder.observe("answer" if is_first else "return", started)
        what = "call active" if is_first else "call active again"
        log.info(what, milliseconds=round((time.monotonic() - started) * 1000))
        await self._recorder.save()

    def _is_answered(self, *, is_first: bool) -> None:
        """The phone and the room hear each other, or will in a moment."""
        self.transfers.back()
        self.returns.back()
        self.returns.serve()
        self.settled.set()
        self.begin("hear the caller", self._hear_caller())
        if not self._runs:
            self._runs = True
            self.watch.start()
            lasted = 0.0 if is_first else time.time() - self.record.started_at
            self._in(max(0.0, self._parts.limits.max_duration - lasted), EndReason.MAX_DURATION)

    def _turn_to_appear(self) -> AbstractAsyncContextManager[None]:
        joins = self._parts.joins
        return joins.live_call(self.call_id) if self.presence.is_in else joins.streaming_call(self.call_id)

    async def _hear_caller(self) -> None:
        """Send the buffered audio and digits to the room as soon as somebody there hears the caller; then all that
        follows."""
        bridge = self.bridge
        if await self.presence.wait_until_heard():
            bridge.open_from_carrier()
        else:
            bridge.open_from_carrier(self._parts.limits.max_audio_age)
        if not self._relays:
            self._relays = True
            await self._digits.run()

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
        if self.state is not CallState.ACTIVE or self._ended.done():
            raise FailedPrecondition(f"the call is {self.state.value}, not active")
        if self.returns.is_open:
            raise Unavailable("the phone's media stream is lost, and the carrier is expected to open it again")
        if self._line is None:
            raise FailedPrecondition("the phone has no stream now: the call is being transferred")

    # The end

    def end(self, reason: EndReason, detail: str = "", close_code: int | None = None, say: str = "") -> None:
        """Request the end of the call; the first reason is kept. Does not wait: `finished` is set when all resources
        are released.

        `say`: a sentence that the phone hears, through the carrier's REST API, before it is hung up.
        """
        if not self._ended.done():
            self._ended.set_result(End(reason, detail, close_code or CLOSE_CODES.get(reason, CLOSE_NORMAL), say))

    def is_elsewhere(self, elsewhere: bool) -> None:
        """Set whether the phone may follow another document than ours. If so, it is not hung up when its stream
        ends."""
        self._leg.is_elsewhere = elsewhere

    async def _supervise(self) -> None:
        end = await self._ended
        with bind_call(self.call_id):
            self._parts.joins.forget(self.call_id)
            if end.reason is EndReason.SHUTDOWN:
                # The call can be left to another process only if the phone leaves its stream, so wait for the answer.
                await self.transfers.until_asked()
            was_active = self.state is CallState.ACTIVE
            is_away = was_active and (self._line is None or self.transfers.is_open)
            is_transferred = self.transfers.is_open
            self.bridge.close()
            self.bridge.collect_drops()
            self.transfers.close()
            if self._line is not None:
                self._line.stop()
            if is_away and end.reason is EndReason.SHUTDOWN and self.wait.stage is Stage.SHARED:
                # The carrier has the phone: the process that gets the next stream owns the call.
                self.wait.leave()
            for timer in self._timers:
                timer.cancel()
            self.watch.stop()
            try:
                if was_active and self._line is not None:
                    await play_out(end.reason, self.bridge, self._line.over)
                await stop_tasks((*self._tasks, *self.watch.tasks, self._moves.task, self._moves.saving))
                await self._teardown.run(end, self.wait, self._socket, was_active, was_active and is_transferred)
            except Exception:
                log.exception("teardown of the call failed")
            self.settled.set()
            self.finished.set()
            self._on_finished(self)

    # Small things

    def begin(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """Start a task of this call. If one of these tasks fails, the whole call ends."""
        task = asyncio.create_task(work, name=f"{what} {self.call_id}")
        task.add_done_callback(self._on_task_done)
        self._tasks.append(task)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the call failed with an unexpected error", task=task.get_name(), exc_info=error)
            self.end(EndReason.INTERNAL_ERROR, repr(error))

    def _on_taken(self) -> None:
        self.end(EndReason.INTERRUPTED, "another process has claimed the call")

    def _on_connect_timeout(self) -> None:
        self.end(EndReason.CONNECT_TIMEOUT, "no media WebSocket was opened in time")

    def _in(self, seconds: float, reason: EndReason) -> None:
        self._timers.append(self._loop.call_later(seconds, self.end, reason))
