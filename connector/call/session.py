"""One call: from the moment it is asked for to the moment everything it held is free again.

A call ends once. Whatever notices the end calls `end(reason)`; the first reason stands, and one task, the
supervisor, takes everything down in a fixed order. Nothing else closes the socket or leaves the room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from connector.audio import dtmf
from connector.call.bridge import Bridge
from connector.call.digits import DigitRelay
from connector.call.ledger import Ledger, that_fit
from connector.call.ports import CarrierSocket
from connector.call.state import Trigger
from connector.call.terms import CARRIER_ENDS, CLOSE_CODES, CLOSE_NORMAL, FINAL_STATUSES, End, Parts, why_not_opened
from connector.carriers.events import (
    AudioReceived,
    AudioRejected,
    CarrierComplained,
    DtmfReceived,
    Event,
    MarkReached,
    StreamStarted,
    StreamStopped,
)
from connector.errors import (
    CarrierProtocolError,
    ConnectorError,
    FailedPrecondition,
    ResourceExhausted,
    TokenExpired,
    TokenUsed,
    Unavailable,
)
from connector.logs import bind_call
from connector.model import CallRecord, CallRequest, CallState, Direction, EndReason

log = structlog.get_logger()

STEP_TIMEOUT = 6.0
"""Seconds that any one step of the teardown may take before the next one starts."""


class CallSession:
    """See the module. `open`, then `claim` and `carry` by the media socket, `end` by anyone."""

    def __init__(self, request: CallRequest, parts: Parts, on_finished: Callable[[CallSession], None]) -> None:
        self.request = request
        self._parts = parts
        self._on_finished = on_finished
        self._room = parts.new_room(request, self)
        self._codec = parts.new_codec(request.provider)
        self._ledger = Ledger(request, parts)
        self.bridge = Bridge(self._codec, self._room, parts.metrics, time.monotonic)
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[End] = self._loop.create_future()
        self.finished = asyncio.Event()
        self.settled = asyncio.Event()
        """The phone was answered, or will not be."""
        self._placed = False
        self._dialing: asyncio.Task[None] | None = None
        self._status_number = -1
        self._claimed = False
        self._setup: Any = None
        """What `ensure_room` did; taken back when nobody ever came, so that no agent waits in an empty room."""
        self._socket: CarrierSocket | None = None
        self._sender: asyncio.Task[None] | None = None
        self._answering: asyncio.Task[None] | None = None
        self._digits = DigitRelay(self._room, parts.metrics)
        self._digit_sender: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._last_message = 0.0
        self.deadline = self.record.created_at + parts.limits.connect_timeout
        """Unix time until which the stream may open."""
        self._connect_timer = self._loop.call_later(parts.limits.connect_timeout, self._on_connect_timeout)
        self._supervisor: asyncio.Task[None] | None = None

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
    def claimed(self) -> bool:
        return self._claimed

    # Before the stream

    async def open(self) -> None:
        """Create what the direction asks for. Raises the error that the client shall see; then nothing is left."""
        with bind_call(self.call_id):
            self._supervisor = asyncio.create_task(self._supervise(), name=f"supervise {self.call_id}")
            try:
                if self.request.direction is Direction.OUTBOUND:
                    await self._ensure_room()
                    started = time.monotonic()
                    await self._room.join_hidden(self._ledger.attributes("ringing"))
                    if self._ended.done():
                        raise Unavailable("the caller was taken out of the room again at once")
                    self._ledger.observe("join", started)
                    self._ledger.advance(Trigger.JOINED_HIDDEN)
                else:
                    await self._parts.admin.check()
                await self._parts.store.save_call(self.record)
            except BaseException as error:
                self.end(*why_not_opened(error))
                await self.finished.wait()
                raise
            log.info(
                "call created",
                provider=self.request.provider.value,
                direction=self.request.direction.value,
                room=self.request.room,
                identity=self.request.participant.identity,
                agents=[agent.agent_name for agent in self.request.agents],
            )

    async def _ensure_room(self) -> None:
        self._setup = await self._parts.admin.ensure_room(self.request.room, self.request.agents)

    def fetched(self, carrier_call_id: str, from_number: str, to_number: str) -> None:
        """The carrier fetched the answer document: the callee has picked up. Empty strings teach nothing.

        Raises TokenUsed when another carrier call fetched it before: one connect_url serves one call.
        """
        known = self.record.carrier_call_id
        if carrier_call_id and known and carrier_call_id != known:
            raise TokenUsed("this connect_url belongs to another carrier call")
        self._ledger.learn(carrier_call_id=carrier_call_id, from_number=from_number, to_number=to_number)
        if not self._claimed and not self._ended.done():
            self.extend_deadline(self._parts.limits.answer_grace)
        with bind_call(self.call_id):
            log.info("answer document fetched", **{"from": self.record.from_number, "to": self.record.to_number})

    async def dial(self, place: Callable[[], Awaitable[tuple[str, str]]], from_number: str, to_number: str) -> None:
        """Have the carrier call the phone; `place` returns its id and first status. The call is then ours to hang up.

        That needs the id, so a call that ends before the carrier has answered waits for the answer, whether or not
        somebody still waits here. Raises what `place` does, and Unavailable when the call has ended.
        """

        async def dial() -> None:
            carrier_call_id, status = await place()
            self._placed = True
            self._ledger.learn(
                carrier_call_id=carrier_call_id,
                from_number=from_number,
                to_number=to_number,
                carrier_status="" if self.record.carrier_status else status,
            )

        if self._ended.done():
            raise Unavailable("the call ended before the phone was called")
        self._dialing = asyncio.create_task(dial(), name=f"dial {self.call_id}")
        self._dialing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([self._dialing])
        if self._dialing.cancelled():
            raise Unavailable("the call ended before the carrier answered")
        self._dialing.result()
        await self._ledger.save()

    def extend_deadline(self, seconds: float) -> None:
        """Leave the stream at least this long from now to open."""
        self.deadline = max(self.deadline, time.time() + seconds)
        self._connect_timer.cancel()
        self._connect_timer = self._loop.call_later(self.deadline - time.time(), self._on_connect_timeout)

    def carrier_said(self, status: str, number: int) -> None:
        """The carrier reports progress, in Twilio's words; reports may come out of order, `number` counts them."""
        if number < self._status_number:
            return
        self._status_number = number
        self._ledger.learn(carrier_status=status)
        if status == "in-progress":
            self.settled.set()
        reason = CARRIER_ENDS.get(status)
        # A stream tells its own end, and more exactly than the report that follows it.
        if reason is not None and self._socket is None:
            self.end(reason, f"the carrier reports {status}")

    def check_claimable(self) -> None:
        """Raise TokenUsed or TokenExpired when `claim` would."""
        if self._claimed:
            raise TokenUsed("this connect_url has been used by a WebSocket")
        if self._ended.done():
            raise TokenExpired("the call has ended")

    def claim(self) -> None:
        """Take the one place for a WebSocket. Synchronous on purpose: between a check and a mark with an
        `await` between them several sockets get in."""
        self.check_claimable()
        self._claimed = True
        self._connect_timer.cancel()

    # The stream

    async def carry(self, socket: CarrierSocket) -> None:
        """Serve a claimed media socket until the call is over and everything is free."""
        with bind_call(self.call_id):
            if self._ended.done():  # While the handshake was under way: the supervisor knows of no socket.
                await socket.close(self._ended.result().close_code, self._ended.result().reason.value)
                await self.finished.wait()
                return
            self._socket = socket
            self._watch_media()
            self._sender = self._begin("send", self.bridge.outbox.send_to(socket))
            log.info("stream opened")
            try:
                async for text in socket.messages():
                    self._last_message = self._loop.time()
                    self._receive(self._codec.receive(text))
                if socket.ended_cleanly:
                    self.end(EndReason.CARRIER_CLOSED)
                else:
                    self.end(EndReason.CARRIER_LOST)
            except CarrierProtocolError as error:
                self.end(EndReason.PROTOCOL_ERROR, error.message, error.close_code)
            except asyncio.CancelledError:
                self.end(EndReason.CARRIER_LOST, "the connection's handler was cancelled")
                raise
            except Exception:
                log.exception("a message from the carrier could not be handled")
                self.end(EndReason.INTERNAL_ERROR)
            await self.finished.wait()

    def _receive(self, event: Event) -> None:
        if self._ended.done():  # The supervisor takes everything down: nothing new may begin.
            return
        match event:
            case AudioReceived():
                self.bridge.from_carrier(event)
            case MarkReached():
                self.bridge.mark_reached(event.name)
            case DtmfReceived():
                self._digits.put(event.digit)
            case AudioRejected():
                self.bridge.rejected(event.why)
            case StreamStarted():
                self._on_started(event)
            case StreamStopped():
                self.end(EndReason.CARRIER_HANGUP)
            case CarrierComplained():
                log.warning("the carrier could not use what it was sent", code=event.code, text=event.text)
            case _:
                log.debug("message ignored", why=event.why)

    def _on_started(self, event: StreamStarted) -> None:
        known = self.record.carrier_call_id
        if known and event.call_id != known:
            self.end(EndReason.CALL_MISMATCH, "the stream is not of the call that fetched the answer document")
            return
        self._ledger.learn(carrier_call_id=event.call_id)
        self.bridge.start(self._codec.format, self._codec.reply_format)
        self._answering = self._begin("answer", self._answer(event))

    async def _answer(self, event: StreamStarted) -> None:
        started = time.monotonic()
        attributes = self._ledger.attributes("active")
        attributes |= that_fit(self._codec.attributes(event), attributes)
        try:
            if self.request.direction is Direction.OUTBOUND:
                await self._parts.admin.reveal(self.request.room, self.request.participant.identity, attributes)
            else:
                await self._ensure_room()
                await self._room.join_visible(attributes)
            await self._room.publish(self._codec.format.rate)
        except ConnectorError as error:
            self.end(EndReason.LIVEKIT_UNAVAILABLE, error.message)
            return
        if self._ended.done():
            return
        self._ledger.start()
        self.settled.set()
        self.bridge.open()
        self._room.listen(self._codec.reply_format.rate)
        self._digit_sender = self._begin("digits", self._digits.run())
        limits = self._parts.limits
        self._timers.append(self._loop.call_later(limits.max_duration, self.end, EndReason.MAX_DURATION))
        self._ledger.observe("answer", started)
        log.info("call active", milliseconds=round((time.monotonic() - started) * 1000))
        await self._ledger.save()

    # What the room says (connector.room.events.RoomListener)

    def room_source_added(self, source: str) -> None:
        self.bridge.source_added(source)

    def room_source_removed(self, source: str) -> None:
        self.bridge.source_removed(source)

    def room_audio(self, source: str, pcm: NDArray[np.int16], at: float) -> None:
        self.bridge.from_room(source, pcm, at)

    def room_dtmf(self, digit: str) -> None:
        if len(digit) != 1 or digit not in dtmf.DIGITS:
            self._parts.metrics.refused.labels("dtmf", "unknown_digit").inc()
        elif not self.bridge.play_tones(digit):
            self._parts.metrics.refused.labels("dtmf", "too_many").inc()
        else:
            self._parts.metrics.dtmf.labels("to_carrier").inc()

    def room_cleared(self) -> None:
        self.bridge.clear()

    def room_ended(self, reason: EndReason, detail: str) -> None:
        self.end(reason, detail)

    # What the API asks

    def send_dtmf(self, digits: str) -> None:
        """Play digits to the phone. FailedPrecondition unless active, ResourceExhausted when too many wait."""
        self._require_active()
        if not self.bridge.play_tones(digits):
            raise ResourceExhausted("too many digits wait to be played")
        self._parts.metrics.dtmf.labels("to_carrier").inc(len(digits))

    def clear_audio(self) -> None:
        """Drop what the phone has yet to hear. FailedPrecondition unless active."""
        self._require_active()
        self.bridge.clear()

    def _require_active(self) -> None:
        if self.state is not CallState.ACTIVE or self._ended.done():
            raise FailedPrecondition(f"the call is {self.state.value}, not active")

    # The end

    def end(self, reason: EndReason, detail: str = "", close_code: int | None = None) -> None:
        """Ask for the end; the first caller's reason stands. Never waits: `finished` tells when all is free."""
        if not self._ended.done():
            self._ended.set_result(End(reason, detail, close_code or CLOSE_CODES.get(reason, CLOSE_NORMAL)))

    async def _supervise(self) -> None:
        end = await self._ended
        with bind_call(self.call_id):
            was_active = self.state is CallState.ACTIVE
            self.bridge.close()
            self.bridge.collect_drops()
            self._connect_timer.cancel()
            for timer in self._timers:
                timer.cancel()
            await self._stop_tasks()
            if self._room.connected:
                await self._step("attributes", self._room.set_attributes({"connector.callStatus": "hangup"}))
            await self._hang_up(end, was_active)
            if self._socket is not None:
                await self._step("socket", self._socket.close(end.close_code, end.reason.value))
            await self._step("room", self._room.leave())
            if self._setup is not None and not was_active:
                await self._step("undo", self._parts.admin.undo(self._setup))
            self._ledger.finish(end)
            await self._step("record", self._parts.store.save_call(self.record))
            self._ledger.count(end, self.bridge)
            self.settled.set()
            self.finished.set()
            self._on_finished(self)

    async def _hang_up(self, end: End, was_active: bool) -> None:
        """End the phone's leg over the carrier's REST API where the end of the stream would not do it.

        That is: when the API asked for the end (the answer document may go on after the stream), and when a
        call that we placed still rings.
        """
        if self._dialing is not None:
            await asyncio.wait([self._dialing], timeout=STEP_TIMEOUT)
            self._dialing.cancel()
        control = self._parts.control.get(self.request.provider)
        is_over = self.record.carrier_status in FINAL_STATUSES or end.reason is EndReason.CARRIER_HANGUP
        if control is None or not self.record.carrier_call_id or is_over:
            return
        still_rings = self._placed and not was_active
        if end.reason is EndReason.ENDED_BY_API or still_rings:
            await self._step("hang up", control.hang_up(self.record.carrier_call_id))

    async def _stop_tasks(self) -> None:
        tasks = [task for task in (self._sender, self._answering, self._digit_sender) if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=STEP_TIMEOUT)

    async def _step(self, name: str, work: Awaitable[None]) -> None:
        """One step of the teardown: bounded, and its failure must not keep the next one from running."""
        try:
            await asyncio.wait_for(work, STEP_TIMEOUT)
        except ConnectorError as error:
            log.warning("teardown step failed", step=name, error=error.message)
        except Exception:
            log.exception("teardown step failed", step=name)

    # Small things

    def _begin(self, what: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A task of this call; a call one of whose tasks breaks is over, not half alive."""
        task = asyncio.create_task(work, name=f"{what} {self.call_id}")
        task.add_done_callback(self._on_task_done)
        return task

    def _on_task_done(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a task of the call broke", task=task.get_name(), exc_info=error)
            self.end(EndReason.INTERNAL_ERROR, repr(error))

    def _on_connect_timeout(self) -> None:
        self.end(EndReason.CONNECT_TIMEOUT, "no media WebSocket came in time")

    def _watch_media(self) -> None:
        """End the call when the socket says nothing for too long. One timer, moved only when it fires."""
        self._last_message = self._loop.time()
        limit = self._parts.limits.media_timeout

        def check() -> None:
            silent = self._loop.time() - self._last_message
            if silent >= limit:
                self.end(EndReason.MEDIA_TIMEOUT, f"no message for {limit:g} s")
            else:
                self._timers.append(self._loop.call_later(limit - silent, check))

        self._timers[:] = [self._loop.call_later(limit, check)]
