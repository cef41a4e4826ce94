"""One call: from the moment it is asked for to the moment everything it held is free again.

A call ends once. Whatever notices the end calls `end(reason)`; the first reason stands, and one task, the
supervisor, takes everything down in a fixed order. Nothing else closes the socket or leaves the room.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import structlog
from numpy.typing import NDArray

from connector.audio import dtmf
from connector.call.bridge import Bridge
from connector.call.ports import Admin, CallStore, CarrierControl, CarrierSocket, CodecFactory, RoomFactory
from connector.call.state import Trigger, next_state
from connector.carriers.events import (
    AudioReceived,
    AudioRejected,
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
from connector.metrics import Metrics
from connector.model import CallRecord, CallRequest, CallState, Direction, EndReason, Provider
from connector.storage.base import StoreError

log = structlog.get_logger()

STEP_TIMEOUT = 6.0
"""Seconds that any one step of the teardown may take before the next one starts."""
MAX_PENDING_DIGITS = 64
MAX_ATTRIBUTES = 63 * 1024
"""Bytes of keys and values; livekit-server's own limit is 64 KiB, the rest is for `callStatus`."""

CLOSE_NORMAL = 1000
CLOSE_POLICY = 1008
CLOSE_INTERNAL = 1011
_CLOSE_CODES = {EndReason.CALL_MISMATCH: CLOSE_POLICY, EndReason.INTERNAL_ERROR: CLOSE_INTERNAL}


@dataclass(frozen=True, slots=True)
class Limits:
    """Seconds; see `connector.config.Settings`."""

    connect_timeout: float
    answer_grace: float
    media_timeout: float
    max_duration: float


@dataclass(frozen=True, slots=True)
class Parts:
    """What every call of a process shares."""

    admin: Admin
    store: CallStore
    metrics: Metrics
    limits: Limits
    new_room: RoomFactory
    new_codec: CodecFactory
    owner: str
    control: Mapping[Provider, CarrierControl] = field(default_factory=dict)
    """Carriers whose REST API can be used; empty where no credentials are configured."""


_CARRIER_ENDS = {
    "busy": EndReason.BUSY,
    "no-answer": EndReason.NO_ANSWER,
    "canceled": EndReason.CANCELED,
    "failed": EndReason.CARRIER_FAILED,
    "completed": EndReason.CARRIER_HANGUP,
}
FINAL_STATUSES = frozenset(_CARRIER_ENDS)
"""The carrier's statuses after which nothing comes."""


@dataclass(frozen=True, slots=True)
class End:
    reason: EndReason
    detail: str
    close_code: int


def _that_fit(more: dict[str, str], kept: dict[str, str]) -> dict[str, str]:
    """Stream parameters are the carrier's to fill; those past LiveKit's limit must not keep the caller out."""
    left = MAX_ATTRIBUTES - sum(len(key.encode()) + len(value.encode()) for key, value in kept.items())
    fitting = {}
    for key, value in more.items():
        left -= len(key.encode()) + len(value.encode())
        if left < 0:
            log.warning("stream parameters left out: together they pass LiveKit's limit", first=key)
            break
        fitting[key] = value
    return fitting


def _why_not_opened(error: BaseException) -> tuple[EndReason, str]:
    if isinstance(error, StoreError):
        return EndReason.INTERNAL_ERROR, error.message
    if isinstance(error, ConnectorError):
        return EndReason.LIVEKIT_UNAVAILABLE, error.message
    if isinstance(error, asyncio.CancelledError):
        return EndReason.ENDED_BY_API, "the request was given up"
    return EndReason.INTERNAL_ERROR, repr(error)


class CallSession:
    """See the module. `open`, then `claim` and `carry` by the media socket, `end` by anyone."""

    def __init__(self, request: CallRequest, parts: Parts, on_finished: Callable[[CallSession], None]) -> None:
        self.request = request
        self._parts = parts
        self._on_finished = on_finished
        self._room = parts.new_room(request, self)
        self._codec = parts.new_codec(request.provider)
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
        self._digits: asyncio.Queue[str] = asyncio.Queue(MAX_PENDING_DIGITS)
        self._digit_sender: asyncio.Task[None] | None = None
        self._timers: list[asyncio.TimerHandle] = []
        self._last_message = 0.0
        self.record = CallRecord(
            call_id=request.call_id,
            provider=request.provider,
            direction=request.direction,
            room=request.room,
            identity=request.participant.identity,
            state=CallState.PENDING,
            owner=parts.owner,
            created_at=time.time(),
        )
        self.deadline = self.record.created_at + parts.limits.connect_timeout
        """Unix time until which the stream may open."""
        self._connect_timer = self._loop.call_later(parts.limits.connect_timeout, self._on_connect_timeout)
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def call_id(self) -> str:
        return self.request.call_id

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
                    await self._room.join_hidden(self._attributes("ringing"))
                    if self._ended.done():
                        raise Unavailable("the caller was taken out of the room again at once")
                    self._observe("join", started)
                    self._advance(Trigger.JOINED_HIDDEN)
                else:
                    await self._parts.admin.check()
                await self._parts.store.save_call(self.record)
            except BaseException as error:
                self.end(*_why_not_opened(error))
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
        self.record = replace(
            self.record,
            carrier_call_id=carrier_call_id or known,
            from_number=from_number or self.record.from_number,
            to_number=to_number or self.record.to_number,
        )
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
            self.record = replace(
                self.record,
                carrier_call_id=carrier_call_id,
                carrier_status=self.record.carrier_status or status,
                from_number=from_number,
                to_number=to_number,
            )

        if self._ended.done():
            raise Unavailable("the call ended before the phone was called")
        self._dialing = asyncio.create_task(dial(), name=f"dial {self.call_id}")
        self._dialing.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([self._dialing])
        if self._dialing.cancelled():
            raise Unavailable("the call ended before the carrier answered")
        self._dialing.result()
        await self._save()

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
        self.record = replace(self.record, carrier_status=status)
        if status == "in-progress":
            self.settled.set()
        reason = _CARRIER_ENDS.get(status)
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
                self._on_carrier_digit(event.digit)
            case AudioRejected():
                self.bridge.rejected(event.why)
            case StreamStarted():
                self._on_started(event)
            case StreamStopped():
                self.end(EndReason.CARRIER_HANGUP)
            case _:
                log.debug("message ignored", why=event.why)

    def _on_started(self, event: StreamStarted) -> None:
        known = self.record.carrier_call_id
        if known and event.call_id != known:
            self.end(EndReason.CALL_MISMATCH, "the stream is not of the call that fetched the answer document")
            return
        self.record = replace(self.record, carrier_call_id=event.call_id)
        self._answering = self._begin("answer", self._answer(event))

    async def _answer(self, event: StreamStarted) -> None:
        started = time.monotonic()
        attributes = self._attributes("active")
        attributes |= _that_fit(self._codec.attributes(event), attributes)
        try:
            if self.request.direction is Direction.OUTBOUND:
                await self._parts.admin.reveal(self.request.room, self.request.participant.identity, attributes)
            else:
                await self._ensure_room()
                await self._room.join_visible(attributes)
            await self._room.publish()
        except ConnectorError as error:
            self.end(EndReason.LIVEKIT_UNAVAILABLE, error.message)
            return
        if self._ended.done():
            return
        self._advance(Trigger.STREAM_STARTED)
        self.record = replace(self.record, started_at=time.time())
        self.settled.set()
        self.bridge.open()
        self._room.listen()
        self._digit_sender = self._begin("digits", self._send_digits())
        limits = self._parts.limits
        self._timers.append(self._loop.call_later(limits.max_duration, self.end, EndReason.MAX_DURATION))
        self._observe("answer", started)
        log.info("call active", milliseconds=round((time.monotonic() - started) * 1000))
        await self._save()

    def _on_carrier_digit(self, digit: str) -> None:
        try:
            self._digits.put_nowait(digit)
        except asyncio.QueueFull:
            self._parts.metrics.refused.labels("dtmf", "too_many").inc()

    async def _send_digits(self) -> None:
        while True:
            digit = await self._digits.get()
            try:
                await self._room.send_dtmf(dtmf.event_code(digit), digit)
                self._parts.metrics.dtmf.labels("from_carrier").inc()
            except ConnectorError as error:
                log.warning("a digit did not reach the room", error=error.message)

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
            self._ended.set_result(End(reason, detail, close_code or _CLOSE_CODES.get(reason, CLOSE_NORMAL)))

    async def _supervise(self) -> None:
        end = await self._ended
        with bind_call(self.call_id):
            was_active = self.state is CallState.ACTIVE
            self.bridge.close()
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
            self._finish_record(end)
            await self._step("record", self._parts.store.save_call(self.record))
            self._count(end, was_active)
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

    def _finish_record(self, end: End) -> None:
        self._advance(Trigger.END)
        self.record = replace(self.record, ended_at=time.time(), end_reason=end.reason, end_detail=end.detail)

    def _count(self, end: End, was_active: bool) -> None:
        self.bridge.collect_drops()
        metrics, record = self._parts.metrics, self.record
        metrics.calls.labels(record.provider.value, record.direction.value, end.reason.value).inc()
        seconds = record.ended_at - record.started_at if was_active else 0.0
        if was_active:
            metrics.duration.labels(record.direction.value).observe(seconds)
        log.info(
            "call ended",
            reason=end.reason.value,
            detail=end.detail or None,
            seconds=round(seconds, 3),
            heard_frames=self.bridge.heard_frames,
            sent_frames=self.bridge.sent_frames,
            dropped_frames=self.bridge.dropped_frames,
        )

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

    def _advance(self, trigger: Trigger) -> None:
        old = self.record.state
        self.record = replace(self.record, state=next_state(self.request.direction, old, trigger))

    def _attributes(self, status: str) -> dict[str, str]:
        """The request's attributes and ours; see docs/attributes.md."""
        ours = {
            "connector.callId": self.call_id,
            "connector.provider": self.request.provider.value,
            "connector.direction": self.request.direction.value,
            "connector.callStatus": status,
        }
        if self.record.from_number:
            ours["phone.from"] = self.record.from_number
        if self.record.to_number:
            ours["phone.to"] = self.record.to_number
        return self.request.participant.attributes | ours

    async def _save(self) -> None:
        try:
            await self._parts.store.save_call(self.record)
        except ConnectorError as error:
            log.warning("the call record could not be saved", error=error.message)

    def _observe(self, step: str, started: float) -> None:
        self._parts.metrics.setup.labels(step, self.request.direction.value).observe(time.monotonic() - started)

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
