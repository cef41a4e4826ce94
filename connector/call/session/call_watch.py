"""Runs the watchdog of one call: gives it events and timers, and executes its actions. The decisions are in
`connector.call.session.watchdog`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

import structlog

from connector.call.dependencies import CallDependencies
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.lifetime import Lifetime
from connector.call.session.watchdog import (
    RETURN_PATIENCE,
    Action,
    DispatchAgain,
    GiveUp,
    Missing,
    Returned,
    Watchdog,
    Why,
)
from connector.errors import ConnectorError
from connector.logs import bind_call
from connector.model.call import AgentDispatch
from connector.model.end_reason import EndReason
from connector.room.dispatches import Dispatched
from connector.room.listener import Departure, Kind, Occupant
from connector.tasks import BackgroundTasks

log = structlog.get_logger()

NEVER_RESTART = 1
"""LiveKit's restart policy `JRP_NEVER`: do not restart a job that has crashed."""
WITHDRAW_PATIENCE = 1.0
LIVEKIT_LOST = "livekit"
_DETAILS = {
    Why.NEVER_CAME: "no agent or person joined",
    Why.CRASHED: "the agent's job has crashed, and nobody has joined since",
    Why.OUTAGE: "no agent or person has returned since the connection to LiveKit was lost",
    Why.LEFT: "the last agent or person has left",
}


def _nothing() -> None:
    return


class CallWatch:
    """Handles events of the room, redispatches missing agents, and ends the call if nobody talks with the caller."""

    def __init__(
        self,
        life: Lifetime,
        parts: CallDependencies,
        recorder: CallRecorder,
        transfer: Callable[[str], Awaitable[None]],
    ) -> None:
        """`transfer`: connects the phone with a number, or raises ConnectorError."""
        self._parts = parts
        self._recorder = recorder
        self._life = life
        self._transfer = transfer
        self._rules = recorder.request.watch.over(parts.watch)
        self._agents: Sequence[AgentDispatch] = recorder.request.agents
        self._dog = Watchdog(
            self._rules,
            [agent.agent_name for agent in self._agents],
            [agent.agent_name for agent in self._agents if agent.restart_policy == NEVER_RESTART],
        )
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._memory = Dispatched()
        self._known: dict[str, str] = {}
        """Agents that are in the room now: identity to agent name."""
        self._before_outage: frozenset[str] = frozenset()
        self._has_told_dispatch = False
        self._fallbacks = [self._try_agent, self._try_number]
        self._dispatching: asyncio.Task[None] | None = None
        self._giving_up: asyncio.Task[None] | None = None
        self._running = BackgroundTasks()
        self._moves = 0
        self._over = False
        self.on_left: Callable[[], None] = _nothing
        """Called when `left` has changed."""

    @property
    def tasks(self) -> tuple[asyncio.Task[None], ...]:
        """Tasks to cancel at the end of the call, after `stop`."""
        return tuple(self._running)

    @property
    def agents(self) -> Sequence[AgentDispatch]:
        """The agents that were dispatched for the call."""
        return self._agents

    @property
    def left(self) -> tuple[str, ...]:
        """Names of those that are not dispatched again, because they have left on purpose."""
        return self._dog.left

    def inherit(self, left: Sequence[str]) -> None:
        """See `Watchdog.inherit`."""
        self._dog.inherit(left)

    def start(self) -> None:
        """Start the clocks. Call this when the call is answered."""
        self._dog.start(self._loop.time())
        self._look()

    def stop(self) -> None:
        self._over = True
        if self._timer is not None:
            self._timer.cancel()

    def hold(self, cause: str) -> None:
        """Pause: until `resume`, no agent is dispatched, and the call is not ended if participants leave."""
        self._dog.hold(cause)
        self._look()

    def resume(self, cause: str, dispatch_in: float | None = None) -> None:
        """End a pause and restart the clocks from zero; see `Watchdog.resume`."""
        self._dog.resume(self._loop.time(), cause, dispatch_in=dispatch_in)
        self._look()

    # Events of the room

    def people(self, people: Sequence[Occupant], gone: Departure | None) -> None:
        if gone is not None and not gone.on_purpose and gone.identity in self._known:
            self._memory.died.add(gone.identity)
        self._known = {one.identity: one.agent_name for one in people if one.kind is Kind.AGENT}
        self._memory.died -= self._known.keys()
        left = self.left
        self._dog.people(self._loop.time(), people, gone)
        if self.left != left:
            self.on_left()
        self._look()
        if self._before_outage & self._known.keys():
            self._before_outage = frozenset()
            if self._memory.ours:
                log.info("an agent has returned after the outage: the replacement dispatches are withdrawn")
                self._dispatching = self._spawn(
                    "withdraw", self._withdraw(self._recorder.record.room, self._memory), after=self._dispatching
                )

    def lost(self) -> None:
        self._before_outage |= frozenset(self._known)
        self.hold(LIVEKIT_LOST)

    def regained(self, same_room: bool, may_be_deleted: bool) -> None:
        """The connection to LiveKit is back. If the room may have been deleted, the conversation has ended, and no
        agent is dispatched again."""
        with bind_call(self._recorder.record.call_id):
            log.info("watchdog resumed after the outage", same_room=same_room, may_be_deleted=may_be_deleted)
        if may_be_deleted:
            self._dog.want_none()
        self._dog.resume(self._loop.time(), LIVEKIT_LOST, RETURN_PATIENCE)
        self._look()

    def moved(self, agents: Sequence[AgentDispatch]) -> None:
        """The caller is in another room. `agents`: the agents that were dispatched to it."""
        self._moves += 1
        self._dispatching = None
        self._agents, self._memory, self._known = agents, Dispatched(), {}
        self._before_outage = frozenset()
        # An outage concerned the former room, so no `regained` will follow for it.
        self._dog.resume(self._loop.time(), LIVEKIT_LOST)
        self._dog.people(self._loop.time(), ())
        self._dog.expect(self._loop.time(), [agent.agent_name for agent in agents])
        self._look()

    # Actions

    def _look(self) -> None:
        if self._over:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        actions = self._dog.due(self._loop.time())
        if actions:
            with bind_call(self._recorder.record.call_id):
                for action in actions:
                    self._do(action)
        at = self._dog.next_at()
        if at is not None and not self._over:
            self._timer = self._loop.call_at(at, self._look)

    def _do(self, action: Action) -> None:
        match action:
            case Missing():
                log.warning("no agent talks with the caller", agents=list(action.agents), why=action.why.value)
                self._has_told_dispatch = False
                self._tell("missing", agents=action.agents, why=action.why.value)
            case Returned():
                log.info("somebody talks with the caller again")
                self._tell("returned")
            case DispatchAgain():
                if self._dispatching is None or self._dispatching.done():
                    self._dispatching = self._spawn("dispatch again", self._dispatch(action.agents))
            case GiveUp():
                self._giving_up = self._spawn("give up", self._give_up(action), after=self._giving_up)

    def _spawn(
        self, what: str, work: Coroutine[Any, Any, None], after: asyncio.Task[None] | None = None
    ) -> asyncio.Task[None]:
        async def run() -> None:
            try:
                if after is not None and not after.done():
                    await asyncio.wait([after])
                await work
            finally:
                work.close()

        # After an unexpected error, the call goes on as if it had no watchdog.
        with bind_call(self._recorder.record.call_id):
            return self._running.start(run(), f"watchdog: {what}")

    def _tell(self, status: str, agents: Sequence[str] = (), **details: str) -> None:
        self._count(status)
        names = {"agents": ",".join(sorted(agents))} if agents else {}
        self._recorder.agent_changed(status, **names, **details)

    def _count(self, what: str, number: int = 1) -> None:
        self._parts.metrics.agents.labels(what).inc(number)

    async def _dispatch(self, names: Sequence[str]) -> None:
        agents = [agent for agent in self._agents if agent.agent_name in names]
        others = set(names) - {agent.agent_name for agent in agents}
        memory, before, room = self._memory, set(self._memory.ours), self._recorder.record.room
        try:
            present = await self._parts.admin.dispatch_again(room, agents, others, memory)
        except ConnectorError as error:
            log.warning("agents could not be dispatched again", agents=list(names), error=error.message)
            return
        if memory is not self._memory:
            # Meanwhile the caller has moved to another room, which has its own agents.
            if late := memory.ours - before:
                await self._withdraw(room, Dispatched(ours=late))
            return
        if new := memory.ours - before:
            self._count("dispatched", len(new))
            log.info("agents dispatched again", agents=list(names), dispatches=sorted(new))
            if not self._has_told_dispatch:
                self._has_told_dispatch = True
                self._recorder.agent_changed("dispatched", agents=",".join(sorted(names)))
        self._dog.looked(present)
        self._look()

    async def _withdraw(self, room: str, memory: Dispatched) -> None:
        try:
            async with asyncio.timeout(WITHDRAW_PATIENCE):
                await self._parts.admin.withdraw(room, memory)
        except (ConnectorError, TimeoutError) as error:
            log.warning("agent dispatches could not be withdrawn", error=str(error))

    # The end

    async def _give_up(self, action: GiveUp) -> None:
        began, moves = self._loop.time(), self._moves

        def is_overtaken() -> bool:
            return self._moves != moves or self._dog.has_come_since(began)

        try:
            if action.reason is EndReason.NO_AGENT and await self._fall_back(is_overtaken):
                return
            if self._memory.ours and not is_overtaken():
                # An agent that comes after this would find an empty room.
                await self._withdraw(self._recorder.record.room, self._memory)
        except Exception:
            # Continue after any error, so that the caller is not left on a silent line.
            log.exception("the watchdog of the call failed", step="give up")
        if is_overtaken():
            log.info("the call continues: somebody has joined, or the caller was moved to another room")
            self._dog.go_on()
            self._look()
            return
        self._count(action.reason.value)
        say = self._rules.message if action.reason is EndReason.NO_AGENT else ""
        self._life.end(action.reason, _DETAILS[action.why], say=say or "")

    async def _fall_back(self, is_overtaken: Callable[[], bool]) -> bool:
        """Try the remaining fallbacks of the call's rules in order, each once. Returns True if one succeeded."""
        while self._fallbacks:
            if await self._fallbacks[0](is_overtaken):
                self._fallbacks.pop(0)
                return True
            if is_overtaken():
                return False
            self._fallbacks.pop(0)
        return False

    async def _try_agent(self, is_overtaken: Callable[[], bool]) -> bool:
        """Dispatch the fallback agent instead of the missing ones. Returns True if it was dispatched."""
        name = self._rules.fallback_agent
        if not name:
            return False
        metadata = self._agents[0].metadata if self._agents else ""
        await self._withdraw(self._recorder.record.room, self._memory)
        if is_overtaken():
            return False
        self._agents, self._memory = (AgentDispatch(name, metadata),), Dispatched()
        log.warning("the fallback agent is dispatched", agent=name)
        self._tell("fallback", agents=(name,))
        self._dog.expect(self._loop.time(), [name])
        await self._dispatch([name])
        self._look()
        return True

    async def _try_number(self, _: Callable[[], bool]) -> bool:
        """Transfer the phone to the fallback number. Returns True if the transfer was started."""
        number = self._rules.fallback_number
        if not number:
            return False
        log.warning("the call is transferred to the fallback number: no agent joined", to=number)
        try:
            await self._transfer(number)
        except ConnectorError as error:
            log.warning("the call could not be transferred to the fallback number", error=error.message)
            return False
        self._tell("transferred")
        return True
