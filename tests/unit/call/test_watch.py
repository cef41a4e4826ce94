"""The watchdog inside a call, on virtual time: agents dispatched again, what is told, and how the call ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from connector.call.session.call_session import CallSession
from connector.call.session.watchdog import RETURN_PATIENCE
from connector.errors import Unavailable
from connector.model.call import AgentDispatch, AgentWatch, CallState, Direction, Transfer, TransferStatus
from connector.model.end_reason import EndReason
from connector.room.listener import Departure, Kind, Occupant
from tests.unit.call.fakes import LIMITS, FakeControl, FakeSocket, Faults, World
from tests.unit.call.virtual_time import virtual_time

RULES = AgentWatch(warn_after=5, timeout=30, empty_timeout=10, fallback_agent="", fallback_number="", message="")
SUPPORT = AgentDispatch("support", metadata="m")
PATIENT = replace(LIMITS, media_timeout=3600.0)
"""The carrier says nothing in these tests."""
AGENT = Occupant("agent-1", Kind.AGENT, "support", has_audio=True)


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def answered(
    rules: AgentWatch = RULES,
    agents: tuple[AgentDispatch, ...] = (SUPPORT,),
    direction: Direction = Direction.OUTBOUND,
    control: FakeControl | None = None,
    faults: Faults | None = None,
) -> tuple[World, CallSession, asyncio.Task[None]]:
    world = World(direction, PATIENT, watch=rules, agents=agents, control=control, faults=faults or Faults())
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await settle()
    assert call.state is CallState.ACTIVE
    return world, call, carrying


def told(world: World) -> list[dict[str, str]]:
    return [details for _, _, details in world.lifecycle.told if details.get("change") == "agent"]


def people(world: World, *who: Occupant, gone: Departure | None = None) -> None:
    world.rooms[-1].listener.room_people(who, gone)


def counted(world: World) -> dict[str, float]:
    (family,) = world.metrics.agents.collect()
    return {s.labels["what"]: s.value for s in family.samples if s.name.endswith("_total")}


@pytest.mark.parametrize("direction", list(Direction))
@virtual_time
async def test_a_call_whose_agent_never_comes_ends_once_as_no_agent(direction: Direction) -> None:
    world, call, carrying = await answered(direction=direction)
    began = asyncio.get_running_loop().time()
    await carrying
    assert asyncio.get_running_loop().time() - began == pytest.approx(30, abs=0.01)
    world.assert_ended_once(call, EndReason.NO_AGENT)
    assert world.admin.dispatched == [("lobby", ["support"])] * 13
    assert [event["status"] for event in told(world)] == ["missing", "dispatched"]
    assert told(world)[0] == {"change": "agent", "status": "missing", "agents": "support", "why": "never_came"}
    assert counted(world) == {"missing": 1, "dispatched": 13, "no_agent": 1}
    assert world.socket.closed_with == [(1000, "no_agent")]
    assert world.admin.withdrawn, "an agent that comes now would come into an empty room"


@virtual_time
async def test_the_time_of_an_outbound_call_begins_at_the_answer() -> None:
    world = World(Direction.OUTBOUND, PATIENT, watch=RULES, agents=(SUPPORT,))
    call = world.session()
    await call.open()
    await asyncio.sleep(60)
    assert (call.state, world.admin.dispatched) == (CallState.RINGING, [])
    call.end(EndReason.ENDED_BY_API)
    await call.finished.wait()


@virtual_time
async def test_an_agent_that_comes_late_is_told_and_the_call_goes_on() -> None:
    world, call, carrying = await answered()
    await asyncio.sleep(12)
    people(world, AGENT)
    await asyncio.sleep(600)
    assert call.state is CallState.ACTIVE
    assert [event["status"] for event in told(world)] == ["missing", "dispatched", "returned"]
    call.end(EndReason.ENDED_BY_API)
    await carrying


@virtual_time
async def test_a_crashed_job_is_dispatched_again_at_once() -> None:
    world, call, carrying = await answered()
    people(world, AGENT)
    await asyncio.sleep(60)
    people(world, gone=Departure("agent-1", on_purpose=False))
    await settle()
    assert world.admin.dispatched == [("lobby", ["support"])]
    people(world, replace(AGENT, identity="agent-2"))
    await asyncio.sleep(600)
    assert call.state is CallState.ACTIVE
    call.end(EndReason.ENDED_BY_API)
    await carrying


@virtual_time
async def test_the_last_one_to_leave_on_purpose_ends_the_call_after_the_grace() -> None:
    world, call, carrying = await answered()
    people(world, AGENT)
    await asyncio.sleep(60)
    people(world, gone=Departure("agent-1", on_purpose=True))
    await carrying
    world.assert_ended_once(call, EndReason.ROOM_EMPTY)
    assert world.admin.dispatched == []


@pytest.mark.parametrize("fault", [Unavailable("LiveKit is away"), ZeroDivisionError("a bug of ours")])
@virtual_time
async def test_a_livekit_that_fails_keeps_no_call_from_its_end(fault: BaseException) -> None:
    faults = Faults()
    faults.planned = {"admin.dispatch_again": fault, "admin.withdraw": fault}
    world, call, carrying = await answered(faults=faults)
    await carrying
    world.assert_ended_once(call, EndReason.NO_AGENT)


@virtual_time
async def test_a_livekit_that_hangs_keeps_no_call_from_its_end() -> None:
    faults = Faults()
    faults.planned = {"admin.dispatch_again": None, "admin.withdraw": None}
    world, call, carrying = await answered(faults=faults)
    await carrying
    world.assert_ended_once(call, EndReason.NO_AGENT)


@virtual_time
async def test_a_call_that_ends_meanwhile_leaves_no_task_of_the_watchdog() -> None:
    faults = Faults()
    faults.planned = {"admin.dispatch_again": None}
    world, call, carrying = await answered(faults=faults)
    await faults.reached.wait()
    world.socket.feed("stop")
    await carrying
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_call_with_the_watchdog_off_lives_on() -> None:
    world, call, carrying = await answered(AgentWatch(warn_after=0, timeout=0, empty_timeout=0))
    await asyncio.sleep(3000)
    assert call.state is CallState.ACTIVE
    call.end(EndReason.ENDED_BY_API)
    await carrying
    assert world.admin.dispatched == []


@virtual_time
async def test_the_fallback_agent_is_tried_before_the_end() -> None:
    world, call, carrying = await answered(replace(RULES, fallback_agent="reserve"))
    await asyncio.sleep(31)
    assert world.admin.dispatched[-1] == ("lobby", ["reserve"])
    assert told(world)[-1]["agents"] == "reserve"
    await carrying
    world.assert_ended_once(call, EndReason.NO_AGENT)
    assert counted(world)["fallback"] == 1


@virtual_time
async def test_the_fallback_agent_that_comes_has_the_call() -> None:
    world, call, carrying = await answered(replace(RULES, fallback_agent="reserve"))
    await asyncio.sleep(31)
    people(world, Occupant("agent-2", Kind.AGENT, "reserve", has_audio=True))
    asked = len(world.admin.dispatched)
    await asyncio.sleep(600)
    assert (call.state, len(world.admin.dispatched)) == (CallState.ACTIVE, asked)
    call.end(EndReason.ENDED_BY_API)
    await carrying


@virtual_time
async def test_the_fallback_number_gets_the_phone() -> None:
    faults = Faults()
    control = FakeControl(faults)
    world, call, carrying = await answered(
        replace(RULES, fallback_number="+15551234567"), control=control, faults=faults
    )
    await asyncio.sleep(31)
    assert control.transferred == [("CA1", "+15551234567")]
    # While the number rings, nobody is missed.
    await asyncio.sleep(25)
    await carrying
    await call.transfers.progress(TransferStatus.ANSWERED)
    await call.finished.wait()
    world.assert_ended_once(call, EndReason.TRANSFERRED)


@pytest.mark.parametrize("has_credentials", [True, False])
@virtual_time
async def test_a_fallback_number_that_cannot_be_had_ends_the_call(has_credentials: bool) -> None:
    faults = Faults()
    faults.planned = {"control.transfer": Unavailable("the carrier is away")}
    control = FakeControl(faults) if has_credentials else None
    world, call, carrying = await answered(
        replace(RULES, fallback_number="+15551234567"), control=control, faults=faults
    )
    await carrying
    world.assert_ended_once(call, EndReason.NO_AGENT)


@virtual_time
async def test_an_outage_stops_the_watchdog_and_its_return_starts_it_again() -> None:
    world, call, carrying = await answered()
    people(world, AGENT)
    await asyncio.sleep(60)
    world.room.listener.room_lost()
    people(world, gone=Departure("agent-1", on_purpose=False))
    await asyncio.sleep(60)
    assert world.admin.dispatched == []
    people(world)
    world.room.listener.room_regained(False, False)
    await asyncio.sleep(RETURN_PATIENCE + 0.1)
    assert world.admin.dispatched == [("lobby", ["support"])]
    await carrying
    world.assert_ended_once(call, EndReason.NO_AGENT)


@virtual_time
async def test_an_agent_that_is_back_after_all_takes_the_place_of_the_one_dispatched_for_it() -> None:
    world, call, carrying = await answered()
    people(world, AGENT)
    world.room.listener.room_lost()
    people(world)
    world.room.listener.room_regained(False, False)
    await asyncio.sleep(RETURN_PATIENCE + 0.1)
    people(world, replace(AGENT, identity="agent-2"))
    people(world, replace(AGENT, identity="agent-2"), AGENT)
    await settle()
    assert world.admin.withdrawn == [["support-1"]]
    people(world, AGENT, gone=Departure("agent-2", on_purpose=True))
    await asyncio.sleep(600)
    assert (call.state, len(world.admin.dispatched)) == (CallState.ACTIVE, 1)
    call.end(EndReason.ENDED_BY_API)
    await carrying


@virtual_time
async def test_in_another_room_its_own_agents_are_watched() -> None:
    world, call, carrying = await answered()
    people(world, AGENT)
    await call.switch_room("elsewhere", [AgentDispatch("billing")])
    await asyncio.sleep(6)
    assert world.admin.dispatched == [("elsewhere", ["billing"])]
    people(world, Occupant("agent-9", Kind.AGENT, "billing", has_audio=True))
    await asyncio.sleep(600)
    assert call.state is CallState.ACTIVE
    call.end(EndReason.ENDED_BY_API)
    await carrying


@pytest.mark.parametrize(
    ("asked", "ends_after"), [(AgentWatch(), 30), (AgentWatch(timeout=7), 7), (AgentWatch(warn_after=0, timeout=9), 9)]
)
@virtual_time
async def test_a_request_goes_before_the_setting(asked: AgentWatch, ends_after: float) -> None:
    world = World(limits=PATIENT, watch=RULES)
    call = CallSession(replace(world.request(), watch=asked), world.parts, world.finished.append)
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await carrying
    assert asyncio.get_running_loop().time() == pytest.approx(ends_after, abs=0.1)


def test_the_narrower_choice_wins() -> None:
    rule = AgentWatch(timeout=7, fallback_number="")
    wider = replace(RULES, fallback_number="+15551234567")
    assert rule.over(wider) == replace(RULES, timeout=7, fallback_number="")


@virtual_time
async def test_a_call_that_another_process_takes_over_keeps_its_rules() -> None:
    maker = World(Direction.INBOUND, PATIENT, watch=RULES, agents=(SUPPORT,))
    request = replace(maker.request(), watch=AgentWatch(timeout=7))
    former = await maker.manager.create(request)
    taker = World(Direction.INBOUND, PATIENT, watch=RULES, store=maker.store)
    call = await taker.manager.claim("call_1")
    began = asyncio.get_running_loop().time()
    carrying = asyncio.create_task(call.carry(taker.socket))
    taker.socket.feed("connected", "start")
    await carrying
    assert call.record.end_reason is EndReason.NO_AGENT
    assert asyncio.get_running_loop().time() - began == pytest.approx(7, abs=0.1)
    former.end(EndReason.SHUTDOWN)
    await former.finished.wait()


@virtual_time
async def test_an_agent_that_leaves_once_it_has_transferred_the_caller_ends_nothing() -> None:
    faults = Faults()
    control = FakeControl(faults)
    world, call, carrying = await answered(control=control, faults=faults)
    people(world, AGENT)
    await call.transfer(Transfer("+15551234567", 60))
    people(world, gone=Departure("agent-1", on_purpose=True))
    await asyncio.sleep(50)
    await call.transfers.progress(TransferStatus.ANSWERED)
    await carrying
    await call.finished.wait()
    world.assert_ended_once(call, EndReason.TRANSFERRED)


@virtual_time
async def test_a_transfer_that_fails_leaves_the_caller_watched() -> None:
    faults = Faults()
    faults.planned = {"control.transfer": Unavailable("the carrier is away")}
    world, call, carrying = await answered(control=FakeControl(faults), faults=faults)
    people(world, AGENT)
    with pytest.raises(Unavailable):
        await call.transfer(Transfer("+15551234567", 30))
    people(world, gone=Departure("agent-1", on_purpose=True))
    await carrying
    world.assert_ended_once(call, EndReason.ROOM_EMPTY)


@virtual_time
async def test_the_sentence_is_for_a_call_without_an_agent() -> None:
    control = FakeControl(faults := Faults())
    rules = replace(RULES, message="Nobody is here. Goodbye.")
    world, call, carrying = await answered(rules, control=control, faults=faults)
    await carrying
    world.assert_ended_once(call, EndReason.NO_AGENT)
    assert "Nobody is here. Goodbye." in str(vars(control))


@virtual_time
async def test_a_move_out_of_a_room_that_is_lost_leaves_the_caller_watched() -> None:
    """The outage was the former room's: nobody tells of its end any more."""
    world, call, carrying = await answered()
    people(world, AGENT)
    world.room.listener.room_lost()
    await call.switch_room("elsewhere", [AgentDispatch("billing")])
    await asyncio.sleep(6)
    assert world.admin.dispatched == [("elsewhere", ["billing"])]
    await carrying
    world.assert_ended_once(call, EndReason.NO_AGENT)


@virtual_time
async def test_a_move_into_a_room_that_is_lost_again_at_once_waits_for_its_return() -> None:
    faults = Faults()
    world, call, carrying = await answered(faults=faults)
    people(world, AGENT)
    faults.delays = {"room.publish": 0.5}
    moving = asyncio.create_task(call.switch_room("elsewhere", [AgentDispatch("billing")]))
    await asyncio.sleep(0.1)
    world.rooms[-1].listener.room_lost()
    await moving
    await asyncio.sleep(60)
    assert (call.state, world.admin.dispatched) == (CallState.ACTIVE, [])
    world.rooms[-1].listener.room_regained(False, False)
    await carrying
    assert world.admin.dispatched[0] == ("elsewhere", ["billing"])
    assert call.record.end_reason is EndReason.NO_AGENT


@pytest.mark.parametrize("step", ["control.transfer", "admin.withdraw"])
@virtual_time
async def test_an_agent_that_comes_while_the_call_is_given_up_has_it(step: str) -> None:
    faults = Faults()
    faults.delays = {step: 0.8}
    faults.planned = {"control.transfer": Unavailable("the carrier is away")}
    number = "+15551234567" if step == "control.transfer" else ""
    world, call, carrying = await answered(
        replace(RULES, fallback_number=number), control=FakeControl(faults), faults=faults
    )
    await asyncio.sleep(30.5)
    assert step in faults.steps
    people(world, AGENT)
    await asyncio.sleep(600)
    assert call.state is CallState.ACTIVE
    people(world, gone=Departure("agent-1", on_purpose=True))
    await carrying
    world.assert_ended_once(call, EndReason.ROOM_EMPTY)


@virtual_time
async def test_a_call_that_is_moved_while_it_is_given_up_goes_on_in_the_other_room() -> None:
    faults = Faults()
    faults.delays = {"admin.withdraw": 0.8}
    world, call, carrying = await answered(faults=faults)
    await asyncio.sleep(30.5)
    assert "admin.withdraw" in faults.steps
    await call.switch_room("elsewhere", [AgentDispatch("billing")])
    await asyncio.sleep(3)
    people(world, Occupant("agent-9", Kind.AGENT, "billing", has_audio=True))
    await asyncio.sleep(600)
    assert call.state is CallState.ACTIVE
    call.end(EndReason.ENDED_BY_API)
    await carrying


@virtual_time
async def test_an_end_that_is_due_while_the_fallback_agent_is_dispatched_comes_after_it() -> None:
    faults = Faults()
    faults.delays = {"admin.dispatch_again": 3.0}
    world, call, carrying = await answered(
        replace(RULES, warn_after=0, timeout=2, fallback_agent="reserve"), faults=faults
    )
    await asyncio.sleep(3)
    people(world, Occupant("recorder", Kind.RECORDER))
    await asyncio.sleep(1.9)
    people(world)
    await asyncio.wait([carrying], timeout=60)
    world.assert_ended_once(call, EndReason.NO_AGENT)


@pytest.mark.parametrize("on_purpose", [True, False])
@virtual_time
async def test_an_agent_that_has_left_meanwhile_is_dispatched_at_once_when_the_caller_comes_back(
    on_purpose: bool,
) -> None:
    faults = Faults()
    world, call, carrying = await answered(control=FakeControl(faults), faults=faults)
    people(world, AGENT)
    await call.transfer(Transfer("+15551234567", 60))
    people(world, gone=Departure("agent-1", on_purpose))
    await asyncio.sleep(20)
    assert world.admin.dispatched == []
    await call.transfers.over(TransferStatus.BUSY, caller_left=False)
    await call.claim()
    socket = FakeSocket(world.faults)
    returned = asyncio.create_task(call.carry(socket))
    socket.feed("connected", "start")
    await settle()
    assert [agents for _, agents in world.admin.dispatched] == [["support"]]
    assert told(world)[0]["status"] == "missing"
    socket.feed("stop")
    await asyncio.gather(returned, carrying)


@virtual_time
async def test_a_dispatch_that_is_under_way_in_a_move_is_taken_back_from_the_former_room() -> None:
    world, call, carrying = await answered()
    world.faults.delays["admin.dispatch_again"] = 1.0
    await asyncio.sleep(RULES.warn_after or 0)
    await settle()
    assert world.admin.dispatched == [("lobby", ["support"])]
    await call.switch_room("office", [AgentDispatch("helper")])
    await asyncio.sleep(1.5)
    assert world.admin.withdrawn == [["support-1"]]
    # The other room's is asked for when its time has come, and not when the former one's was.
    await asyncio.sleep(RULES.warn_after or 0)
    assert world.admin.dispatched[-1] == ("office", ["helper"])
    assert world.admin.withdrawn == [["support-1"]]
    call.end(EndReason.ENDED_BY_API)
    await carrying


@virtual_time
async def test_an_agent_that_leaves_on_purpose_without_a_word_is_not_dispatched_again() -> None:
    world, call, carrying = await answered()
    people(world, replace(AGENT, has_audio=False))
    people(world, gone=Departure("agent-1", on_purpose=True))
    await carrying
    assert world.admin.dispatched == []
    world.assert_ended_once(call, EndReason.ROOM_EMPTY)
