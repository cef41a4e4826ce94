"""Dispatches missing agents again: reads the existing dispatches from LiveKit and decides what to create and delete.

As of livekit-server 1.13.5: a dispatch asks for a worker once, when it is created. Its jobs are those that a worker has
accepted, each with the identity of its participant. LiveKit does not report what happens to a job later, so only the
participant shows whether the job is alive. Deleting a dispatch stops its jobs, also a job that a worker accepts a
moment later.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from livekit import api

from connector.model.call import AgentDispatch

ASK_PATIENCE = 4.0
"""Seconds in which a worker may accept the job of a dispatch: LiveKit's own limit is 3."""
JOIN_PATIENCE = 15.0
"""Seconds for an agent to join the room after its worker has accepted the job: its process may have to start."""
CREATION = "connector.creation"
"""Attribute of agents that were dispatched by a CreateRoom request: a mark of that request."""
_ENDED = (api.JobStatus.JS_SUCCESS, api.JobStatus.JS_FAILED)


@dataclass(slots=True)
class Dispatched:
    """What one call remembers about the dispatches to its room."""

    ours: set[str] = field(default_factory=set)
    """Ids of dispatches that we created to replace others."""
    died: set[str] = field(default_factory=set)
    """Identities of agents whose job has crashed."""
    first_seen: dict[str, float] = field(default_factory=dict)
    """Monotonic seconds at which a dispatch or a job was first seen. LiveKit's clock may differ from ours."""

    def age(self, name: str, now: float) -> float:
        return now - self.first_seen.setdefault(name, now)


def missing_after_creation(
    dispatches: Iterable[api.AgentDispatch], agents: Iterable[AgentDispatch]
) -> list[AgentDispatch]:
    """The `agents` that our CreateRoom request did not dispatch. If the room exists already, LiveKit answers CreateRoom
    as if it had created the room, and ignores the agents. So if two processes create a room at the same time, the
    second must dispatch its own agents, even the same agent with the same metadata. The mark from `marked` shows which
    request made a dispatch; a LiveKit that does not store attributes of dispatches shows no mark."""
    there = list(dispatches)
    shows_marks = any(CREATION in dispatch.attributes for dispatch in there)
    listed = Counter(_made(dispatch, shows_marks) for dispatch in there)
    missing = []
    for agent in agents:
        if listed[_made(agent, shows_marks)] > 0:
            listed[_made(agent, shows_marks)] -= 1
        else:
            missing.append(agent)
    return missing


def marked(agents: Iterable[AgentDispatch]) -> list[AgentDispatch]:
    """The agents for one CreateRoom request, with a mark that is new for each request."""
    mark = secrets.token_hex(8)
    return [replace(agent, attributes={**agent.attributes, CREATION: mark}) for agent in agents]


def _made(dispatch: api.AgentDispatch | AgentDispatch, shows_marks: bool) -> tuple[str, str, str, str]:
    return (*_key(dispatch), dispatch.attributes.get(CREATION, "") if shows_marks else "")


@dataclass(slots=True)
class Plan:
    create: list[AgentDispatch] = field(default_factory=list)
    delete: list[str] = field(default_factory=list)
    present: Counter[str] = field(default_factory=Counter)
    """Number of agents in the room by name, with hidden ones."""


def plan(
    dispatches: Iterable[api.AgentDispatch],
    here: Collection[str],
    agents: Sequence[AgentDispatch],
    memory: Dispatched,
    now: float,
) -> Plan:
    """Decide which dispatches to create and delete so that each of `agents` is in the room, or on its way, once.
    `here`: identities in the room, with hidden ones; `now`: monotonic seconds."""
    todo = Plan()
    left = list(dispatches)
    for agent in agents:
        same = [dispatch for dispatch in left if _key(dispatch) == _key(agent)]
        alive = next((one for one in same if _is_alive(one, here, memory, now)), None)
        if alive is not None:
            left.remove(alive)
            todo.present[agent.agent_name] += _is_here(alive, here, memory)
            spare = [one for one in same if one is not alive and one.id in memory.ours]
        else:
            todo.create.append(agent)
            # Keep a dispatch that may still find a worker: otherwise a slow worker could never accept a job.
            spare = [one for one in same if one.state.jobs or memory.age(one.id, now) >= ASK_PATIENCE]
        for one in spare:
            left.remove(one)
            todo.delete.append(one.id)
    return todo


def _key(dispatch: api.AgentDispatch | AgentDispatch) -> tuple[str, str, str]:
    return dispatch.agent_name, dispatch.metadata, dispatch.deployment


def _is_here(dispatch: api.AgentDispatch, here: Collection[str], memory: Dispatched) -> bool:
    identities = {job.state.participant_identity for job in dispatch.state.jobs}
    return any(identity in here and identity not in memory.died for identity in identities)


def _is_alive(dispatch: api.AgentDispatch, here: Collection[str], memory: Dispatched, now: float) -> bool:
    """Whether the dispatch has an agent in the room, or a job that a worker has accepted a short time ago."""
    return _is_here(dispatch, here, memory) or any(
        job.state.status not in _ENDED
        and job.state.participant_identity not in memory.died
        and memory.age(job.id, now) < JOIN_PATIENCE
        for job in dispatch.state.jobs
    )


async def dispatch_again(
    client: api.LiveKitAPI,
    room: str,
    agents: Sequence[AgentDispatch],
    others: Iterable[str],
    memory: Dispatched,
    now: float,
) -> dict[str, int]:
    """Dispatch the `agents` that are neither in the room nor on their way; return the number per name in the room.

    `others`: names of agents with a crashed job that somebody else dispatched. They are dispatched again with the same
    values.
    """
    dispatches = await client.agent_dispatch.list_dispatch(room)
    has_jobs = any(dispatch.state.jobs for dispatch in dispatches)
    here = await _identities(client, room) if has_jobs else set()
    todo = plan(dispatches, here, [*agents, *_as_before(dispatches, set(others), memory)], memory, now)
    for dispatch_id in todo.delete:
        await client.agent_dispatch.delete_dispatch(dispatch_id, room)
        memory.ours.discard(dispatch_id)
    for agent in todo.create:
        memory.ours.add(await create_dispatch(client, room, agent))
    return dict(todo.present)


def _as_before(
    dispatches: Iterable[api.AgentDispatch], names: Collection[str], memory: Dispatched
) -> list[AgentDispatch]:
    found: dict[tuple[str, str, str], AgentDispatch] = {}
    for dispatch in dispatches:
        has_died = any(job.state.participant_identity in memory.died for job in dispatch.state.jobs)
        may_start_again = dispatch.restart_policy != api.JobRestartPolicy.JRP_NEVER
        if dispatch.agent_name in names and may_start_again and (has_died or dispatch.id in memory.ours):
            found[_key(dispatch)] = AgentDispatch(
                agent_name=dispatch.agent_name,
                metadata=dispatch.metadata,
                restart_policy=dispatch.restart_policy,
                deployment=dispatch.deployment,
                attributes=dict(dispatch.attributes),
            )
    return list(found.values())


async def _identities(client: api.LiveKitAPI, room: str) -> set[str]:
    listed = await client.room.list_participants(api.ListParticipantsRequest(room=room))
    return {participant.identity for participant in listed.participants}


async def withdraw(client: api.LiveKitAPI, room: str, memory: Dispatched) -> None:
    """Delete the dispatches that we created, which stops their agents."""
    for dispatch in await client.agent_dispatch.list_dispatch(room):
        if dispatch.id in memory.ours:
            await client.agent_dispatch.delete_dispatch(dispatch.id, room)
            memory.ours.discard(dispatch.id)


async def create_dispatch(client: api.LiveKitAPI, room: str, agent: AgentDispatch) -> str:
    """Create a dispatch to an existing room; return its id."""
    dispatch = await client.agent_dispatch.create_dispatch(
        api.CreateAgentDispatchRequest(
            room=room,
            agent_name=agent.agent_name,
            metadata=agent.metadata,
            restart_policy=agent.restart_policy,  # type: ignore[arg-type]
            deployment=agent.deployment,
            attributes=agent.attributes,
        )
    )
    return dispatch.id
