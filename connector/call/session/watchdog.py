"""Decides what to do if nobody talks with the caller. Pure: facts in, actions out, the time is passed in.

It answers two separate questions:

- Is an agent *missing* that was dispatched for the call? It never came, its job crashed, or LiveKit restarted. This is
  reported, and the agent is dispatched again, with a back-off, even if others are in the room. An agent that left on
  purpose is not missing, and a hidden agent is not missing either.
- Is the caller *alone*? The room has nobody to be heard: no person, no agent that publishes audio, no other phone
  (several phones are people who talk). Then the call ends: as `room_empty` soon after the last one left on purpose,
  otherwise, after a longer time, as `no_agent`.

Both clocks start when the call is answered, stop while the connection to LiveKit is lost or the phone is being
transferred, and start again from zero after that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from connector.model.call import AgentWatch
from connector.model.end_reason import EndReason
from connector.room.listener import Departure, Kind, Occupant

REPEAT = 2.0
"""Seconds between two dispatches of a missing agent. LiveKit does not repeat a dispatch for which it found no worker,
and a worker that registers late must get the call at once."""
REPEAT_QUICKLY = 30.0
"""Seconds for which dispatches are repeated every REPEAT seconds; then the pause grows by half each time."""
REPEAT_MOST = 60.0
STREAM_LOST = "reconnecting"
"""A cause to hold: the phone is away for a moment, and its participant is in the room."""
RETURN_PATIENCE = 8.0
"""Seconds in which agents may come back by themselves after an outage of LiveKit: their SDK retries every five
seconds."""


class Why(StrEnum):
    """Why the caller is alone, or why an agent is missing."""

    NEVER_CAME = "never_came"
    CRASHED = "crashed"
    """The agent left, but not on purpose."""
    LEFT = "left"
    OUTAGE = "outage"
    """The connection to LiveKit was lost, and the agent has not come back."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Report that these agents are missing. If none is named: that the caller is alone."""

    agents: tuple[str, ...]
    why: Why


@dataclass(frozen=True, slots=True)
class DispatchAgain:
    """Look for these agents, dispatch those that are neither in the room nor on their way, and pass the result to
    `looked`."""

    agents: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Returned:
    """Report that nothing is missing any more."""


@dataclass(frozen=True, slots=True)
class GiveUp:
    """End the call, or use a fallback of its rules."""

    reason: EndReason
    why: Why


Action = Missing | DispatchAgain | Returned | GiveUp


@dataclass(slots=True)
class _Lack:
    """One agent that is missing."""

    why: Why
    since: float
    dispatch_at: float
    dispatches: int = 0


@dataclass(slots=True)
class _Seen:
    occupant: Occupant
    since: float
    has_been_heard: bool = field(default=False)
    """It publishes audio now, or did before."""


class Watchdog:
    """See the module. After every fact, `due` returns the actions to take; `next_at` returns when to ask again."""

    def __init__(self, rules: AgentWatch, agents: Sequence[str], once: Collection[str] = ()) -> None:
        """`rules`: complete, with no value unset. `agents`: names of the dispatched agents; a name dispatched twice
        stands twice. `once`: agents that must not be started again after their job has crashed."""
        self._warn_after = rules.warn_after or 0.0
        self._timeout = rules.timeout or 0.0
        self._empty_timeout = rules.empty_timeout or 0.0
        self._dispatched = Counter(agents)
        self._wanted = Counter(agents)
        self._once = frozenset(once)
        self._hidden: Counter[str] = Counter()
        """Number of agents per name that are in the room according to LiveKit's API, but hidden from us."""
        self._seen: dict[str, _Seen] = {}
        self._lacks: dict[str, _Lack] = {}
        self._why = Why.NEVER_CAME
        """Why the caller is alone, if so."""
        self._alone_since: float | None = None
        self._left_at = 0.0
        """When the last agent left."""
        self._told: tuple[str, ...] | None = None
        """The agents that were reported as missing; None: nothing was reported."""
        self._is_on = False
        self._holds: set[str] = set()
        self._has_given_up = False
        self._patient_until = 0.0
        """Until this time, agents may come back by themselves."""

    # Facts

    def start(self, now: float) -> None:
        """The call was answered."""
        self._is_on = True
        self._begin(now, self._why, now + self._warn_after)

    @property
    def left(self) -> tuple[str, ...]:
        """Names of the dispatched agents that are not dispatched again; see `inherit`."""
        return tuple(sorted((self._dispatched - self._wanted).elements()))

    def inherit(self, left: Collection[str]) -> None:
        """Another process had the call before: these agents have left on purpose. Call it before `start`."""
        self._wanted = self._dispatched - Counter(left)
        if left and not self._wanted:
            self._why = Why.LEFT

    def hold(self, cause: str) -> None:
        """Stop the clocks. Several causes may hold at the same time. While the stream is lost, leaving counts;
        during an outage of LiveKit or a transfer it does not."""
        self._holds.add(cause)

    def resume(self, now: float, cause: str, patience: float = 0.0, dispatch_in: float | None = None) -> None:
        """Remove a cause; start the clocks again if none is left. Agents have `patience` seconds, or the time until a
        warning if that is longer, to come back. With `dispatch_in` (seconds) that value counts instead: the agents were
        not lost, so an agent that is not there has left."""
        if cause not in self._holds:
            return
        self._holds.discard(cause)
        self._patient_until = now + patience
        self._has_given_up = False
        if self._is_on and not self._holds:
            hidden = self._hidden.copy()
            dispatch_at = now + (max(self._warn_after, patience) if dispatch_in is None else dispatch_in)
            self._begin(now, Why.OUTAGE if patience else self._why, dispatch_at)
            if dispatch_in is not None:
                self._hidden = hidden
                self._lacks = {name: lack for name, lack in self._lacks.items() if name in self._missing()}

    def expect(self, now: float, agents: Sequence[str]) -> None:
        """Expect other agents from now on, which have just been dispatched: the caller is in another room, or they
        replace agents that did not come."""
        self._dispatched = Counter(agents)
        self._wanted = Counter(agents)
        self._has_given_up = False
        if self._is_on:
            self._begin(now, Why.NEVER_CAME, now + self._warn_after)

    def go_on(self) -> None:
        """The call continues although it was given up."""
        self._has_given_up = False

    def has_come_since(self, then: float) -> bool:
        """Whether somebody in the room can be heard, or an agent has come since `then`."""
        agents = [seen for seen in self._seen.values() if seen.occupant.kind is Kind.AGENT]
        return not self._is_alone() or any(agent.since >= then for agent in agents)

    def want_none(self) -> None:
        """Dispatch no agent any more."""
        self._wanted.clear()

    def people(self, now: float, people: Iterable[Occupant], gone: Departure | None = None) -> None:
        """`people`: everyone in the room now. `gone`: who has just left it."""
        before = self._seen
        self._seen = {}
        for occupant in people:
            known = before.get(occupant.identity) or _Seen(occupant, now)
            known.occupant = occupant
            known.has_been_heard |= occupant.has_audio
            self._seen[occupant.identity] = known
        is_told = self._is_on and self._holds <= {STREAM_LOST}
        if gone is not None and is_told and gone.identity in before and gone.identity not in self._seen:
            self._left(now, before[gone.identity], gone.on_purpose)

    def _left(self, now: float, who: _Seen, on_purpose: bool) -> None:
        name = who.occupant.agent_name
        if who.occupant.kind is Kind.RECORDER:
            return
        if who.occupant.kind is not Kind.AGENT:
            # For a person whose connection broke, LiveKit has already waited for a reconnect.
            self._why = Why.LEFT
            return
        self._why = Why.LEFT if on_purpose else Why.CRASHED
        self._left_at = now
        self._hidden[name] = 0
        if on_purpose or name in self._once:
            self._wanted[name] = max(0, self._wanted[name] - 1)
            return
        missing = self._missing()
        if name in missing or (missing and not name):
            for lost in [name] if name else missing:
                self._lacks.setdefault(lost, _Lack(Why.CRASHED, now, max(now, self._patient_until)))
        else:
            # Somebody else dispatched this agent, perhaps another call. That call gets time to dispatch it again first.
            self._wanted[name] = self._visible(name) + 1
            self._lacks[name] = _Lack(Why.CRASHED, now, max(now + self._warn_after, self._patient_until))

    def looked(self, present: Mapping[str, int]) -> None:
        """The answer to `DispatchAgain`: number of agents per name in the room, with hidden ones."""
        for name, number in present.items():
            self._hidden[name] = max(0, number - self._visible(name))

    # Decisions

    def _begin(self, now: float, why: Why, dispatch_at: float) -> None:
        self._why = why
        self._alone_since = None
        self._hidden.clear()
        self._lacks = {name: _Lack(why, now, dispatch_at) for name in self._missing()}

    def _visible(self, name: str) -> int:
        agents = [seen.occupant for seen in self._seen.values() if seen.occupant.kind is Kind.AGENT]
        return sum(agent.agent_name in (name, "") for agent in agents)

    def _missing(self) -> list[str]:
        return [name for name, number in self._wanted.items() if number > self._visible(name) + self._hidden[name]]

    def _is_alone(self) -> bool:
        others = (Kind.PERSON, Kind.PHONE)
        return not any(
            seen.occupant.kind in others or (seen.occupant.kind is Kind.AGENT and seen.has_been_heard)
            for seen in self._seen.values()
        )

    def due(self, now: float) -> list[Action]:
        """Return the actions to take now; each is returned once."""
        if not self._is_on or self._holds or self._has_given_up:
            return []
        self._update(now)
        actions: list[Action] = [*self._tell(now), *self._dispatch(now)]
        deadline = self._deadline()
        if deadline is not None and deadline <= now:
            self._has_given_up = True
            actions.append(GiveUp(EndReason.ROOM_EMPTY if self._is_deserted() else EndReason.NO_AGENT, self._why))
        return actions

    def _update(self, now: float) -> None:
        missing = self._missing()
        self._lacks = {name: lack for name, lack in self._lacks.items() if name in missing}
        for name in missing:
            self._lacks.setdefault(name, _Lack(self._why, now, now + self._warn_after))
        if not self._is_alone():
            self._alone_since = None
            if not self._lacks:
                # The next one to leave will determine why the caller is alone.
                self._why = Why.LEFT
        elif self._alone_since is None:
            self._alone_since = now

    def _tell(self, now: float) -> list[Action]:
        if not self._warn_after:
            return []
        late = tuple(name for name, lack in self._lacks.items() if lack.dispatch_at <= now or lack.dispatches)
        is_alone = self._alone_since is not None and self._alone_since + self._warn_after <= now
        if not self._lacks and self._alone_since is None:
            was_told, self._told = self._told is not None, None
            return [Returned()] if was_told else []
        if (late or is_alone) and (self._told is None or set(late) - set(self._told)):
            self._told = tuple({*(self._told or ()), *late})
            return [Missing(late, self._lacks[late[0]].why if late else self._why)]
        return []

    def _dispatch(self, now: float) -> list[Action]:
        if not self._warn_after:
            return []
        due = [name for name, lack in self._lacks.items() if lack.dispatch_at <= now]
        for name in due:
            lack = self._lacks[name]
            lack.dispatches += 1
            lack.dispatch_at = now + max(REPEAT, min(REPEAT_MOST, (now - lack.since - REPEAT_QUICKLY) / 2))
        return [DispatchAgain(tuple(due))] if due else []

    def _is_deserted(self) -> bool:
        """The conversation seems to be over: the last one has left, and no agent is missing."""
        return self._why is Why.LEFT and not self._lacks

    def _deadline(self) -> float | None:
        """When the call ends if nothing changes; None: never."""
        if self._alone_since is None:
            return None
        if self._is_deserted():
            # The caller was alone before already if the agent that left never published audio: count from its leaving.
            return max(self._alone_since, self._left_at) + self._empty_timeout if self._empty_timeout else None
        if not self._timeout:
            return None
        # An agent that has come but publishes no audio yet gets the full timeout again, but only once.
        silent = [seen.since for seen in self._seen.values() if seen.occupant.kind is Kind.AGENT]
        since = max([self._alone_since, *silent])
        return min(since + self._timeout, self._alone_since + 2 * self._timeout)

    def next_at(self) -> float | None:
        """When `due` may return actions without a new fact; None: never."""
        if not self._is_on or self._holds or self._has_given_up:
            return None
        times = [lack.dispatch_at for lack in self._lacks.values()] if self._warn_after else []
        if self._alone_since is not None and self._warn_after and self._told is None:
            times.append(self._alone_since + self._warn_after)
        deadline = self._deadline()
        return min([*times, deadline] if deadline is not None else times, default=None)
