"""The watchdog's decisions: a table of what happens in a room, second by second, and what is done about it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.call.session.watchdog import (
    REPEAT_MOST,
    RETURN_PATIENCE,
    STREAM_LOST,
    DispatchAgain,
    GiveUp,
    Missing,
    Returned,
    Watchdog,
    Why,
)
from connector.model.call import AgentWatch
from connector.model.end_reason import EndReason
from connector.room.listener import Departure, Kind, Occupant

RULES = AgentWatch(warn_after=5, timeout=30, empty_timeout=10, fallback_agent="", fallback_number="", message="")
NO_AGENT, ROOM_EMPTY = EndReason.NO_AGENT, EndReason.ROOM_EMPTY


def agent(name: str = "support", identity: str = "", audio: bool = True) -> Occupant:
    return Occupant(identity or f"agent-{name}", Kind.AGENT, name, audio)


PERSON = Occupant("anna", Kind.PERSON)
PHONE = Occupant("another phone", Kind.PHONE, has_audio=True)
RECORDER = Occupant("EG_1", Kind.RECORDER)


class Room:
    """One call's room, on a clock of its own: `log` has (second, action) of all that the watchdog asked for."""

    def __init__(self, *wanted: str, rules: AgentWatch = RULES, once: tuple[str, ...] = ()) -> None:
        self.dog = Watchdog(rules, wanted, once)
        self.now = 0.0
        self.log: list[tuple[float, Any]] = []
        self._here: dict[str, Occupant] = {}

    def _look(self) -> None:
        self.log += [(round(self.now, 3), action) for action in self.dog.due(self.now)]

    def start(self) -> Room:
        self.dog.start(self.now)
        self._look()
        return self

    def until(self, at: float) -> Room:
        """Let time pass as a timer set for `next_at` would."""
        while (due := self.dog.next_at()) is not None and due <= at:
            assert due >= self.now, "a timer for the past would spin"
            self.now = due
            self._look()
        self.now = at
        return self

    def comes(self, who: Occupant) -> Room:
        self._here[who.identity] = who
        self.dog.people(self.now, self._here.values())
        self._look()
        return self

    def leaves(self, who: Occupant, on_purpose: bool = True) -> Room:
        del self._here[who.identity]
        self.dog.people(self.now, self._here.values(), Departure(who.identity, on_purpose))
        self._look()
        return self

    def of(self, kind: type) -> list[tuple[float, Any]]:
        return [(at, action) for at, action in self.log if isinstance(action, kind)]

    def dispatches(self, name: str = "support") -> list[float]:
        return [at for at, action in self.of(DispatchAgain) if name in action.agents]

    @property
    def end(self) -> tuple[float, EndReason] | None:
        ends = self.of(GiveUp)
        assert len(ends) <= 1
        return (ends[0][0], ends[0][1].reason) if ends else None


def test_an_agent_that_never_comes_is_told_dispatched_again_every_two_seconds_and_given_up() -> None:
    room = Room("support").start().until(100)
    assert room.of(Missing) == [(5, Missing(("support",), Why.NEVER_CAME))]
    assert room.dispatches() == [5 + 2 * n for n in range(13)]
    assert room.end == (30, NO_AGENT)


def test_an_agent_that_comes_late_ends_it_all() -> None:
    room = Room("support").start().until(12.5).comes(agent()).until(1000)
    assert room.dispatches() == [5, 7, 9, 11]
    assert room.of(Returned) == [(12.5, Returned())]
    assert room.end is None


def test_an_agent_that_is_in_time_is_nothing_to_tell() -> None:
    assert Room("support").start().until(4.9).comes(agent()).until(1000).log == []
    assert Room("support").comes(agent()).start().until(1000).log == []


def test_a_crashed_job_is_told_and_dispatched_again_at_once() -> None:
    room = Room("support").comes(agent()).start().until(60).leaves(agent(), on_purpose=False).until(61)
    assert room.log == [(60, Missing(("support",), Why.CRASHED)), (60, DispatchAgain(("support",)))]
    room.until(200)
    assert room.end == (90, NO_AGENT)


@pytest.mark.parametrize("audio", [True, False])
def test_how_an_agent_has_left_tells_whether_it_crashed_and_not_whether_it_was_heard(audio: bool) -> None:
    room = Room("support").start().until(1).comes(agent(audio=audio)).until(2)
    room.leaves(agent(), on_purpose=True).until(200)
    assert (room.dispatches(), room.end) == ([], (12, ROOM_EMPTY))
    room = Room("support").start().until(1).comes(agent(audio=audio)).until(2)
    assert room.leaves(agent(), on_purpose=False).until(2).dispatches() == [2]


def test_a_crash_loop_does_not_put_the_end_off_for_ever() -> None:
    silent = agent(audio=False)
    room = Room("support").start()
    for second in range(1, 200):
        room.until(second).comes(silent)
        room.until(second + 0.5).leaves(silent, on_purpose=False)
    assert room.end is not None
    assert room.end[0] <= 60


def test_an_agent_that_leaves_on_purpose_empties_the_room() -> None:
    room = Room("support").comes(agent()).start().until(60).leaves(agent()).until(200)
    assert room.dispatches() == []
    assert room.of(Missing) == [(65, Missing((), Why.LEFT))]
    assert room.end == (70, ROOM_EMPTY)


def test_a_warm_transfer_leaves_a_person_with_the_caller_and_nobody_is_dispatched() -> None:
    room = Room("support").comes(agent()).start().until(60).comes(PERSON).leaves(agent()).until(1000)
    assert room.log == []
    assert room.leaves(PERSON).until(2000).end == (1010, ROOM_EMPTY)


def test_a_person_who_comes_in_the_grace_after_the_agent_keeps_the_call() -> None:
    room = Room("support").comes(agent()).start().until(60).leaves(agent()).until(69).comes(PERSON).until(1000)
    assert room.end is None


def test_phones_alone_together_are_people_talking() -> None:
    room = Room("support").start().comes(PHONE).until(100)
    assert room.dispatches()[:2] == [5, 7]
    assert room.end is None
    assert room.leaves(PHONE).until(1000).end == (130, NO_AGENT)
    without = Room().start().comes(PHONE).until(100)
    assert not without.log
    assert without.leaves(PHONE).until(1000).end == (110, ROOM_EMPTY)


@pytest.mark.parametrize("who", [None, RECORDER], ids=["nobody", "an egress"])
def test_a_call_without_a_dispatch_waits_for_anybody_but_phones(who: Occupant | None) -> None:
    room = Room().start()
    if who is not None:
        room.comes(who)
    room.until(100)
    assert room.of(Missing) == [(5, Missing((), Why.NEVER_CAME))]
    assert room.end == (30, NO_AGENT)


@pytest.mark.parametrize("who", [PERSON, agent(), agent("")], ids=["no microphone", "agent", "unnamed agent"])
def test_a_call_without_a_dispatch_stays_with_anybody_there(who: Occupant) -> None:
    assert Room().start().until(3).comes(who).until(1000).log == []


def test_a_person_is_company_though_the_agent_is_missing() -> None:
    room = Room("support").start().comes(PERSON).until(300)
    assert room.of(Missing) == [(5, Missing(("support",), Why.NEVER_CAME))]
    assert room.end is None
    pauses = [
        round(later - earlier, 3) for earlier, later in zip(room.dispatches(), room.dispatches()[1:], strict=False)
    ]
    assert pauses[:10] == [2] * 10
    assert pauses == sorted(pauses)
    assert max(pauses) <= REPEAT_MOST


def test_of_two_agents_the_missing_one_alone_is_dispatched_again() -> None:
    room = Room("support", "notes").comes(agent()).start().until(20)
    assert room.of(Missing) == [(5, Missing(("notes",), Why.NEVER_CAME))]
    assert room.dispatches("notes")
    assert not room.dispatches("support")
    assert room.until(100).end is None


def test_two_agents_of_one_name_are_two() -> None:
    room = Room("support", "support").comes(agent()).start().until(6)
    assert room.dispatches() == [5]
    assert room.comes(agent(identity="second")).until(100).dispatches() == [5]


def test_an_agent_that_livekit_has_hidden_is_there() -> None:
    room = Room("notes").start().comes(PERSON).until(5)
    room.dog.looked({"notes": 1})
    assert room.until(100).dispatches("notes") == [5]


def test_a_job_that_is_not_to_be_started_again_is_not() -> None:
    room = Room("support", once=("support",)).comes(agent()).start().until(60).leaves(agent(), False).until(200)
    assert room.dispatches() == []
    assert room.end == (90, NO_AGENT)


def test_an_agent_that_somebody_else_dispatched_is_dispatched_again_when_it_crashes() -> None:
    room = Room().comes(agent("theirs")).start().until(60).leaves(agent("theirs"), False).until(66)
    assert room.dispatches("theirs") == [65]


def test_a_silent_agent_ends_the_call_later_than_none_and_not_never() -> None:
    room = Room("support").start().until(20).comes(agent(audio=False)).until(200)
    assert room.dispatches() == [5, 7, 9, 11, 13, 15, 17, 19]
    assert room.end == (50, NO_AGENT)


def test_what_was_heard_once_is_company_without_its_track() -> None:
    room = Room("support").start().comes(agent()).until(10).comes(agent(audio=False)).until(1000)
    assert room.end is None


def test_an_outage_stops_the_clocks_and_gives_agents_time_to_come_back() -> None:
    room = Room("support").comes(agent()).start().until(60)
    room.dog.hold("livekit")
    room.leaves(agent(), on_purpose=False).until(100)
    assert room.log == []
    room.dog.resume(100, "livekit", RETURN_PATIENCE)
    room._look()
    assert room.until(107.9).dispatches() == []
    room.until(200)
    assert room.of(Missing)[-1] == (108, Missing(("support",), Why.OUTAGE))
    assert room.dispatches()[0] == 108
    assert room.end == (130, NO_AGENT)


def test_an_agent_that_comes_back_by_itself_after_an_outage_is_not_doubled() -> None:
    room = Room("support").comes(agent()).start().until(60)
    room.dog.hold("livekit")
    room.leaves(agent(), on_purpose=False).until(100)
    room.dog.resume(100, "livekit", RETURN_PATIENCE)
    assert room.until(105).comes(agent()).until(1000).log == []


def test_a_departure_that_is_told_just_after_the_outage_is_no_crash_yet() -> None:
    room = Room("support").comes(agent()).start().until(60)
    room.dog.hold("livekit")
    room.dog.resume(100, "livekit", RETURN_PATIENCE)
    room.now = 100
    room.leaves(agent(), on_purpose=False)
    assert room.until(107).dispatches() == []
    assert room.comes(agent()).until(1000).dispatches() == []


def test_to_a_room_that_was_deleted_nobody_is_dispatched() -> None:
    room = Room("support").comes(agent()).start().until(60)
    room.dog.hold("livekit")
    room.leaves(agent(), on_purpose=False)
    room.dog.want_none()
    room.dog.resume(60, "livekit", RETURN_PATIENCE)
    room._look()
    assert room.until(1000).dispatches() == []
    assert room.end == (90, NO_AGENT)


def test_a_transfer_under_way_ends_nothing_and_a_caller_who_comes_back_gets_an_agent() -> None:
    room = Room("support").comes(agent()).start().until(60)
    room.dog.hold("transfer")
    assert room.leaves(agent()).until(200).log == []
    room.dog.resume(200, "transfer")
    room._look()
    assert room.until(206).dispatches() == [205]


def test_an_agent_that_leaves_while_the_stream_is_lost_is_not_dispatched_again() -> None:
    room = Room("support").comes(agent()).start().until(60)
    room.dog.hold(STREAM_LOST)
    room.leaves(agent()).until(61)
    room.dog.resume(61, STREAM_LOST, dispatch_in=0.0)
    room._look()
    assert room.until(200).dispatches() == []
    assert room.end == (71, ROOM_EMPTY)


def test_an_agent_that_crashes_while_the_stream_is_lost_is_dispatched_again_at_the_return() -> None:
    room = Room("support").comes(agent()).start().until(60)
    room.dog.hold(STREAM_LOST)
    assert room.leaves(agent(), on_purpose=False).until(61).log == []
    room.dog.resume(61, STREAM_LOST, dispatch_in=0.0)
    room._look()
    assert room.dispatches() == [61]


@pytest.mark.parametrize("left", [["a"], ["a", "b"], ["b", "b"]])
def test_a_process_that_takes_over_knows_who_has_left(left: list[str]) -> None:
    room = Room("a", "b", "b")
    room.dog.inherit(left)
    assert room.dog.left == tuple(left)
    room.start().until(6)
    assert bool(room.dispatches("a")) is ("a" not in left)
    assert bool(room.dispatches("b")) is (left.count("b") < 2)


def test_after_a_take_over_of_a_conversation_that_is_over_the_call_ends_soon() -> None:
    room = Room("support")
    room.dog.inherit(["support"])
    assert room.start().until(100).dispatches() == []
    assert room.end == (10, ROOM_EMPTY)


def test_two_causes_to_hold_are_two() -> None:
    room = Room("support").start()
    room.dog.hold("livekit")
    room.dog.hold("transfer")
    room.dog.resume(10, "livekit", RETURN_PATIENCE)
    assert room.until(100).log == []


def test_another_room_has_agents_of_its_own() -> None:
    room = Room("support").comes(agent()).start().until(60)
    room._here.clear()
    room.dog.people(60, ())
    room.dog.expect(60, ["billing"])
    room._look()
    room.until(100)
    assert room.dispatches("billing")[0] == 65
    assert not room.dispatches("support")
    assert room.end == (90, NO_AGENT)


@pytest.mark.parametrize("off", ["warn_after", "timeout", "empty_timeout"])
def test_each_step_can_be_turned_off(off: str) -> None:
    rules = replace(RULES, **{off: 0.0})  # type: ignore[arg-type]
    never = Room("support", rules=rules).start().until(500)
    assert bool(never.dispatches()) is bool(never.of(Missing)) is (off != "warn_after")
    assert never.end == (None if off == "timeout" else (30, NO_AGENT))
    left = Room("support", rules=rules).comes(agent()).start().until(60).leaves(agent()).until(500)
    assert left.end == (None if off == "empty_timeout" else (70, ROOM_EMPTY))


def test_without_the_answer_nothing_is_done() -> None:
    assert Room("support").until(1000).comes(agent()).leaves(agent(), False).until(5000).log == []


WHO = [agent(), agent(audio=False, identity="silent"), agent("other"), agent("", "unnamed"), PERSON, PHONE, RECORDER]
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["comes", "leaves", "crashes", "waits", "lost", "regained", "moved", "looked"]),
        st.sampled_from(WHO),
        st.floats(0, 40),
    ),
    max_size=40,
)


@given(STEPS, st.lists(st.sampled_from(["support", "other", ""]), max_size=3))
def test_whatever_happens(steps: list[tuple[str, Occupant, float]], wanted: list[str]) -> None:
    """One end, none while somebody is there, and in an hour with nobody there always one; nobody is dispatched during
    an outage; no timer is set for the past."""
    room = Room(*wanted).start()
    lost = False
    for step, who, seconds in steps:
        match step:
            case "comes":
                room.comes(who)
            case "leaves" | "crashes" if who.identity in room._here:
                room.leaves(who, on_purpose=step == "leaves")
            case "lost":
                room.dog.hold("livekit")
                lost = True
            case "regained":
                room.dog.resume(room.now, "livekit", RETURN_PATIENCE)
                lost = False
            case "moved":
                room._here.clear()
                room.dog.people(room.now, ())
                room.dog.expect(room.now, wanted)
            case "looked":
                room.dog.looked({who.agent_name: 1})
        room._look()
        asked, ends = len(room.of(DispatchAgain)), len(room.of(GiveUp))
        room.until(room.now + seconds)
        if len(room.of(GiveUp)) > ends:
            assert not any(one.kind in (Kind.PERSON, Kind.PHONE) for one in room._here.values())
            return
        assert not lost or not room.of(DispatchAgain)[asked:]
    room.dog.resume(room.now, "livekit", RETURN_PATIENCE)
    room._look()
    for who in list(room._here.values()):
        room.leaves(who)
    assert room.until(room.now + 3600).end is not None
