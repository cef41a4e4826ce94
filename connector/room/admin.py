"""Rooms, agent dispatches and participants, over LiveKit's server API."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from weakref import WeakValueDictionary

import structlog
from livekit import api

from connector.errors import ConnectorError, NotFound
from connector.livekit_api import REQUEST_TIMEOUT, LiveKitApi
from connector.model.call import AgentDispatch, ParticipantSpec
from connector.room.dispatches import (
    Dispatched,
    create_dispatch,
    dispatch_again,
    marked,
    missing_after_creation,
    withdraw,
)
from connector.tasks import BackgroundTasks

log = structlog.get_logger()

UNDO_TIMEOUT = 1.5
"""Seconds for the first attempt to undo a room's set-up: the end of a call waits for it."""
UNDO_LIMIT = 30.0
"""Seconds for the retries in the background; after that, LiveKit's own empty-room timeout removes the room."""
UNDO_PAUSE = 1.0
"""Seconds before the first retry; the pause doubles each time."""


@dataclass(slots=True)
class RoomSetup:
    """The changes that `ensure_room` made, so that `undo` can revert exactly these."""

    room: str
    created: bool = False
    sid: str = ""
    """SID of the created room: we must not delete a later room of the same name that somebody else created."""
    dispatches: list[str] = field(default_factory=list)


class RoomAdmin:
    """LiveKit's RoomService and AgentDispatchService. Every method raises ConnectorError. `close` at the end, before
    the API is closed."""

    def __init__(self, livekit: LiveKitApi) -> None:
        self._livekit = livekit
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._background = BackgroundTasks()
        self._unfinished: list[RoomSetup] = []
        """Set-ups that could not be undone yet."""
        self._closing = asyncio.Event()

    async def close(self) -> None:
        """Each set-up that is not undone yet gets one more attempt, immediately."""
        self._closing.set()
        await self._background.close(2 * UNDO_TIMEOUT)

    async def check(self) -> None:
        """Raise Unavailable when LiveKit does not answer, Internal when it refuses the credentials."""
        async with self._livekit.request():
            await self._livekit.sdk.room.list_rooms(api.ListRoomsRequest(names=["connector-reachability-check"]))

    async def ensure_room(self, room: str, agents: Sequence[AgentDispatch]) -> RoomSetup:
        """Make sure that the room exists and that each agent is dispatched to it exactly once.

        A new room is created with its agents; like a room configuration in a join token, that also keeps LiveKit
        from dispatching unnamed agents. An existing room ignores such a configuration, so each agent gets its own
        dispatch. The calls of one process to one room take turns: otherwise another call could create the room
        without these agents between the check and the creation.
        """
        return await self._set_up(room, partial(self._ensure, agents=agents))

    async def keep_room(self, room: str, agents: Sequence[AgentDispatch]) -> RoomSetup:
        """For a call that another process has prepared: its agents are already dispatched. Only if the room has closed
        since then, which also ends its agents, is it created again, with these agents."""
        return await self._set_up(room, partial(self._keep, agents=agents))

    async def _set_up(self, room: str, work: Callable[[RoomSetup], Coroutine[Any, Any, None]]) -> RoomSetup:
        """Run `work` under the room's lock. If it fails or is cancelled, its changes are undone."""
        setup = RoomSetup(room)
        async with self._livekit.request():
            working = asyncio.create_task(self._in_turn(setup, work), name="set a room up")
            try:
                await asyncio.shield(working)
            except asyncio.CancelledError:
                self._take_back(working, setup)
                raise
        return setup

    async def _in_turn(self, setup: RoomSetup, work: Callable[[RoomSetup], Coroutine[Any, Any, None]]) -> None:
        async with self._locks.setdefault(setup.room, asyncio.Lock()):
            try:
                await work(setup)
            except BaseException:
                if not await self._undo(setup, UNDO_TIMEOUT):
                    self._undo_later(setup)
                raise
            self._take_over(setup)

    def _take_over(self, setup: RoomSetup) -> None:
        """A new call uses a room that could not be deleted yet: that call must now delete it."""
        for left in self._unfinished:
            if left.room == setup.room and left.created:
                left.created = False
                if not setup.created:
                    setup.created, setup.sid = True, left.sid

    def _take_back(self, working: asyncio.Task[None], setup: RoomSetup) -> None:
        """The caller was cancelled, but LiveKit may still create the room: let the request finish, then undo it."""

        async def finish() -> None:
            await asyncio.wait([working], timeout=UNDO_TIMEOUT)
            working.cancel()
            (failed,) = await asyncio.gather(working, return_exceptions=True)
            if failed is None:
                await self.undo(setup)

        self._background.start(finish(), "take back a room")

    async def _ensure(self, setup: RoomSetup, agents: Sequence[AgentDispatch]) -> None:
        try:
            await self._dispatch_or_create(setup, agents)
        except api.TwirpError as error:
            if error.code != "not_found" or setup.created:
                raise
            # The room closed between the check and the dispatch: start again, with a new room.
            setup.dispatches.clear()
            await self._dispatch_or_create(setup, agents)

    async def _keep(self, setup: RoomSetup, agents: Sequence[AgentDispatch]) -> None:
        if not await self._sid(setup.room):
            await self._create(setup, agents)

    async def _dispatch_or_create(self, setup: RoomSetup, agents: Sequence[AgentDispatch]) -> None:
        if not await self._sid(setup.room):
            await self._create(setup, agents)
            return
        for agent in agents:
            setup.dispatches.append(await create_dispatch(self._livekit.sdk, setup.room, agent))

    async def _create(self, setup: RoomSetup, wanted: Sequence[AgentDispatch]) -> None:
        agents = marked(wanted)
        room = await self._livekit.sdk.room.create_room(
            api.CreateRoomRequest(name=setup.room, agents=[_room_agent(agent) for agent in agents])
        )
        setup.created, setup.sid = True, room.sid
        if agents:
            missing = missing_after_creation(await self._livekit.sdk.agent_dispatch.list_dispatch(setup.room), agents)
            # An agent is missing: somebody else created the room first, so we must not delete it.
            setup.created = not missing
            for agent in missing:
                setup.dispatches.append(await create_dispatch(self._livekit.sdk, setup.room, agent))

    async def _sid(self, room: str) -> str:
        listed = await self._livekit.sdk.room.list_rooms(api.ListRoomsRequest(names=[room]))
        return listed.rooms[0].sid if listed.rooms else ""

    async def sid(self, room: str) -> str:
        """The SID of the room now, "" if there is none. A room that is deleted and created again has a new SID."""
        async with self._livekit.request():
            return await self._sid(room)

    async def has(self, room: str, identity: str) -> bool:
        """Whether a participant of this identity is in the room, hidden or not."""
        try:
            async with self._livekit.request():
                await self._livekit.sdk.room.get_participant(api.RoomParticipantIdentity(room=room, identity=identity))
        except NotFound:
            return False
        return True

    async def dispatch_again(
        self, room: str, agents: Sequence[AgentDispatch], others: Iterable[str], memory: Dispatched
    ) -> dict[str, int]:
        """See `connector.room.dispatches.dispatch_again`; NotFound when there is no such room."""
        async with self._livekit.request(), self._locks.setdefault(room, asyncio.Lock()):
            return await dispatch_again(self._livekit.sdk, room, agents, others, memory, time.monotonic())

    async def withdraw(self, room: str, memory: Dispatched) -> None:
        """Remove the dispatches that `dispatch_again` created, and the agents that came with them."""
        async with self._livekit.request(), self._locks.setdefault(room, asyncio.Lock()):
            await withdraw(self._livekit.sdk, room, memory)

    async def undo(self, setup: RoomSetup) -> None:
        """Revert the changes of `ensure_room`. Raises nothing: if LiveKit fails, it is retried in the background, for
        up to `UNDO_LIMIT` seconds."""
        done = False
        try:
            done = await self._undo_in_turn(setup, UNDO_TIMEOUT)
        finally:
            if not done:
                self._undo_later(setup)

    async def _undo_in_turn(self, setup: RoomSetup, seconds: float) -> bool:
        async with self._locks.setdefault(setup.room, asyncio.Lock()):
            return await self._undo(setup, seconds)

    def _undo_later(self, setup: RoomSetup) -> None:
        if self._closing.is_set():
            _warn_of_left(setup)
            return
        self._unfinished.append(setup)
        self._background.start(self._undo_again(setup), f"take back the room {setup.room}")

    async def _undo_again(self, setup: RoomSetup) -> None:
        done, pause = False, UNDO_PAUSE
        try:
            async with asyncio.timeout(UNDO_LIMIT):
                while not done:
                    with suppress(TimeoutError):
                        await asyncio.wait_for(self._closing.wait(), pause)
                    pause *= 2
                    done = await self._undo_in_turn(setup, REQUEST_TIMEOUT)
                    if self._closing.is_set():
                        break
        except TimeoutError:
            pass
        finally:
            self._unfinished = [left for left in self._unfinished if left is not setup]
            if not done:
                _warn_of_left(setup)

    async def _undo(self, setup: RoomSetup, seconds: float) -> bool:
        """Revert the set-up; True when nothing is left to revert. Call it with the room's lock held."""
        try:
            async with self._livekit.request(seconds):
                if setup.created and await self._is_ours(setup) and not await self._people_in(setup.room):
                    await self._gone(self._livekit.sdk.room.delete_room(api.DeleteRoomRequest(room=setup.room)))
                    setup.dispatches.clear()
                setup.created = False
                for dispatch in tuple(setup.dispatches):
                    await self._gone(self._livekit.sdk.agent_dispatch.delete_dispatch(dispatch, setup.room))
                    setup.dispatches.remove(dispatch)
        except ConnectorError:
            return False
        return True

    @staticmethod
    async def _gone(deletion: Coroutine[Any, Any, object]) -> None:
        """Run a deletion; an object that no longer exists is no error."""
        try:
            await deletion
        except api.TwirpError as error:
            if error.code != "not_found":
                raise

    async def _is_ours(self, setup: RoomSetup) -> bool:
        return await self._sid(setup.room) == setup.sid

    async def _people_in(self, room: str) -> bool:
        listed = await self._livekit.sdk.room.list_participants(api.ListParticipantsRequest(room=room))
        return any(p.kind != api.ParticipantInfo.Kind.AGENT for p in listed.participants)

    async def reveal(self, room: str, identity: str, attributes: Mapping[str, str]) -> None:
        """Make a hidden participant visible. LiveKit replaces all permissions, and merges the attributes."""
        async with self._livekit.request():
            await self._livekit.sdk.room.update_participant(
                api.UpdateParticipantRequest(
                    room=room,
                    identity=identity,
                    permission=api.ParticipantPermission(
                        can_publish=True,
                        can_subscribe=True,
                        can_publish_data=True,
                        can_update_metadata=True,
                        hidden=False,
                    ),
                    attributes=dict(attributes),
                )
            )

    async def remove(self, room: str, identity: str, sid: str = "") -> None:
        """Remove a participant; if `sid` is given, only the participant with this SID. An absent one is no error."""
        participant = api.RoomParticipantIdentity(room=room, identity=identity)
        try:
            async with self._livekit.request():
                if not sid or (await self._livekit.sdk.room.get_participant(participant)).sid == sid:
                    await self._livekit.sdk.room.remove_participant(participant)
        except NotFound:
            return

    async def participant(self, room: str, identity: str, call_id: str) -> ParticipantSpec | None:
        """The participant of this call as the room has it now; None if it is not there. LiveKit keeps the one of a dead
        process for some seconds."""
        try:
            async with self._livekit.request():
                there = await self._livekit.sdk.room.get_participant(
                    api.RoomParticipantIdentity(room=room, identity=identity)
                )
        except NotFound:
            return None
        if there.attributes.get("connector.callId") != call_id:
            return None
        return ParticipantSpec(identity, there.name, there.metadata, dict(there.attributes))

    async def has_call(self, room: str, identity: str, call_id: str) -> bool:
        """Whether the participant of this call is in the room."""
        return await self.participant(room, identity, call_id) is not None

    async def remove_call(self, room: str, identity: str, call_id: str) -> None:
        """Remove the participant of a finished call. A participant of a later call with the same identity stays."""
        participant = api.RoomParticipantIdentity(room=room, identity=identity)
        try:
            async with self._livekit.request():
                there = await self._livekit.sdk.room.get_participant(participant)
                if there.attributes.get("connector.callId") == call_id:
                    await self._livekit.sdk.room.remove_participant(participant)
        except NotFound:
            return


def _warn_of_left(setup: RoomSetup) -> None:
    log.warning("a room could not be deleted: LiveKit keeps it until its empty timeout", room=setup.room)


def _room_agent(agent: AgentDispatch) -> api.RoomAgentDispatch:
    return api.RoomAgentDispatch(
        agent_name=agent.agent_name,
        metadata=agent.metadata,
        restart_policy=agent.restart_policy,  # type: ignore[arg-type]
        deployment=agent.deployment,
        attributes=agent.attributes,
    )
