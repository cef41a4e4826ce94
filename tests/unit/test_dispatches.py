"""Which dispatches are made, kept and deleted, from what LiveKit lists."""

from __future__ import annotations

import pytest
from livekit import api

from connector.model.call import AgentDispatch
from connector.room.dispatches import (
    ASK_PATIENCE,
    JOIN_PATIENCE,
    Dispatched,
    marked,
    missing_after_creation,
    plan,
)

SUPPORT = AgentDispatch("support", metadata="m")


def dispatch(name: str = "AD_1", *identities: str, agent: str = "support", metadata: str = "m") -> api.AgentDispatch:
    """One with a running job for each of these participants."""
    listed = api.AgentDispatch(id=name, agent_name=agent, metadata=metadata, room="lobby")
    for identity in identities:
        job = listed.state.jobs.add(id=f"AJ_{identity}", dispatch_id=name)
        job.state.participant_identity = identity
        job.state.status = api.JobStatus.JS_RUNNING
    return listed


def test_a_dispatch_that_found_no_worker_is_followed_by_another_and_deleted_once_it_cannot_find_one_any_more() -> None:
    memory = Dispatched()
    first = plan([dispatch()], (), [SUPPORT], memory, 100.0)
    assert (first.create, first.delete) == ([SUPPORT], [])
    memory.ours.add("AD_2")
    second = plan([dispatch(), dispatch("AD_2")], (), [SUPPORT], memory, 100.0 + ASK_PATIENCE)
    assert (second.create, second.delete) == ([SUPPORT], ["AD_1"])


def test_an_agent_on_its_way_is_awaited_and_then_another_is_sent() -> None:
    memory = Dispatched()
    on_its_way = [dispatch("AD_1", "agent-1")]
    assert plan(on_its_way, (), [SUPPORT], memory, 100.0).create == []
    assert plan(on_its_way, (), [SUPPORT], memory, 100.0 + JOIN_PATIENCE - 1).create == []
    late = plan(on_its_way, (), [SUPPORT], memory, 100.0 + JOIN_PATIENCE)
    assert (late.create, late.delete) == ([SUPPORT], ["AD_1"])


def test_an_agent_that_is_there_hidden_or_seen_is_enough() -> None:
    todo = plan([dispatch("AD_1", "agent-1")], {"agent-1"}, [SUPPORT], Dispatched(), 100.0)
    assert (todo.create, todo.delete, todo.present) == ([], [], {"support": 1})


def test_a_slow_worker_that_takes_the_first_job_makes_the_second_dispatch_superfluous() -> None:
    memory = Dispatched(ours={"AD_2"})
    todo = plan([dispatch("AD_1", "agent-1"), dispatch("AD_2")], (), [SUPPORT], memory, 100.0)
    assert (todo.create, todo.delete) == ([], ["AD_2"])


def test_a_crashed_agent_is_replaced_even_while_livekit_still_lists_it() -> None:
    memory = Dispatched(died={"agent-1"})
    todo = plan([dispatch("AD_1", "agent-1")], {"agent-1"}, [SUPPORT], memory, 100.0)
    assert (todo.create, todo.delete) == ([SUPPORT], ["AD_1"])


def test_two_of_one_name_need_a_dispatch_each() -> None:
    listed = [dispatch("AD_1", "agent-1"), dispatch("AD_2")]
    todo = plan(listed, {"agent-1"}, [SUPPORT, SUPPORT], Dispatched(), 100.0)
    assert (todo.create, todo.delete, todo.present) == ([SUPPORT], [], {"support": 1})


def test_the_dispatches_of_others_are_left_alone() -> None:
    listed = [
        dispatch("AD_1", agent="other"),
        dispatch("AD_2", metadata="of another call"),
        dispatch("AD_3", "agent-3", agent="", metadata=""),
    ]
    memory = Dispatched()
    plan(listed, (), [SUPPORT], memory, 100.0)
    todo = plan(listed, (), [SUPPORT], memory, 200.0)
    assert (todo.create, todo.delete) == ([SUPPORT], [])


def test_a_job_that_a_worker_has_declined_is_none() -> None:
    declined = dispatch("AD_1", "agent-1")
    declined.state.jobs[0].state.status = api.JobStatus.JS_SUCCESS
    assert plan([declined], (), [SUPPORT], Dispatched(), 100.0).create == [SUPPORT]


@pytest.mark.parametrize(
    ("listed", "wanted", "missing"),
    [
        ([dispatch()], [SUPPORT], []),
        ([dispatch(agent="other")], [SUPPORT], [SUPPORT]),
        ([dispatch(metadata="of another call")], [SUPPORT], [SUPPORT]),
        ([dispatch()], [SUPPORT, SUPPORT], [SUPPORT]),
        ([dispatch(agent="")], [SUPPORT], [SUPPORT]),
        ([], [SUPPORT], [SUPPORT]),
        ([dispatch(agent="other")], [], []),
    ],
    ids=["made", "another's", "of another call", "one of two", "an unnamed one", "nothing", "nothing wanted"],
)
def test_what_a_creation_has_not_dispatched_is_left_to_do(
    listed: list[api.AgentDispatch], wanted: list[AgentDispatch], missing: list[AgentDispatch]
) -> None:
    assert missing_after_creation(listed, wanted) == missing


def test_what_another_creation_has_dispatched_is_not_ours_though_it_looks_the_same() -> None:
    ours, theirs = marked([SUPPORT]), marked([SUPPORT])

    def made(agents: list[AgentDispatch]) -> api.AgentDispatch:
        listed = dispatch()
        listed.attributes.update(agents[0].attributes)
        return listed

    assert missing_after_creation([made(ours)], ours) == []
    assert missing_after_creation([made(theirs)], ours) == ours
    assert missing_after_creation([made(theirs), made(ours)], ours) == []
    # A LiveKit that keeps no attributes of a dispatch: whose it is cannot be known.
    assert missing_after_creation([dispatch()], ours) == []
