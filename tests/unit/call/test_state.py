"""Every (direction, state, trigger) there is: the table's edges lead where it says, all others raise."""

from __future__ import annotations

import itertools

import pytest

from connector.call.record.changes import IllegalTransition, Trigger, next_state
from connector.model.call import CallState, Direction

EDGES = {
    (Direction.OUTBOUND, CallState.PENDING, Trigger.JOINED_HIDDEN): CallState.RINGING,
    (Direction.OUTBOUND, CallState.PENDING, Trigger.END): CallState.ENDED,
    (Direction.OUTBOUND, CallState.RINGING, Trigger.STREAM_STARTED): CallState.ACTIVE,
    (Direction.OUTBOUND, CallState.RINGING, Trigger.END): CallState.ENDED,
    (Direction.OUTBOUND, CallState.ACTIVE, Trigger.END): CallState.ENDED,
    (Direction.INBOUND, CallState.PENDING, Trigger.STREAM_STARTED): CallState.ACTIVE,
    (Direction.INBOUND, CallState.PENDING, Trigger.END): CallState.ENDED,
    (Direction.INBOUND, CallState.ACTIVE, Trigger.END): CallState.ENDED,
}
ALL = list(itertools.product(Direction, CallState, Trigger))
# No way leads an inbound call into `ringing`; the table has its end all the same, as the shorter rule.
UNREACHABLE = {(Direction.INBOUND, CallState.RINGING, Trigger.END)}


@pytest.mark.parametrize(("edge", "leads_to"), EDGES.items(), ids=str)
def test_an_edge_of_the_table_leads_where_it_says(
    edge: tuple[Direction, CallState, Trigger], leads_to: CallState
) -> None:
    assert next_state(*edge) is leads_to


@pytest.mark.parametrize("edge", [edge for edge in ALL if edge not in EDGES and edge not in UNREACHABLE], ids=str)
def test_any_other_edge_is_a_bug_and_says_which(edge: tuple[Direction, CallState, Trigger]) -> None:
    with pytest.raises(IllegalTransition, match=edge[2].name):
        next_state(*edge)


@pytest.mark.parametrize("direction", Direction)
def test_every_state_that_can_be_reached_can_end_and_ended_is_final(direction: Direction) -> None:
    reached, frontier = {CallState.PENDING}, [CallState.PENDING]
    while frontier:
        state = frontier.pop()
        for trigger in Trigger:
            try:
                following = next_state(direction, state, trigger)
            except IllegalTransition:
                continue
            assert state is not CallState.ENDED
            if following not in reached:
                reached.add(following)
                frontier.append(following)
    expected = set(CallState) if direction is Direction.OUTBOUND else set(CallState) - {CallState.RINGING}
    assert reached == expected
    for state in reached - {CallState.ENDED}:
        assert next_state(direction, state, Trigger.END) is CallState.ENDED
