"""One call: from the moment it is asked for to the moment everything it held is free again.

A call ends once. Whatever notices the end calls `end(reason)`; the first reason stands, and one task, the
supervisor, takes everything down in a fixed order. Nothing else closes the socket or leaves the room.

The parts: `Wait` (for a stream, and whose the call is), `MediaStream` (a media socket and its `StreamReader`),
`Presence` (the room), `PhoneLeg` (the phone, by the carrier's REST API), `Transfers`, `CallRecorder` (record and
events), `Teardown`. From the WebSocket to the room: `StreamReader.read`, `Bridge.from_carrier`, `Presence.capture`.

A call may outlive its stream: `detach` lets a line go, the participant stays in the room, and a later `claim` and
`carry` attach another one.
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
from connector.call.session.presence import Presence
from connector.call.session.teardown import Teardown, stop_tasks
from connector.call.session.transfer import CallTransfer, Transfers
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
from connector.model import (
    AgentDispatch,
    CallRecord,
    CallRequest,
    CallState,
    Direction,
    EndReason,
    Transfer,
    WaitingCall,
)

log = structlog.get_logger()

OPEN_BUDGET = 4.0
"""Seconds for all that a call needs before its client is answered, however slow LiveKit is at each step; counted from
its turn to join."""
OPEN_LIMIT = 4.7
"""Seconds until a client whose call could not be opened is told so; what is still to be freed then is freed later."""
CANNOT_HEAR = "We are sorry, we cannot hear you because of a technical problem. Goodbye."
FALLBACK_RING = 30
"""Seconds for which the number rings that takes calls without an agent."""


class CallSession:
    """See the module. `open`, then `claim` and `carry` by the media socket, `end` by anyone."""

    def __init__(
        self,
        request: CallRequest,
        parts: CallDependencies,
        on_finished: Callable[[CallSession], None],
        record: CallRecord | None = None,
        waiting: WaitingCall | None = None,
    ) -> None:
        """`record`, `waiting`: of a call that this process has claimed from another, which waited with it."""
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
        """The phone was answered, or will not be."""
        self._line: MediaStream | None = None
        """The stream that the call has now."""
        self._socket: CarrierSocket | None = None
        """The last media socket, as long as it may be open."""
        self._runs = self._relays = False
        """What lasts from the first stream here to the end has begun; digits are relayed."""
        self._digits = DigitRelay(self.presence, parts.metrics)
        self._tasks: list[asyncio.Task[None]] = []
        self._moves = Moves(self._recorder, self.presence)
        self._timers: list[asyncio.TimerHandle] = []
        if record is None:
            seconds = parts.limits.connect_timeout
            self.wait = Wait(self._recorder, parts.store, seconds, self._on_connect_timeout)
        else:
            taken = (waiting.stream, waiting.transfer) if waiting else (1, None)
            self.wait = Wait.taken(self._recorder, parts.store, *taken)
            self._leg.may_be_held = True
        self.transfers = Transfers(self, parts, self._recorder, self._leg, self.presence)
        if waiting is not None and waiting.transfer is not None:
            self.transfers.resume(waiting.transfer)
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
        """The end, where the store has not answered, and no other process can have the call: it is this one's, or
        nobody has heard of it."""
        end = self._recorder.unwritten
        return end if end is not None and (self.wait.is_certain or end.event is None) else None

    @property
    def claimed(self) -> bool:
        return self.wait.claimed

    @property
    def deadline(self) -> float:
        """Unix time until which the stream may open."""
        return self.wait.deadline

    # Before the stream

    async def open(self) -> None:
        """Create what the direction asks for. Raises the error that the client shall see: within OPEN_LIMIT of its
        turn to join, which an outbound call may have to wait for."""
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
        """Only an outbound call joins before its stream."""
        is_outbound = self.request.direction is Direction.OUTBOUND
        return self._parts.joins.new_call(self.call_id) if is_outbound else nullcontext()

    async def _open_in_time(self) -> None:
        try:
            async with asyncio.timeout(OPEN_BUDGET):
                await self._open()
        except TimeoutError as error:
            raise Unavailable(f"LiveKit and the store took longer than {OPEN_BUDGET:g} s together") from error

    async def _open(self) -> None:
        # Shared first: of two calls with one identity, only the one that has it may join; of several processes that are
        # asked for one call, only the one that gets it may write of it.
        if self.request.direction is Direction.OUTBOUND:
            await self.wait.share()
            await self.presence.wait_hidden(self._recorder.attributes("ringing"))
            if self._ended.done():
                raise Unavailable("the caller was taken out of the room again at once")
        else:
            await self._parts.admin.check()
            await self.wait.share()
        self._recorder.open()
        await self._parts.store.save_call(self.record)

    async def fetched(self, carrier_call_id: str, from_number: str, to_number: str, account_id: str = "") -> None:
        """The carrier fetched the answer document: the callee has picked up. Empty strings teach nothing.

        Raises TokenUsed when another carrier call fetched it before: one connect_url serves one call.
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
        """See `PhoneLeg.dial`. Raises what `place` does, and Unavailable when the call has ended."""
        if self._ended.done():
            raise Unavailable("the call ended before the phone was called")
        await self._leg.dial(place, from_number, to_number)
        if await self.wait.update():
            await self._recorder.save()

    async def extend_deadline(self, seconds: float) -> None:
        """Leave the stream at least this long from now to open."""
        self.wait.extend(seconds)
        await self.wait.update()

    def carrier_said(self, status: str, number: int) -> None:
        """The carrier reports progress, in the common words; reports may come out of order, `number` counts them."""
        reason = self._leg.said(status, number)
        if status == IN_PROGRESS:
            self.settled.set()
        # A stream tells its own end, and more exactly than the report that follows it.
        if reason is not None and self._line is None:
            self.end(reason, f"the carrier reports {status}")

    def check_claimable(self) -> None:
        """Raise TokenUsed or TokenExpired when `claim` would."""
        if self.claimed:
            raise TokenUsed("this connect_url has been used by a WebSocket")
        if self._ended.done():
            raise TokenExpired("the call has ended")

    async def claim(self) -> None:
        """Take the call for one WebSocket: first of this process, then of all. TokenUsed for every other one."""
        self.check_claimable()
        self.wait.mark()
        try:
            await self.wait.take()
        except TokenUsed:
            self.end(EndReason.INTERRUPTED, "another process has claimed the call")
            raise
        except BaseException as error:
            self.end(EndReason.CARRIER_LOST, f"the WebSocket could not be let in: {error!r}")
            raise

    def learn(self, waiting: WaitingCall) -> None:
        """What the processes that waited with the call have learnt of it."""
        self._recorder.learn(
            carrier_call_id=waiting.carrier_call_id,
            from_number=waiting.from_number,
            to_number=waiting.to_number,
            account_id=waiting.account_id,
        )
        self.transfers.catch_up()

    async def save(self) -> None:
        """Write the record as it is now; a store that fails is logged."""
        await self._recorder.save()

    # The stream

    async def carry(self, socket: CarrierSocket) -> None:
        """Serve a claimed media socket until the call is over and everything is free."""
        with bind_call(self.call_id):
            if self._ended.done():  # While the handshake was under way: the supervisor knows of no socket.
                await socket.close(self._ended.result().close_code, self._ended.result().reason.value)
                await self.finished.wait()
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

    def detach(self, status: str, grace: float) -> None:
        """Let the stream go; the call goes on, for whoever claims the next one. The carrier has `grace` seconds to end
        it; `status` is the participant's `connector.callStatus` meanwhile."""
        line, self._line = self._line, None
        if line is not None:
            line.let_go(status)
            self.begin("release", line.release(grace))
            self.begin("tell the room", self.presence.is_away(status))

    def _on_stream_over(
        self, line: MediaStream, reason: EndReason, detail: str = "", close_code: int | None = None
    ) -> None:
        if line is not self._line:
            return
        if not self.is_ending and self.transfers.takes_stream_end(reason, detail):
            self.detach("transferring", 0.0)
        else:
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
        self.begin("answer", self._answer(event, known))

    def _on_refused(self, line: MediaStream, event: FormatRefused) -> None:
        """The stream has a format that nobody here can decode: the phone is told so, since it would hear nothing."""
        if line is not self._line:
            return
        known = self.record.carrier_call_id
        log.warning("the carrier streams audio that cannot be decoded", format=event.format)
        if not known or event.may_be_of(known):
            self._recorder.learn(carrier_call_id=known or event.call_id, account_id=event.account_id)
            self._leg.streams(event)
        detail = f"the carrier streams {event.format}, which cannot be decoded"
        self.end(EndReason.PROTOCOL_ERROR, detail, CLOSE_POLICY, say=CANNOT_HEAR)

    async def _answer(self, event: StreamStarted, known: str) -> None:
        """Put the phone into its room, for the first time or again."""
        started = time.monotonic()
        is_first = not self.record.started_at
        try:
            attributes = self._recorder.attributes_of(event, self._codec.attributes(event, known))
            async with self._turn_to_appear():
                self._recorder.observe("queue", started)
                await (self.presence.appear(attributes) if is_first else self.presence.come_back(attributes))
        except ConnectorError as error:
            # Whoever calls in hears why nobody answers, whether too many do or LiveKit is away.
            calls_in = self.request.direction is Direction.INBOUND
            self.end(*why_not_opened(error), say=BUSY if calls_in or isinstance(error, ResourceExhausted) else "")
            return
        if self._ended.done():
            return
        if is_first:
            self._recorder.start()
        self.transfers.back()
        self.settled.set()
        self.begin("hear the caller", self._hear_caller())
        if not self._runs:
            self._runs = True
            self.watch.start()
            lasted = 0.0 if is_first else time.time() - self.record.started_at
            self._in(max(0.0, self._parts.limits.max_duration - lasted), EndReason.MAX_DURATION)
        self._recorder.observe("answer" if is_first else "return", started)
        what = "call active" if is_first else "call active again"
        log.info(what, milliseconds=round((time.monotonic() - started) * 1000))
        await self._recorder.save()

    def _turn_to_appear(self) -> AbstractAsyncContextManager[None]:
        joins = self._parts.joins
        return joins.live_call(self.call_id) if self.presence.is_in else joins.streaming_call(self.call_id)

    async def _hear_caller(self) -> None:
        """What the caller has said and pressed so far goes to the room as soon as it is heard there; then the rest."""
        bridge = self.bridge
        if await self.presence.wait_until_heard():
            bridge.open_from_carrier()
        else:
            bridge.open_from_carrier(self._parts.limits.max_audio_age)
        if not self._relays:
            self._relays = True
            await self._digits.run()

    def room_ended(self, reason: EndReason, detail: str) -> None:
        """The caller's room, or its place there, is gone."""
        if not self.transfers.takes_room_end(reason, detail):
            self.end(reason, detail)

    # What the API asks

    def send_dtmf(self, digits: str) -> None:
        """Play digits to the phone. FailedPrecondition unless active, ResourceExhausted when too many wait."""
        self._require_active()
        if not self.request.dtmf:
            raise FailedPrecondition("digits are turned off for this call")
        if not self.bridge.play_tones(digits):
            raise ResourceExhausted("too many digits wait to be played")
        self._parts.metrics.dtmf.labels("to_carrier").inc(len(digits))

    def clear_audio(self) -> None:
        """Drop what the phone has yet to hear. FailedPrecondition unless active."""
        self._require_active()
        self.bridge.clear()

    async def switch_room(self, room: str, agents: Sequence[AgentDispatch] = ()) -> None:
        """Move the caller to another room, which gets these agents; the phone call goes on. To the room it is in
        already: nothing happens. FailedPrecondition, Unavailable …: the caller is where it was."""
        self._require_active()
        await self._moves.to(room, agents)

    async def transfer(self, order: Transfer) -> CallTransfer:
        """Have the carrier connect the phone with a number. The call ends here as `transferred` when somebody answers;
        else the phone comes back. Raises ConnectorError, then it goes on."""
        self._require_active()
        return await self.transfers.start(order)

    async def _transfer_for_good(self, number: str) -> None:
        """To the number that takes calls without an agent; whoever reaches nobody there either comes back."""
        await self.transfer(Transfer(number, FALLBACK_RING))

    def _require_active(self) -> None:
        if self.state is not CallState.ACTIVE or self._ended.done():
            raise FailedPrecondition(f"the call is {self.state.value}, not active")
        if self._line is None:
            raise FailedPrecondition("the phone is away from its stream: the call is being transferred")

    # The end

    def end(self, reason: EndReason, detail: str = "", close_code: int | None = None, say: str = "") -> None:
        """Ask for the end; the first caller's reason stands. Never waits: `finished` tells when all is free.

        `say`: a sentence that the phone hears before it is hung up, by the carrier's REST API.
        """
        if not self._ended.done():
            self._ended.set_result(End(reason, detail, close_code or CLOSE_CODES.get(reason, CLOSE_NORMAL), say))

    def is_elsewhere(self, elsewhere: bool) -> None:
        """Whether the phone may follow another document than ours: then it is not hung up with its stream."""
        self._leg.is_elsewhere = elsewhere

    async def _supervise(self) -> None:
        end = await self._ended
        with bind_call(self.call_id):
            self._parts.joins.forget(self.call_id)
            if end.reason is EndReason.SHUTDOWN:
                # Whether the phone leaves its stream says whether the call can be left to another process.
                await self.transfers.until_asked()
            was_active = self.state is CallState.ACTIVE
            away = was_active and (self._line is None or self.transfers.is_open)
            self.bridge.close()
            self.bridge.collect_drops()
            self.transfers.close()
            if self._line is not None:
                self._line.stop()
            if away and end.reason is EndReason.SHUTDOWN and self.wait.stage is Stage.SHARED:
                # The phone talks to the carrier: whichever process it comes back to has the call.
                self.wait.leave()
            for timer in self._timers:
                timer.cancel()
            self.watch.stop()
            try:
                if was_active and self._line is not None:
                    await play_out(end.reason, self.bridge, self._line.over)
                await stop_tasks((*self._tasks, *self.watch.tasks, self._moves.task, self._moves.saving))
                await self._teardown.run(end, self.wait, self._socket, was_active, away)
            except Exception:
                log.exception("the call could not be taken down whole")
            self.settled.set()
            self.finished.set()
            self._on_finished(self)

    # Small things

    def begin(self, what: str, work: Coroutine[Any, Any, None]) -> None:
        """A task of this call; a call one of whose tasks breaks is over, not half alive."""
        task = asyncio.create_task(work, name=f"{what} {self.call_id}")
        task.add_done_callback(self._on_task_done)
        self._tasks.append(task)

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the call broke", task=task.get_name(), exc_info=error)
            self.end(EndReason.INTERNAL_ERROR, repr(error))

    def _on_connect_timeout(self) -> None:
        self.end(EndReason.CONNECT_TIMEOUT, "no media WebSocket came in time")

    def _in(self, seconds: float, reason: EndReason) -> None:
        self._timers.append(self._loop.call_later(seconds, self.end, reason))
