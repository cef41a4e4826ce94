"""At a carrier that holds the phone when its stream is gone, or never came: somebody must hang it up, and who."""

from __future__ import annotations

import asyncio

import pytest

from connector.call.session import CallSession
from connector.model import CarrierCall, Direction, EndReason
from tests.unit.call.fakes import CARRIER_CALL, FakeControl, Faults, World
from tests.unit.call.virtual_time import virtual_time

STREAMED = CarrierCall(CARRIER_CALL, "AC1", CARRIER_CALL)


class Control(FakeControl):
    def __init__(self, faults: Faults, ends_with_stream: bool) -> None:
        super().__init__(faults)
        self.ends_with_stream = ends_with_stream
        self.asked: list[CarrierCall] = []

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        await super().hang_up(call, say)
        self.asked.append(call)


def holding(direction: Direction = Direction.INBOUND, ends_with_stream: bool = False) -> tuple[World, Control]:
    faults = Faults()
    control = Control(faults, ends_with_stream)
    return World(direction, faults=faults, control=control), control


async def streaming(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await asyncio.wait_for(call.settled.wait(), 5)
    return call, carrying


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize(
    "reason", [EndReason.ROOM_DELETED, EndReason.PARTICIPANT_REMOVED, EndReason.MAX_DURATION, EndReason.ENDED_BY_API]
)
@virtual_time
async def test_whoever_ends_the_call_the_phone_is_hung_up_by_all_its_names(
    direction: Direction, reason: EndReason
) -> None:
    world, control = holding(direction)
    call, carrying = await streaming(world)
    call.end(reason)
    await carrying
    assert control.asked == [STREAMED]
    world.assert_ended_once(call, reason)


@virtual_time
async def test_a_stream_that_breaks_does_not_leave_the_phone_behind() -> None:
    world, control = holding()
    call, carrying = await streaming(world)
    world.socket.hang_up(cleanly=False)
    await carrying
    assert control.asked == [STREAMED]
    world.assert_ended_once(call, EndReason.CARRIER_LOST)


@virtual_time
async def test_who_has_hung_up_is_not_hung_up() -> None:
    world, control = holding()
    call, carrying = await streaming(world)
    world.socket.feed("stop")
    await carrying
    assert control.asked == []
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_room_that_cannot_be_joined_leaves_nobody_on_the_line() -> None:
    world, control = holding()
    world.faults.planned["room.publish"] = ZeroDivisionError("a bug")
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start")
    await carrying
    assert control.asked == [STREAMED]


@virtual_time
async def test_a_stream_that_never_comes_leaves_nobody_on_the_line() -> None:
    world, control = holding()
    call = world.session()
    await call.open()
    await call.fetched("CA7", "", "")
    await call.finished.wait()
    assert control.asked == [CarrierCall("CA7")]
    world.assert_ended_once(call, EndReason.CONNECT_TIMEOUT)


@virtual_time
async def test_a_call_of_which_the_carrier_has_said_nothing_cannot_be_hung_up() -> None:
    world, control = holding()
    call = world.session()
    await call.open()
    await call.finished.wait()
    assert control.asked == []


@pytest.mark.parametrize("reason", [EndReason.ROOM_DELETED, EndReason.MAX_DURATION])
@virtual_time
async def test_where_the_end_of_the_stream_ends_the_call_nothing_is_asked(reason: EndReason) -> None:
    world, control = holding(ends_with_stream=True)
    call, carrying = await streaming(world)
    call.end(reason)
    await carrying
    assert control.asked == []


@virtual_time
async def test_a_stream_that_outlives_a_transfer_is_closed_at_once_and_the_phone_is_left_alone() -> None:
    world, control = holding()
    control.stream_outlives_transfer = True
    call, carrying = await streaming(world)
    began = asyncio.get_running_loop().time()
    await call.transfer("+15550009999")
    await carrying
    assert asyncio.get_running_loop().time() - began < 1
    assert (control.transferred, control.asked) == ([(CARRIER_CALL, "+15550009999")], [])
    world.assert_ended_once(call, EndReason.TRANSFERRED)


@pytest.mark.parametrize("ends_with_stream", [False, True])
@virtual_time
async def test_a_sentence_is_given_to_the_carrier_with_the_hang_up_before_the_socket_closes(
    ends_with_stream: bool,
) -> None:
    world, control = holding(ends_with_stream=ends_with_stream)
    call, carrying = await streaming(world)
    call.end(EndReason.MAX_DURATION, say="Goodbye.")
    await carrying
    assert (control.asked, control.said) == ([STREAMED], ["Goodbye."])
    world.assert_ended_once(call, EndReason.MAX_DURATION)


@virtual_time
async def test_who_has_hung_up_is_told_nothing() -> None:
    world, control = holding()
    call, carrying = await streaming(world)
    call.end(EndReason.CARRIER_HANGUP, say="Goodbye.")
    await carrying
    assert (control.asked, control.said) == ([], [])


@virtual_time
async def test_without_credentials_the_stream_is_closed_and_the_missing_setting_named() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await streaming(world)
    call.end(EndReason.MAX_DURATION, say="Goodbye.")
    await carrying
    (warning,) = [entry for entry in world.log.entries if entry["log_level"] == "warning"]
    assert warning["set"] == "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
    world.assert_ended_once(call, EndReason.MAX_DURATION)
