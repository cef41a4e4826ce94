"""Where the caller is in LiveKit: one room at a time, and the bridge's end there."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import structlog

from connector.call.dependencies import CallDependencies
from connector.call.media.bridge import Bridge
from connector.call.ports import Room
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.room_events import OnEnd, RoomEvents, RoomWatcher
from connector.carriers.codec import Codec
from connector.errors import ConnectorError, FailedPrecondition, Unavailable
from connector.model import AgentDispatch, Direction

log = structlog.get_logger()

HEARD_WAIT = 2.0
"""Seconds from the published track in which the caller's voice waits for somebody to hear it."""


@dataclass(slots=True)
class Place:
    """One room, and the caller's session in it."""

    name: str
    room: Room
    events: RoomEvents
    setup: Any = None
    """What `ensure_room` did; taken back when nobody ever came, so that no agent waits in an empty room."""


class Presence:
    """The caller's room, whichever it is at the moment: the bridge's `CallerVoice`, and the way in, over and out."""

    def __init__(
        self, parts: CallDependencies, recorder: CallRecorder, codec: Codec, on_end: OnEnd, watcher: RoomWatcher
    ) -> None:
        self._parts = parts
        self._recorder = recorder
        self._codec = codec
        self._on_end = on_end
        self._watcher = watcher
        self.bridge = self._new_bridge(codec)
        self._place = self._new_place(recorder.record.room)
        self._place.events.open()
        self._hidden = self._visible = False
        self._published_rate = self._reply_rate = 0
        self._is_lost = False
        """The room is gone while the phone was away from it; it is joined again when the phone comes back."""
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
        ear = RoomEvents(self.bridge, self._recorder, self._parts.metrics, self._on_end, self._watcher)
        return Place(name, self._parts.new_room(replace(self._recorder.request, room=name), ear), ear)

    @property
    def room(self) -> Room:
        return self._place.room

    # The bridge's and the digits' end

    def capture(self, pcm: bytes) -> None:
        self._place.room.capture(pcm)

    def take_dropped(self) -> int:
        return self._place.room.take_dropped()

    async def send_dtmf(self, code: int, digit: str) -> None:
        await self._place.room.send_dtmf(code, digit)

    # In

    @property
    def is_in(self) -> bool:
        """Whether the caller has joined already, seen or not."""
        return self._hidden or self._visible

    async def wait_hidden(self, attributes: Mapping[str, str]) -> None:
        """An outbound call's wait: the room with its agents, and the caller in it, unseen."""
        await self._ensure_room()
        started = time.monotonic()
        await self._place.room.join_hidden(attributes)
        self._hidden = True
        self._recorder.observe("join", started)

    async def appear(self, attributes: Mapping[str, str]) -> None:
        """Be seen, and hear from that moment on; and publish. The stream has started: its rate is known."""
        request = self._recorder.request
        # First: whoever greets the caller on sight is quicker than the answer to our request.
        self._listen()
        if self._hidden:
            await self._reveal(attributes)
        else:
            if request.direction is Direction.OUTBOUND:
                # Another process let the caller in and sent the agents. Its hidden participant, if it still is there,
                # gives way to this one, of the same identity.
                self._place.setup = await self._parts.admin.keep_room(self._place.name, request.agents)
            else:
                await self._ensure_room()
            await self._place.room.join_visible(attributes)
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
        """Until somebody in the room is given the caller's voice, which before is lost. False when LiveKit tells of
        nobody in `HEARD_WAIT` seconds: it does not tell of hidden participants."""
        try:
            async with asyncio.timeout(HEARD_WAIT):
                await self._place.room.wait_until_heard()
        except TimeoutError:
            return False
        return True

    # Away and back

    def attach(self, codec: Codec) -> None:
        """Another media stream takes the place of the one before: its bridge knows nothing of that one's clocks,
        marks and buffers."""
        former, self._codec = self.bridge, codec
        self.bridge = self._new_bridge(codec)
        self.bridge.count_from(former)
        self._place.events.speak_to(self.bridge)

    def lose(self) -> None:
        """The room is gone, and the phone is away: nobody has to be told, and nobody tries to be in it again."""
        self._is_lost = True
        self._leaving_lost = asyncio.create_task(self._place.room.leave(), name=f"leave {self._place.name}")

    async def is_away(self, status: str) -> None:
        """The caller stays in the room while the phone is elsewhere."""
        await self._set_attributes({"connector.callStatus": status})

    async def come_back(self, attributes: Mapping[str, str]) -> None:
        """The phone has another stream, and is heard in its room again. Raises what `appear` does."""
        if self._is_lost or (self._visible and self._published_rate != self._codec.format.rate):
            await self._rejoin(attributes)
        elif self._visible:
            if self._reply_rate != self._codec.reply_format.rate:
                self._listen()
            self.bridge.open_to_carrier()
            # What the client asked for may have been changed in the room since.
            asked = self._recorder.request.participant.attributes
            await self._set_attributes({name: value for name, value in attributes.items() if name not in asked})
        else:
            # Another process has brought the caller in. Its participant gives way to this one, of the same identity.
            self._place.setup = await self._parts.admin.keep_room(self._place.name, self._recorder.request.agents)
            await self._place.room.join_visible(attributes)
            self._listen()
            self._visible = True
            await self._publish()

    async def _rejoin(self, attributes: Mapping[str, str]) -> None:
        here, name = self._place, self._place.name
        there = self._new_place(name)
        self._place, self._is_lost = there, False
        here.events.close()
        there.events.open()
        left, self._leaving_lost = self._leaving_lost, None
        await (here.room.leave() if left is None else asyncio.wait([left]))
        there.setup = await self._parts.admin.keep_room(name, self._recorder.request.agents)
        await there.room.join_visible(attributes)
        self._listen()
        await self._publish()

    async def _set_attributes(self, attributes: Mapping[str, str]) -> None:
        if not self._place.room.connected:
            return
        try:
            await self._place.room.set_attributes(attributes)
        except ConnectorError as error:
            log.warning("the room could not be told where the phone is", error=error.message)

    # Over

    async def move(self, name: str, agents: Sequence[AgentDispatch]) -> None:
        """Into another room; the caller stays in this one until it can be heard in the other. Whatever is raised
        leaves the caller where it was. FailedPrecondition when the identity is taken there."""
        identity = self._recorder.request.participant.identity
        if self._leaving is not None and self._leaving.get_name() == name:
            await asyncio.wait([self._leaving])  # Back to where the caller has just come from, and may still be.
        if await self._parts.admin.has(name, identity):
            raise FailedPrecondition(f"the room has a participant {identity!r} already, the caller's identity")
        there = self._new_place(name)
        try:
            there.room.listen(self._codec.reply_format.rate)
            async with self._parts.joins.live_call(self._recorder.request.call_id):
                there.setup = await self._parts.admin.ensure_room(name, agents)
                await there.room.join_visible({**self._recorder.told_attributes, **self._place.room.attributes})
                await there.room.publish(self._codec.format.rate)
            if there.events.ended is not None:
                raise Unavailable(f"the caller was taken out of the other room at once: {there.events.ended[0].value}")
        except BaseException:
            await there.room.leave()
            if there.setup is not None:
                await self._parts.admin.undo(there.setup)
            raise
        here, self._place = self._place, there
        here.events.close()
        self._watcher.moved(agents)
        there.events.open()
        self._recorder.moved(name)
        # A task of its own: an end of the call that comes now must find both rooms left.
        self._leaving = asyncio.create_task(here.room.leave(), name=here.name)

    # Out

    async def say_goodbye(self) -> None:
        """Tell the room, while it can be told."""
        room = self._place.room
        if room.connected:
            try:
                await room.set_attributes(self._recorder.status("hangup"))
            except Unavailable:
                if room.connected:  # Else the room has ended meanwhile, and there is nobody to be told.
                    raise

    async def leave(self) -> None:
        former = [task for task in (self._leaving, self._leaving_lost) if task is not None]
        # Together: a former room that is stuck does not hold the caller in this one.
        await asyncio.gather(self._leave_present(), *former)

    async def _leave_present(self) -> None:
        await self._place.room.leave()
        identity = self._recorder.request.participant.identity
        if sid := self._place.room.lingering:
            await self._parts.admin.remove(self._place.name, identity, sid)
        was_in = self._recorder.request.direction is Direction.OUTBOUND or self._recorder.record.started_at
        if self._recorder.inherited and not self._visible and was_in:
            # The process that waited with the call has let the caller in, and may not live any more.
            await self._parts.admin.remove(self._place.name, identity)

    async def undo(self) -> None:
        """Take back what was set up for a caller who never came."""
        if self._place.setup is not None:
            await self._parts.admin.undo(self._place.setup)
