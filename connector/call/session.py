"""One call: from the moment it is asked for to the moment everything it held is free again.

A call ends once. Whatever notices the end calls `end(reason)`; the first reason stands, and one task, the
supervisor, takes everything down in a fixed order. Nothing else closes the socket or leaves the room.

The parts: `Wait` (for the stream, and whose the call is), `Stream` (the carrier's messages), `Presence` (the room),
`Leg` (the phone, by the carrier's REST API), `Ledger` (record and events), `Teardown`. From the WebSocket to the
room: `Stream.read`, `Bridge.from_carrier`, `Presence.capture`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any

import structlog

from connector.call.digits import DigitRelay
from connector.call.last_words import play_out
from connector.call.ledger import Ledger
from connector.call.leg import Leg
from connector.call.ports import CarrierSocket
from connector.call.presence import Presence
from connector.call.records import CallEnd
from connector.call.stream import Stream
from connector.call.teardown import Teardown, stop_tasks
from connector.call.terms import BUSY, CLOSE_CODES, CLOSE_NORMAL, CLOSE_POLICY, End, Parts, why_not_opened
from connector.call.wait import Wait
from connector.call.watch import CallWatch
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
from connector.model import AgentDispatch, CallRecord, CallRequest, CallState, Direction, EndReason, WaitingCall

log = structlog.get_logger()

OPEN_BUDGET = 4.0
"""Seconds for all that a call needs before its client is answered, however slow LiveKit is at each step; counted from
its turn to join."""
OPEN_LIMIT = 4.7
"""Seconds until a client whose call could not be opened is told so; what is still to be freed then is freed later."""
CANNOT_HEAR = "We are sorry, we cannot hear you because of a technical problem. Goodbye."
TRANSFERRING = "transfer"
"""Why the watchdog stands still while the phone is connected with somebody else."""
TRANSFER_GRACE = 15.0
"""Seconds for a carrier to end the stream of a call that it has transferred."""


class CallSession:
    """See the module. `open`, then `claim` and `carry` by the media socket, `end` by anyone."""

    def __init__(
        self,
        request: CallRequest,
        parts: Parts,
        on_finished: Callable[[CallSession], None],
        record: CallRecord | None = None,
    ) -> None:
        """`record`: of a call that this process has claimed from another, which made it and waited with it."""
        self._parts = parts
        self._on_finished = on_finished
        self._codec = parts.new_codec(request.provider)
        self._ledger = Ledger(request, parts, record)
        self.request = self._ledger.request
        self.watch = CallWatch(parts, self._ledger, self.end, self.transfer)
        self.presence = Presence(parts, self._ledger, self._codec, self.room_ended, self.watch)
        self.bridge = self.presence.bridge
        self._leg = Leg(parts, self._ledger, self._on_transferred)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[End] = self._loop.create_future()
        self.finished = asyncio.Event()
        self.settled = asyncio.Event()
        """The phone was answered, or will not be."""
        self._socket: CarrierSocket | None = None
        self._digits = DigitRelay(self.presence, parts.metrics)
        self._stream = Stream(
            request, parts, self._codec, self.bridge, self._digits, self._on_started, self._on_refused, self.end
        )
        self._tasks: list[asyncio.Task[None]] = []
        self._moving: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        if record is None:
            seconds = parts.limits.connect_timeout
            self.wait = Wait(self._ledger, parts.store, seconds, self._on_connect_timeout)
        else:
            self.wait = Wait.taken(self._ledger, parts.store)
            self._leg.may_be_held = True
        self._teardown = Teardown(parts, self._ledger, self.wait, self.presence, self._leg)
        self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.call_id}")

    @property
    def call_id(self) -> str:
        return self.request.call_id

    @property
    def record(self) -> CallRecord:
        return self._ledger.record

    @property
    def state(self) -> CallState:
        return self.record.state

    @property
    def late_end(self) -> CallEnd | None:
        """The end, where the store has not answered, and no other process can have the call: it is this one's, or
        nobody has heard of it."""
        end = self._ledger.unwritten
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
                    self._ledger.observe("queue", queued)
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
        if self.request.direction is Direction.OUTBOUND:
            await self.presence.wait_hidden(self._ledger.attributes("ringing"))
            if self._ended.done():
                raise Unavailable("the caller was taken out of the room again at once")
        else:
            await self._parts.admin.check()
        # First: of several processes that are asked for one call, only the one that gets it may write of it.
        await self.wait.share()
        self._ledger.open()
        await self._parts.store.save_call(self.record)

    async def fetched(self, carrier_call_id: str, from_number: str, to_number: str, account_id: str = "") -> None:
        """The carrier fetched the answer document: the callee has picked up. Empty strings teach nothing.

        Raises TokenUsed when another carrier call fetched it before: one connect_url serves one call.
        """
        known = self.record.carrier_call_id
        if carrier_call_id and known and carrier_call_id != known:
            raise TokenUsed("this connect_url belongs to another carrier call")
        self._ledger.learn(
            carrier_call_id=carrier_call_id, from_number=from_number, to_number=to_number, account_id=account_id
        )
        with bind_call(self.call_id):
            if not self.claimed and not self._ended.done():
                await self.extend_deadline(self._parts.limits.answer_grace)
            log.info("answer document fetched", **{"from": self.record.from_number, "to": self.record.to_number})

    async def dial(self, place: Callable[[], Awaitable[tuple[str, str]]], from_number: str, to_number: str) -> None:
        """See `Leg.dial`. Raises what `place` does, and Unavailable when the call has ended."""
        if self._ended.done():
            raise Unavailable("the call ended before the phone was called")
        await self._leg.dial(place, from_number, to_number)
        if await self.wait.update():
            await self._ledger.save()

    async def extend_deadline(self, seconds: float) -> None:
        """Leave the stream at least this long from now to open."""
        self.wait.extend(seconds)
        await self.wait.update()

    def carrier_said(self, status: str, number: int) -> None:
        """The carrier reports progress, in Twilio's words; reports may come out of order, `number` counts them."""
        reason = self._leg.said(status, number)
        if status == "in-progress":
            self.settled.set()
        # A stream tells its own end, and more exactly than the report that follows it.
        if reason is not None and self._socket is None:
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
        self._ledger.learn(
            carrier_call_id=waiting.carrier_call_id,
            from_number=waiting.from_number,
            to_number=waiting.to_number,
            account_id=waiting.account_id,
        )

    async def save(self) -> None:
        """Write the record as it is now; a store that fails is logged."""
        await self._ledger.save()

    # The stream

    async def carry(self, socket: CarrierSocket) -> None:
        """Serve a claimed media socket until the call is over and everything is free."""
        with bind_call(self.call_id):
            if self._ended.done():  # While the handshake was under way: the supervisor knows of no socket.
                await socket.close(self._ended.result().close_code, self._ended.result().reason.value)
                await self.finished.wait()
                return
            self._socket = socket
            self._begin("send", self.bridge.outbox.send_to(socket))
            log.info("stream opened")
            await self._stream.read(socket)
            await self.finished.wait()

    def _on_started(self, event: StreamStarted) -> None:
        known = self.record.carrier_call_id
        if known and not event.may_be_of(known):
            self.end(EndReason.CALL_MISMATCH, "the stream is not of the call that fetched the answer document")
            return
        self._ledger.learn(
            carrier_call_id=known or event.call_id,
            from_number=event.from_number,
            to_number=event.to_number,
            account_id=event.account_id,
        )
        self._leg.streams(event)
        self._begin("answer", self._answer(event, known))

    def _on_refused(self, event: FormatRefused) -> None:
        """The stream has a format that nobody here can decode: the phone is told so, since it would hear nothing."""
        known = self.record.carrier_call_id
        log.warning("the carrier streams audio that cannot be decoded", format=event.format)
        if not known or event.may_be_of(known):
            self._ledger.learn(carrier_call_id=known or event.call_id, account_id=event.account_id)
            self._leg.streams(event)
        detail = f"the carrier streams {event.format}, which cannot be decoded"
        self.end(EndReason.PROTOCOL_ERROR, detail, CLOSE_POLICY, say=CANNOT_HEAR)

    async def _answer(self, event: StreamStarted, known: str) -> None:
        started = time.monotonic()
        try:
            theirs = self._codec.attributes(event, known)
            async with self._turn_to_appear():
                self._ledger.observe("queue", started)
                await self.presence.appear(self._ledger.attributes_of(event, theirs))
        except ConnectorError as error:
            self.end(*why_not_opened(error), say=BUSY if isinstance(error, ResourceExhausted) else "")
            return
        if self._ended.done():
            return
        self._ledger.start()
        self.settled.set()
        self.watch.start()
        self._begin("first words", self._first_words())
        self._in(self._parts.limits.max_duration, EndReason.MAX_DURATION)
        self._ledger.observe("answer", started)
        log.info("call active", milliseconds=round((time.monotonic() - started) * 1000))
        await self._ledger.save()

    def _turn_to_appear(self) -> AbstractAsyncContextManager[None]:
        joins = self._parts.joins
        return joins.live_call(self.call_id) if self.presence.is_in else joins.streaming_call(self.call_id)

    async def _first_words(self) -> None:
        """What the caller has said and pressed so far goes to the room as soon as it is heard there; then the rest."""
        if await self.presence.wait_until_heard():
            self.bridge.open_from_carrier()
        else:
            self.bridge.open_from_carrier(self._parts.limits.max_audio_age)
        await self._digits.run()

    def room_ended(self, reason: EndReason, detail: str) -> None:
        """The caller's room, or its place there, is gone."""
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
        if self._moving is not None:
            raise FailedPrecondition("the call is being moved to another room already")
        if room == self.record.room:
            return
        # A task of its own, so that neither a client that goes away nor the end of the call leaves it half done.
        moving = self._moving = asyncio.create_task(self._move(room, agents), name=f"move {self.call_id}")
        moving.add_done_callback(self._on_moved)
        await asyncio.wait([moving])
        if moving.cancelled():
            raise FailedPrecondition("the call ended while it was moved")
        moving.result()

    async def _move(self, room: str, agents: Sequence[AgentDispatch]) -> None:
        started = time.monotonic()
        await self.presence.move(room, agents)
        log.info("call moved", room=room, milliseconds=round((time.monotonic() - started) * 1000))
        await self._ledger.save()

    def _on_moved(self, task: asyncio.Task[None]) -> None:
        self._moving = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("the call stays in its room", error=str(error))

    async def transfer(self, to: str) -> None:
        """Have the carrier connect the phone with `to`, in E.164 form; the call ends here as `transferred`.
        Raises ConnectorError, then it goes on."""
        self._require_active()
        # The room is not left by chance now: the agent goes once it has handed the caller over.
        self.watch.hold(TRANSFERRING)
        try:
            await self._leg.transfer(to)
        except BaseException:
            self.watch.resume(TRANSFERRING)
            raise

    def _on_transferred(self) -> None:
        """Most carriers end the stream by themselves; else the room would go on talking into the new conversation."""
        if self._leg.stream_outlives_transfer:
            self.end(EndReason.TRANSFERRED)
        elif not self._ended.done():
            self._in(TRANSFER_GRACE, EndReason.TRANSFERRED)

    def _require_active(self) -> None:
        if self.state is not CallState.ACTIVE or self._ended.done():
            raise FailedPrecondition(f"the call is {self.state.value}, not active")

    # The end

    def end(self, reason: EndReason, detail: str = "", close_code: int | None = None, say: str = "") -> None:
        """Ask for the end; the first caller's reason stands. Never waits: `finished` tells when all is free.

        `say`: a sentence that the phone hears before it is hung up, by the carrier's REST API.
        """
        if not self._ended.done():
            self._ended.set_result(End(reason, detail, close_code or CLOSE_CODES.get(reason, CLOSE_NORMAL), say))

    async def _supervise(self) -> None:
        end = await self._ended
        with bind_call(self.call_id):
            self._parts.joins.forget(self.call_id)
            was_active = self.state is CallState.ACTIVE
            self.bridge.close()
            self.bridge.collect_drops()
            self._stream.stop()
            for timer in self._timers:
                timer.cancel()
            self.watch.stop()
            try:
                if was_active:
                    await play_out(end.reason, self.bridge, self._stream.over)
                await stop_tasks((*self._tasks, *self.watch.tasks, self._moving))
                await self._teardown.run(end, self._socket, was_active)
            except Exception:
                log.exception("the call could not be taken down whole")
            self.settled.set()
            self.finished.set()
            self._on_finished(self)

    # Small things

    def _begin(self, what: str, work: Coroutine[Any, Any, None]) -> None:
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
