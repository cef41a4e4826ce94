"""The events of a call: which, in which order, and that nobody who is told can harm it."""

from __future__ import annotations

import asyncio

import pytest

from connector.call.record import event_dispatcher as dispatcher
from connector.call.record.call_recorder import MOST_EVENTS
from connector.call.session.call_session import CallSession
from connector.errors import Unavailable
from connector.model.call import CallState, Direction
from connector.model.end_reason import EndReason
from connector.storage.base import StoreError
from tests.unit.call.fakes import CARRIER_CALL, LIMITS, World
from tests.unit.call.virtual_time import virtual_time


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def talk(world: World, call: CallSession, *reports: str) -> asyncio.Task[None]:
    await call.open()
    for number, status in enumerate(reports):
        call.carrier_said(status, number)
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await settle()
    assert call.state is CallState.ACTIVE
    return carrying


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_whole_call_is_told_in_order_and_kept_in_its_record(direction: Direction) -> None:
    world = World(direction)
    call = world.session()
    carrying = await talk(world, call)
    world.socket.feed("stop")
    await carrying
    ringing = ["call-ringing"] if direction is Direction.OUTBOUND else []
    events = ["call-started", *ringing, "call-answered", "call-hangup"]
    assert world.lifecycle.events == events
    assert [event for event, _ in call.record.timelog] == events
    times = [at for _, at in call.record.timelog]
    assert times == sorted(times)
    assert world.store.records["call_1"].timelog == call.record.timelog
    # Each is told with the record as it stood: its timelog ends with the event.
    for count, (event, record, _) in enumerate(world.lifecycle.told, 1):
        assert [name for name, _ in record.timelog] == events[:count]
        assert event == events[count - 1]
    answered = world.lifecycle.told[-2][1]
    assert (answered.state, answered.carrier_call_id) == (CallState.ACTIVE, CARRIER_CALL)
    assert world.lifecycle.told[-1][1].end_reason is EndReason.CARRIER_HANGUP
    assert world.lifecycle.told[-1][2] == {"reason": "carrier_hangup"}


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_call_that_ends_before_it_is_active_is_missed(direction: Direction) -> None:
    world = World(direction)
    call = world.session()
    await call.open()
    await asyncio.sleep(LIMITS.connect_timeout + 1)
    assert world.lifecycle.events[-1] == "call-missed"
    assert "call-answered" not in world.lifecycle.events
    assert world.lifecycle.told[-1][2] == {"reason": "connect_timeout"}


@virtual_time
async def test_a_call_that_could_not_be_opened_is_nobodys_news() -> None:
    world = World()
    world.faults.planned["room.join_hidden"] = Unavailable("gone")
    call = world.session()
    with pytest.raises(Unavailable):
        await call.open()
    assert world.lifecycle.events == []
    assert call.record.timelog == ()


@virtual_time
async def test_ringing_is_told_once_however_often_the_carrier_says_it() -> None:
    world = World()
    call = world.session()
    await call.open()
    for number in range(3):
        call.carrier_said("ringing", number)
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()
    assert world.lifecycle.events == ["call-started", "call-ringing", "call-missed"]


@pytest.mark.parametrize("numbers", [(0, 1, 2), (0, 0, 0)], ids=["numbered", "not numbered"])
@virtual_time
async def test_reports_that_overtake_one_another_do_not_take_the_status_back(numbers: tuple[int, int, int]) -> None:
    world = World()
    call = world.session()
    await call.open()
    first, second, third = numbers
    call.carrier_said("in-progress", third)
    call.carrier_said("ringing", second)
    call.carrier_said("initiated", first)
    assert call.record.carrier_status == "in-progress"
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()


@virtual_time
async def test_a_stream_says_that_the_phone_was_answered_before_the_carriers_report_does() -> None:
    world = World()
    call = world.session()
    carrying = await talk(world, call)
    assert call.record.carrier_status == ""
    call.carrier_said("ringing", 1)
    assert call.record.carrier_status == "in-progress"
    call.carrier_said("completed", 3)
    call.carrier_said("in-progress", 2)
    assert call.record.carrier_status == "completed"
    world.socket.feed("stop")
    await carrying
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_call_whose_stream_has_started_is_in_progress_though_the_last_report_said_that_it_rings() -> None:
    world = World()
    call = world.session()
    carrying = await talk(world, call, "initiated", "ringing")
    assert call.record.carrier_status == "in-progress"
    world.socket.feed("stop")
    await carrying


@pytest.mark.parametrize(
    "fault", [Unavailable("gone"), ZeroDivisionError("a bug"), None], ids=["refuses", "breaks", "hangs"]
)
@virtual_time
async def test_a_listener_that_fails_does_not_harm_the_call(fault: Exception | None) -> None:
    world = World()
    world.faults.planned["lifecycle"] = fault
    call = world.session()
    began = asyncio.get_running_loop().time()
    carrying = await talk(world, call)
    # Nobody waited for it: no time has passed.
    assert asyncio.get_running_loop().time() == began
    world.socket.feed("audio", "digit 1", "stop")
    async with asyncio.timeout(30):
        await carrying
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)
    assert [event for event, _ in call.record.timelog][-1] == "call-hangup"
    assert any("event" in str(entry["event"]) for entry in world.log.entries)


@virtual_time
async def test_a_listener_that_comes_back_is_told_the_rest_in_order() -> None:
    world = World()
    world.faults.delays["lifecycle"] = dispatcher.PATIENCE - 0.5
    call = world.session()
    carrying = await talk(world, call)
    world.room.listener.room_attributes({"a": "1"})
    world.socket.feed("stop")
    await carrying
    told = world.lifecycle.events
    assert told == [event for event, _ in call.record.timelog][: len(told)]
    assert told[:3] == ["call-started", "call-ringing", "call-answered"]


@virtual_time
async def test_a_store_that_fails_keeps_the_end_back_until_it_has_said_that_it_stands() -> None:
    world = World()
    world.faults.planned |= {"store.save active": StoreError("full"), "store.save ended": StoreError("full")}
    call = world.session()
    carrying = await talk(world, call)
    world.socket.feed("stop")
    await carrying
    assert world.lifecycle.events == ["call-started", "call-ringing", "call-answered"]
    await world.store_is_back()
    assert world.lifecycle.events == ["call-started", "call-ringing", "call-answered", "call-hangup"]
    assert world.counted() == {"carrier_hangup": 1.0}


@virtual_time
async def test_attributes_that_others_change_are_told_by_name_and_ours_are_not() -> None:
    world = World()
    call = world.session()
    carrying = await talk(world, call)
    listener = world.room.listener
    listener.room_attributes({"connector.callStatus": "active", "fake.a": "b", "theirs": "kept"})
    await settle()
    assert "call-update" not in world.lifecycle.events
    listener.room_attributes({"mood": "good", "fake.a": "changed", "connector.callId": "x"})
    listener.room_attributes({"mood": "good"})
    await settle()
    assert [details for event, _, details in world.lifecycle.told if event == "call-update"] == [
        {"change": "attributes", "names": "fake.a,mood"}
    ]
    world.socket.feed("stop")
    await carrying


@virtual_time
async def test_a_room_that_changes_attributes_without_end_does_not_fill_the_memory() -> None:
    world = World()
    call = world.session()
    carrying = await talk(world, call)
    world.faults.planned["lifecycle"] = None
    for number in range(1000):
        world.room.listener.room_attributes({"n": str(number)})
    await settle()
    assert len(call.record.timelog) <= MOST_EVENTS
    world.socket.feed("stop")
    async with asyncio.timeout(30):
        await carrying


@virtual_time
async def test_a_move_is_told_with_both_rooms() -> None:
    world = World()
    call = world.session()
    carrying = await talk(world, call)
    await call.switch_room("cellar")
    await settle()
    event, record, details = world.lifecycle.told[-1]
    assert (event, record.room) == ("call-update", "cellar")
    assert details == {"change": "room", "from_room": "lobby", "to_room": "cellar"}
    world.socket.feed("stop")
    await carrying
