"""Connects the phone with its room when a stream starts, for the first time or again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import structlog

from connector.call.dependencies import BUSY, CLOSE_POLICY, CallDependencies, why_not_opened
from connector.call.media.digits import DigitRelay
from connector.call.media.media_stream import MediaStream
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.lifetime import Lifetime
from connector.call.session.moves import Moves
from connector.call.session.phone_leg import PhoneLeg
from connector.call.session.presence import Presence, RoomGone
from connector.call.session.streams import Streams
from connector.carriers.events import FormatRefused, StreamStarted
from connector.errors import ConnectorError, ResourceExhausted
from connector.model.call import Direction
from connector.model.end_reason import EndReason

log = structlog.get_logger()

CANNOT_HEAR = "We are sorry, we cannot hear you because of a technical problem. Goodbye."


class Answer:
    """Handles the first event of each stream of one call."""

    def __init__(
        self,
        life: Lifetime,
        streams: Streams,
        parts: CallDependencies,
        recorder: CallRecorder,
        presence: Presence,
        leg: PhoneLeg,
        moves: Moves,
        digits: DigitRelay,
        on_answered: Callable[[], None],
    ) -> None:
        """`on_answered` is called when the phone and the room hear each other, or will in a moment."""
        self._life = life
        self._streams = streams
        self._parts = parts
        self._recorder = recorder
        self._presence = presence
        self._leg = leg
        self._moves = moves
        self._digits = digits
        self._on_answered = on_answered
        self._relays = False
        """Digits are relayed."""
        self._answering = asyncio.Lock()
        """If a stream breaks while it is being connected to the room, the next one may follow at once."""

    def started(self, line: MediaStream, event: StreamStarted) -> None:
        if line is not self._streams.current:
            return
        known = self._recorder.record.carrier_call_id
        if known and not event.may_be_of(known):
            self._life.end(EndReason.CALL_MISMATCH, "the stream is not of the call that fetched the answer document")
            return
        self._recorder.learn(
            carrier_call_id=known or event.call_id,
            from_number=event.from_number,
            to_number=event.to_number,
            account_id=event.account_id,
        )
        self._leg.streams(event)
        self._life.begin("answer", self._connect(line, event, known))

    def refused(self, line: MediaStream, event: FormatRefused) -> None:
        """The audio format of the stream cannot be decoded. The phone hears a sentence about it, not just silence."""
        if line is not self._streams.current:
            return
        known = self._recorder.record.carrier_call_id
        log.warning("the carrier streams audio that cannot be decoded", format=event.format)
        if not known or event.may_be_of(known):
            self._recorder.learn(carrier_call_id=known or event.call_id, account_id=event.account_id)
            self._leg.streams(event)
        detail = f"the carrier streams {event.format}, which cannot be decoded"
        self._life.end(EndReason.PROTOCOL_ERROR, detail, CLOSE_POLICY, say=CANNOT_HEAR)

    async def _connect(self, line: MediaStream, event: StreamStarted, known: str) -> None:
        started = time.monotonic()
        async with self._answering:
            is_first = not self._recorder.record.started_at
            if line is not self._streams.current:
                return
            try:
                await self._moves.over()
                attributes = self._recorder.attributes_of(event, self._streams.codec.attributes(event, known))
                async with self._turn():
                    self._recorder.observe("queue", started)
                    await (self._presence.appear(attributes) if is_first else self._presence.come_back(attributes))
            except RoomGone as error:
                self._life.end(EndReason.ROOM_DELETED, error.message)
                return
            except ConnectorError as error:
                if line is self._streams.current:
                    # An inbound caller hears a sentence if nobody answers: too many calls, or LiveKit is unavailable.
                    calls_in = self._recorder.request.direction is Direction.INBOUND
                    is_busy = calls_in or isinstance(error, ResourceExhausted)
                    self._life.end(*why_not_opened(error), say=BUSY if is_busy else "")
                return
            if self._life.is_ending or line is not self._streams.current:
                return
            if is_first:
                self._recorder.start()
            self._on_answered()
            self._life.begin("hear the caller", self._hear_caller())
        self._recorder.observe("answer" if is_first else "return", started)
        what = "call active" if is_first else "call active again"
        log.info(what, milliseconds=round((time.monotonic() - started) * 1000))
        await self._recorder.save()

    def _turn(self) -> AbstractAsyncContextManager[None]:
        joins, call_id = self._parts.joins, self._recorder.request.call_id
        return joins.live_call(call_id) if self._presence.is_in else joins.streaming_call(call_id)

    async def _hear_caller(self) -> None:
        """Send the buffered audio and digits to the room as soon as somebody there hears the caller; then all that
        follows."""
        bridge = self._presence.bridge
        if await self._presence.wait_until_heard():
            bridge.open_from_carrier()
        else:
            bridge.open_from_carrier(self._parts.limits.max_audio_age)
        if not self._relays:
            self._relays = True
            await self._digits.run()
