"""A call with everything around it faked, on virtual time: what it does, in which order, and how it ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from connector.call.session.call_session import CallSession
from connector.errors import TokenExpired, TokenUsed, Unavailable
from connector.model.call import CallState, Direction
from connector.model.end_reason import EndReason
from tests.unit.call.fakes import LIMITS, World
from tests.unit.call.virtual_time import virtual_time


async def settle() -> None:
    """Let everything that can happen now happen; virtual time does not pass."""
    for _ in range(30):
        await asyncio.sleep(0)


async def start(world: World, call: CallSession, *messages: str) -> asyncio.Task[None]:
    """Open the call and its stream, feed these messages; the task that serves the socket."""
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", *messages)
    await settle()
    return carrying


@virtual_time
async def test_an_outbound_call_joins_hidden_is_revealed_published_and_only_then_listens() -> None:
    world = World(Direction.OUTBOUND)
    call = world.session()
    await call.open()
    assert call.state is CallState.RINGING
    assert world.room.attributes["connector.callStatus"] == "ringing"
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start")
    await settle()
    assert world.faults.in_livekit == [
        "admin.ensure_room",
        "room.join_hidden",
        "admin.reveal",
        "room.publish",
    ]
    assert (call.state, world.room.listening) == (CallState.ACTIVE, True)
    world.socket.feed("stop")
    await carrying
    assert world.room.attributes["connector.callStatus"] == "hangup"
    assert world.socket.closed_with == [(1000, "carrier_hangup")]
    assert not world.admin.undone
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_an_inbound_call_touches_no_room_before_its_stream_starts() -> None:
    world = World(Direction.INBOUND)
    call = world.session()
    await call.open()
    assert call.state is CallState.PENDING
    assert "admin.ensure_room" not in world.faults.steps
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start")
    await settle()
    assert world.faults.in_livekit == [
        "admin.check",
        "admin.ensure_room",
        "room.join_visible",
        "room.publish",
    ]
    assert world.room.attributes == {
        "theirs": "kept",
        "fake.a": "b",
        "connector.callId": "call_1",
        "connector.provider": "twilio",
        "connector.direction": "inbound",
        "connector.callStatus": "active",
    }
    world.socket.feed("stop")
    await carrying
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@pytest.mark.parametrize(
    ("last_word", "cleanly", "reason", "close_code"),
    [
        ("stop", True, EndReason.CARRIER_HANGUP, 1000),
        ("garbage", True, EndReason.PROTOCOL_ERROR, 1007),
        ("bug", True, EndReason.INTERNAL_ERROR, 1011),
        ("", True, EndReason.CARRIER_CLOSED, 1000),
        ("", False, EndReason.CARRIER_LOST, 1000),
    ],
)
@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_what_the_socket_does_last_decides_the_reason(
    direction: Direction, last_word: str, cleanly: bool, reason: EndReason, close_code: int
) -> None:
    world = World(direction)
    call = world.session()
    carrying = await start(world, call, "start", "audio")
    if last_word:
        world.socket.feed(last_word)
    else:
        world.socket.hang_up(cleanly)
    await carrying
    assert world.socket.closed_with == [(close_code, reason.value)]
    world.assert_ended_once(call, reason)


@virtual_time
async def test_the_first_reason_stands() -> None:
    world = World()
    call = world.session()
    carrying = await start(world, call, "start")
    call.room_ended(EndReason.ROOM_DELETED, "first")
    call.end(EndReason.SHUTDOWN, "second")
    world.socket.feed("stop")
    await carrying
    assert call.record.end_detail == "first"
    world.assert_ended_once(call, EndReason.ROOM_DELETED)


@virtual_time
async def test_a_call_nobody_answers_times_out_and_takes_its_room_back() -> None:
    world = World()
    call = world.session()
    await call.open()
    await asyncio.sleep(LIMITS.connect_timeout - 1)
    assert not call.finished.is_set()
    await asyncio.sleep(1.1)
    assert world.admin.undone == ["lobby"]
    world.assert_ended_once(call, EndReason.CONNECT_TIMEOUT)
    with pytest.raises(TokenExpired):
        await call.claim()


@virtual_time
async def test_fetching_the_document_gives_the_stream_time_to_open() -> None:
    world = World()
    call = world.session()
    await call.open()
    # The deadline is on the wall clock, which virtual time leaves behind: a later one is what can be seen.
    before = call.deadline
    call.wait.deadline -= LIMITS.connect_timeout
    entries = world.store.waiting.entries
    entries["call_1"] = replace(entries["call_1"], expires_at=call.deadline)
    await call.fetched("CA1", "+15551234567", "")
    assert before - LIMITS.connect_timeout + LIMITS.answer_grace == pytest.approx(call.deadline, abs=1)
    await asyncio.sleep(LIMITS.answer_grace + 1)
    world.assert_ended_once(call, EndReason.CONNECT_TIMEOUT)


@virtual_time
async def test_a_socket_is_served_once_and_silence_on_it_ends_the_call() -> None:
    world = World()
    call = world.session()
    carrying = await start(world, call, "start")
    with pytest.raises(TokenUsed):
        await call.claim()
    await asyncio.sleep(LIMITS.media_timeout - 1)
    world.socket.feed("audio")
    await asyncio.sleep(LIMITS.media_timeout - 1)
    assert not call.finished.is_set()
    await asyncio.sleep(1.5)
    await carrying
    world.assert_ended_once(call, EndReason.MEDIA_TIMEOUT)


@virtual_time
async def test_a_socket_that_opens_and_never_starts_is_silence_too() -> None:
    world = World(Direction.INBOUND)
    call = world.session()
    await call.open()
    await call.claim()
    await call.carry(world.socket)
    assert "room.join_visible" not in world.faults.steps
    world.assert_ended_once(call, EndReason.MEDIA_TIMEOUT)


@virtual_time
async def test_a_long_call_ends_at_its_limit_and_not_before() -> None:
    world = World()
    call = world.session()
    carrying = await start(world, call, "start")
    for _ in range(int(LIMITS.max_duration // 20) - 1):
        await asyncio.sleep(20)
        world.socket.feed("audio")
    await settle()
    assert not call.finished.is_set()
    await asyncio.sleep(21)
    await carrying
    world.assert_ended_once(call, EndReason.MAX_DURATION)


@virtual_time
async def test_the_stream_of_another_call_is_refused() -> None:
    world = World()
    call = world.session()
    await call.open()
    await call.fetched("CA1", "", "")
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start CA2")
    await carrying
    assert world.socket.closed_with == [(1008, "call_mismatch")]
    assert "admin.reveal" not in world.faults.steps
    world.assert_ended_once(call, EndReason.CALL_MISMATCH)


@virtual_time
async def test_a_socket_that_comes_after_the_end_is_closed_at_once() -> None:
    world = World()
    call = world.session()
    await call.open()
    await call.claim()
    call.end(EndReason.SHUTDOWN)
    await settle()
    await call.carry(world.socket)
    assert world.socket.closed_with == [(1000, "shutdown")]
    world.assert_ended_once(call, EndReason.SHUTDOWN)


@virtual_time
async def test_a_start_that_comes_after_the_end_begins_nothing() -> None:
    world = World(Direction.INBOUND)
    world.faults.delays["socket.close"] = 1.0
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    await settle()
    call.end(EndReason.SHUTDOWN)
    world.socket.feed("start")
    await carrying
    assert "admin.ensure_room" not in world.faults.steps
    world.assert_ended_once(call, EndReason.SHUTDOWN)


@virtual_time
async def test_an_end_while_joining_is_told_to_the_client_and_frees_the_call() -> None:
    world = World()
    world.faults.delays["room.join_hidden"] = 1.0
    call = world.session()
    opening = asyncio.create_task(call.open())
    await asyncio.sleep(0.5)
    call.end(EndReason.SHUTDOWN)
    with pytest.raises(Unavailable):
        await opening
    world.assert_ended_once(call, EndReason.SHUTDOWN)


@virtual_time
async def test_the_handler_of_the_socket_may_be_cancelled() -> None:
    world = World()
    call = world.session()
    carrying = await start(world, call, "start")
    carrying.cancel()
    with pytest.raises(asyncio.CancelledError):
        await carrying
    await call.finished.wait()
    world.assert_ended_once(call, EndReason.CARRIER_LOST)


@virtual_time
async def test_digits_go_to_the_room_in_order_and_a_flood_of_them_is_bounded() -> None:
    world = World()
    world.faults.delays["room.send_dtmf"] = 0.01
    call = world.session()
    carrying = await start(world, call, "start")
    world.socket.feed(*[f"digit {digit}" for digit in "0123456789*#ABCD"])
    await asyncio.sleep(1)
    assert world.room.digits == list(enumerate("0123456789*#ABCD"))
    world.socket.feed(*["digit 1"] * 1000)
    await asyncio.sleep(20)
    assert 64 <= len(world.room.digits) - 16 <= 66
    assert world.metrics.refused.labels("dtmf", "too_many")._value.get() >= 900
    world.socket.feed("stop")
    await carrying


@virtual_time
async def test_digits_pressed_while_the_call_is_put_into_the_room_are_not_lost() -> None:
    world = World()
    world.faults.delays["admin.reveal"] = 1.0
    call = world.session()
    carrying = await start(world, call, "start", "digit 7")
    await asyncio.sleep(2)
    assert world.room.digits == [(7, "7")]
    world.socket.feed("stop")
    await carrying


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_hang_up_right_after_the_start_leaves_nothing_half_done(direction: Direction) -> None:
    world = World(direction)
    world.faults.delays |= {"admin.reveal": 1.0, "room.join_visible": 1.0}
    call = world.session()
    carrying = await start(world, call, "start", "stop")
    await carrying
    assert "room.publish" not in world.faults.steps
    assert world.admin.undone == ["lobby"]
    assert not call.record.started_at
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)
