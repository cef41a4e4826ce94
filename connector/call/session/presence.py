"""The caller's participation in LiveKit: joins, moves between and leaves rooms. The caller is in one room at a time."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from connector.call.dependencies import CallDependencies
from connector.call.media.bridge import Bridge
from connector.call.ports import Room
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.call_watch import CallWatch
from connector.call.session.room_events import OnRoomEnd, RoomEvents
from connector.carriers.codec import Codec
from connector.errors import ConnectorError, FailedPrecondition, Unavailable
from connector.model.call import AgentDispatch, Direction, ParticipantSpec

log = structlog.get_logger()


class RoomGone(ConnectorError):
    """The room of a call was deleted while its process was lost."""


REPLACED_WAIT = 10.0
"""Seconds for LiveKit to put this participant out because another process has joined with its identity."""
HEARD_WAIT = 2.0
"""Seconds after publishing for which the caller's audio is held back until somebody can hear it."""


@dataclass(slots=True)
class Place:
    """A room, and the caller's session in it."""

    name: str
    room: Room
    events: RoomEvents
    setup: Any = None
    """The token from `ensure_room` for `undo`. If the caller never comes, the set-up is undone, so that no agent waits
    in an empty room."""


class Presence:
    """Joins, moves and leaves for the caller. It is the bridge's `CallerVoice`, whichever room the caller is in."""

    def __init__(
        self, parts: CallDependencies, recorder: CallRecorder, codec: Codec, on_end: OnRoomEnd, watch: CallWatch
    ) -> None:
        self._parts = parts
        self._recorder = recorder
        self._codec = codec
        self._on_end = on_end
        self._watch = watch
        self.bridge = self._new_bridge(codec)
        self._place = self._new_place(recorder.record.room)
        self._place.events.open()
        self._hidden = self._visible = False
        self._published_rate = self._reply_rate = 0
        self._is_lost = False
        """The room ended while the phone was away. It is joined again when the phone comes back."""
        self._expected_sid: str | None = None
        """The SID of the room that another process was in, "" if unknown. None: the room may be a new one."""
        self._leaving: asyncio.Task[None] | None = None
        self._leaving_lost: asyncio.Task[None] | None = None

    def _new_bridge(self, codec: Codec) -> Bridge:
        return Bridge(
            codec,
            self,
            self._parts.metrics,
            time.monotonic,
            asyncio.get_running_loop().call_later,
            self._parts.limits.max_audio_age,
            self._recorder.request.call_id,
        )

    def _new_place(self, name: str) -> Place:
        ear = RoomEvents(self.bridge, self._recorder, self._parts.metrics, self._on_end, self._watch)
        return Place(name, self._parts.new_room(replace(self._recorder.request, room=name), ear), ear)

    @property
    def room(self) -> Room:
        return self._place.room

    # Called by the bridge and the digit relay

    def capture(self, pcm: bytes) -> None:
        self._place.room.capture(pcm)

    def take_dropped(self) -> int:
        return self._place.room.take_dropped()

    async def send_dtmf(self, code: int, digit: str) -> None:
        await self._place.room.send_dtmf(code, digit)

    # In

    @property
    def is_in(self) -> bool:
        """Whether the caller has joined, hidden or visible."""
        return self._hidden or self._visible

    async def wait_hidden(self, attributes: Mapping[str, str]) -> None:
        """Set up the room and its agents for an outbound call, and join as a hidden participant."""
        await self._ensure_room()
        started = time.monotonic()
        await self._place.room.join_hidden(attributes)
        self._hidden = True
        self._recorder.observe("join", started)

    async def appear(self, attributes: Mapping[str, str]) -> None:
        """Become visible, start to listen, and publish the track. Call this after the stream has started, because its
        sample rate must be known."""
        request = self._recorder.request
        # Listen first: an agent that greets a new participant can speak before our request is answered.
        self._listen()
        if self._hidden:
            await self._reveal(attributes)
        else:
            if request.direction is Direction.OUTBOUND:
                # Another process joined the room and dispatched the agents. If its hidden participant is still there,
                # LiveKit removes it, because ours has the same identity.
                self._place.setup = await self._parts.admin.keep_room(self._place.name, request.agents)
            else:
                await self._ensure_room()
            await self._place.room.join_visible(replace(request.participant, attributes=dict(attributes)))
        self._visible = True
        await self._publish()

    async def _publish(self) -> None:
        self._published_rate = self._codec.format.rate
        await self._place.room.publish(self._published_rate)

    async def _reveal(self, attributes: Mapping[str, str]) -> None:
        room = self._place.room
        while True:
            await room.until_connected()
            try:
                await self._parts.admin.reveal(
                    self._place.name, self._recorder.request.participant.identity, attributes
                )
            except ConnectorError:
                if room.connected:
                    raise
            else:
                room.revealed()
                return

    async def _ensure_room(self) -> None:
        self._place.setup = await self._parts.admin.ensure_room(self._place.name, self._recorder.request.agents)

    def _listen(self) -> None:
        self._reply_rate = self._codec.reply_format.rate
        self._place.room.listen(self._reply_rate)
        self.bridge.open_to_carrier()

    async def wait_until_heard(self) -> bool:
        """Wait until LiveKit gives the caller's track to a participant; earlier audio would be lost. Returns False if
        LiveKit reports none within `HEARD_WAIT` seconds. It does not report hidden participants."""
        try:
            async with asyncio.timeout(HEARD_WAIT):
                await self._place.room.wait_until_heard()
        except TimeoutError:
            return False
        return True

    # Away and back

    def attach(self, codec: Codec) -> None:
        """Replace the media stream. The new stream gets a new bridge, without the clocks, marks and buffers of the old
        one."""
        former, self._codec = self.bridge, codec
        self.bridge = self._new_bridge(codec)
        self.bridge.count_from(former)
        self._place.events.speak_to(self.bridge)

    def lose(self) -> None:
        """The room has ended while the phone is away: leave it, without events and without reconnecting."""
        self._is_lost = True
        self._leaving_lost = asyncio.create_task(self._place.room.leave(), name=f"leave {self._place.name}")

    async def is_away(self, status: str) -> None:
        """Set `connector.callStatus`: the participant stays in the room while the phone is elsewhere."""
        await self._set_attributes({"connector.callStatus": status})

    def expects(self, sid: str) -> None:
        """Come back only to the room with this SID; "": to the room of the same name, if it exists."""
        self._expected_sid = sid

    async def _require_room(self) -> None:
        """Raise RoomGone if the room has been deleted, or deleted and made again: the conversation is over."""
        sid = await self._parts.admin.sid(self._place.name)
        if not sid or (self._expected_sid and sid != self._expected_sid):
            raise RoomGone("the room was deleted while the process of the call was lost")

    async def until_replaced(self) -> None:
        """Wait until LiveKit has put this participant out, because another process has joined with its identity. If we
        left by ourselves, agents would take that for the end of the call."""
        if self._visible and not self._is_lost:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._place.events.has_ended.wait(), REPLACED_WAIT)

    async def come_back(self, attributes: Mapping[str, str]) -> None:
        """Connect the phone's new stream to its room again. Raises the same errors as `appear`."""
        if self._is_lost or (self._visible and self._published_rate != self._codec.format.rate):
            await self._rejoin(attributes)
        elif self._visible:
            if self._reply_rate != self._codec.reply_format.rate:
                self._listen()
            self.bridge.open_to_carrier()
            # Others may have changed the rest in the room.
            await self._set_attributes(self._recorder.ours(attributes))
        else:
            await self._replace(attributes)

    async def _replace(self, attributes: Mapping[str, str]) -> None:
        """Join instead of the participant of another process. LiveKit removes that one, because ours has the same
        identity."""
        if self._expected_sid is not None:
            await self._require_room()
        else:
            self._place.setup = await self._parts.admin.keep_room(self._place.name, self._recorder.request.agents)
        last = await self._last_participant()
        self._listen()
        await self._place.room.join_visible(self._as_before(last, attributes))
        self._visible = True
        await self._publish()

    def _as_before(self, last: ParticipantSpec, attributes: Mapping[str, str]) -> ParticipantSpec:
        return replace(last, attributes=self._recorder.attributes_after(last.attributes, attributes))

    async def _last_participant(self) -> ParticipantSpec:
        """The caller as it was last: in the room, or else as its process has left it in the store."""
        request = self._recorder.request
        identity = request.participant.identity
        try:
            there = await self._parts.admin.participant(self._place.name, identity, request.call_id)
        except ConnectorError as error:
            log.warning("changes of the caller's attributes could not be read", error=error.message)
            there = None
        return there or request.participant

    async def _rejoin(self, attributes: Mapping[str, str]) -> None:
        here, name = self._place, self._place.name
        there = self._new_place(name)
        self._place, self._is_lost = there, False
        here.events.close()
        there.events.open()
        left, self._leaving_lost = self._leaving_lost, None
        await (here.room.leave() if left is None else asyncio.wait([left]))
        there.setup = await self._parts.admin.keep_room(name, self._recorder.request.agents)
        await there.room.join_visible(self._as_before(here.room.participant, attributes))
        self._listen()
        await self._publish()

    async def _set_attributes(self, attributes: Mapping[str, str]) -> None:
        if not self._place.room.connected:
            return
        try:
            await self._place.room.set_attributes(attributes)
        except ConnectorError as error:
            log.warning("the call status attribute could not be set", error=error.message)

    # Over

    async def move(self, name: str, agents: Sequence[AgentDispatch]) -> None:
        """Move to another room. The caller stays in the old room until it can be heard in the new one. After any error
        the caller is still in the old room. Raises FailedPrecondition if the identity is in use in the new room."""
        identity = self._recorder.request.participant.identity
        if self._leaving is not None and self._leaving.get_name() == name:
            await asyncio.wait([self._leaving])  # The caller returns to a room that it may not have left completely.
        if await self._parts.admin.has(name, identity):
            raise FailedPrecondition(f"the room already has a participant with the caller's identity, {identity!r}")
        there, codec = self._new_place(name), self._codec
        try:
            there.room.listen(codec.reply_format.rate)
            async with self._parts.joins.live_call(self._recorder.request.call_id):
                there.setup = await self._parts.admin.ensure_room(name, agents)
                caller = self._place.room.participant
                told = self._recorder.told_attributes
                await there.room.join_visible(replace(caller, attributes={**told, **caller.attributes}))
                await there.room.publish(codec.format.rate)
            if there.events.ended is not None:
                raise Unavailable(
                    f"the caller was removed from the new room right after the join: {there.events.ended[0].value}"
                )
        except BaseException:
            await there.room.leave()
            if there.setup is not None:
                await self._parts.admin.undo(there.setup)
            raise
        here, self._place = self._place, there
        here.events.close()
        self._watch.moved(agents)
        # The phone may have come back with another stream in the meantime.
        self._published_rate, self._reply_rate = codec.format.rate, codec.reply_format.rate
        there.events.speak_to(self.bridge)
        there.events.open()
        self._recorder.moved(name)
        # Runs as a task so that, if the call ends now, teardown can still wait for the old room to be left.
        self._leaving = asyncio.create_task(here.room.leave(), name=here.name)

    # Out

    async def say_goodbye(self) -> None:
        """Set the call status to `hangup` while the room is connected."""
        room = self._place.room
        if room.connected:
            try:
                await room.set_attributes(self._recorder.status("hangup"))
            except Unavailable:
                if room.connected:  # Otherwise the room has just ended, and the attribute is not needed.
                    raise

    async def leave(self) -> None:
        former = [task for task in (self._leaving, self._leaving_lost) if task is not None]
        # In parallel, so that a former room that is stuck does not delay leaving this one.
        await asyncio.gather(self._leave_present(), *former)

    async def _leave_present(self) -> None:
        await self._place.room.leave()
        identity = self._recorder.request.participant.identity
        if sid := self._place.room.lingering:
            await self._parts.admin.remove(self._place.name, identity, sid)
        was_in = self._recorder.request.direction is Direction.OUTBOUND or self._recorder.record.started_at
        if self._recorder.inherited and not self._visible and was_in:
            # The process that waited for the stream joined the room as the caller, and may be dead.
            await self._parts.admin.remove(self._place.name, identity)

    async def undo(self) -> None:
        """Undo the set-up of the room for a caller that never came."""
        if self._place.setup is not None:
            await self._parts.admin.undo(self._place.setup)
