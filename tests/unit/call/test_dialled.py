"""Calls that a carrier dials to LiveKit SIP: whoever notices the end, and however many at once, it is one."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from connector.call.registry.dialled import DialledCalls
from connector.carriers.transfers import TransferDial
from connector.errors import (
    ConnectorError,
    CredentialsRefused,
    FailedPrecondition,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from connector.model.call import CallRecord, CallState, CarrierCall, Direction, Transfer
from connector.model.end_reason import EndReason
from tests.unit.call.fakes import FakeControl, Faults, World
from tests.unit.call.virtual_time import virtual_time


class Control(FakeControl):
    """The carrier reports the end to us before it answers the request that asked for it."""

    def __init__(self, first: Callable[[], Awaitable[None]]) -> None:
        super().__init__(Faults())
        self._first = first

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        await self._first()
        await super().hang_up(call, say)

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        raise NotImplementedError

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        await self._first()
        return await super().transfer(call, dial, document_url)


async def active(world: World) -> tuple[DialledCalls, CallRecord]:
    calls = DialledCalls(world.parts)
    await calls.announce(world.request())
    await calls.answered("call_1")
    record = world.store.records["call_1"]
    assert record.state is CallState.ACTIVE
    return calls, record


async def test_an_end_that_the_carrier_reports_before_it_answers_ours_is_one() -> None:
    async def report() -> None:
        await DialledCalls(world.parts).ended("call_1", "completed", 5.0, "")

    world = World(Direction.INBOUND, control=Control(report))
    calls, record = await active(world)
    answer = await calls.hang_up(record)
    assert world.lifecycle.events == ["call-started", "call-answered", "call-hangup"]
    assert world.counted() == {"carrier_hangup": 1.0}
    assert answer == world.store.records["call_1"]
    assert (answer.end_reason, answer.carrier_status) == (EndReason.CARRIER_HANGUP, "completed")


async def test_the_same_of_a_transfer() -> None:
    async def report() -> None:
        await DialledCalls(world.parts).ended("call_1", "completed", 5.0, "")

    world = World(Direction.INBOUND, control=Control(report))
    calls, record = await active(world)
    answer = await calls.transfer(record, Transfer("+15551234567", 30))
    assert world.lifecycle.events == ["call-started", "call-answered", "call-hangup"]
    assert (world.counted(), answer.end_reason) == ({"carrier_hangup": 1.0}, EndReason.CARRIER_HANGUP)


async def test_a_transfer_is_told_before_its_end() -> None:
    world = World(Direction.INBOUND, control=FakeControl(Faults()))
    calls, record = await active(world)
    answer = await calls.transfer(record, Transfer("+15551234567", 30))
    assert world.lifecycle.events == ["call-started", "call-answered", "call-transferred", "call-hangup"]
    assert (world.counted(), answer.end_reason) == ({"transferred": 1.0}, EndReason.TRANSFERRED)


@pytest.mark.parametrize("times", [2, 5])
async def test_reports_that_come_again_at_once_are_one(times: int) -> None:
    world = World(Direction.INBOUND)
    calls = DialledCalls(world.parts)
    world.faults.delays["store.save"] = 0.001
    await asyncio.gather(*(calls.announce(world.request()) for _ in range(times)))
    await asyncio.gather(*(calls.answered("call_1") for _ in range(times)))
    await asyncio.gather(*(calls.ended("call_1", "completed", 1.0, "") for _ in range(times)))
    assert world.lifecycle.events == ["call-started", "call-answered", "call-hangup"]
    assert world.counted() == {"carrier_hangup": 1.0}
    assert [event for event, _ in world.store.records["call_1"].timelog] == world.lifecycle.events


async def test_an_answer_and_an_end_reported_at_once_are_told_in_order() -> None:
    world = World(Direction.INBOUND)
    calls = DialledCalls(world.parts)
    await calls.announce(world.request())
    world.faults.delays["store.save"] = 0.001
    await asyncio.gather(calls.ended("call_1", "completed", 1.0, ""), calls.answered("call_1"))
    assert world.lifecycle.events == ["call-started", "call-answered", "call-hangup"]


async def test_a_failed_dial_is_missed_once() -> None:
    world = World(Direction.INBOUND)
    calls = DialledCalls(world.parts)
    await calls.announce(world.request())
    await asyncio.gather(*(calls.ended("call_1", "busy", 0.0, "") for _ in range(3)))
    assert world.lifecycle.events == ["call-started", "call-missed"]
    assert world.counted() == {"busy": 1.0}


# Hanging up


@pytest.mark.parametrize("error", [Unavailable("503"), ResourceExhausted("429")])
@virtual_time
async def test_a_hang_up_that_fails_for_a_moment_is_tried_again_as_for_every_phone(error: ConnectorError) -> None:
    world = World(Direction.INBOUND, control=FakeControl(Faults()))
    calls, record = await active(world)
    assert world.control is not None
    world.control._faults.planned["control.hang_up"] = error
    await world.hang_ups.start()
    answer = await calls.hang_up(record)
    assert (answer.end_reason, await world.store.hang_ups.pending()) == (EndReason.ENDED_BY_API, 1)
    world.control._faults.planned.clear()
    await asyncio.sleep(60)
    assert (world.control.hung_up, await world.store.hang_ups.pending()) == ([record.carrier_call_id], 0)
    assert world.counted() == {"ended_by_api": 1.0}
    await world.hang_ups.stop()


@pytest.mark.parametrize("error", [NotFound("no such call"), CredentialsRefused("401"), FailedPrecondition("account")])
@virtual_time
async def test_what_does_not_pass_by_itself_is_an_error_and_the_call_goes_on(error: ConnectorError) -> None:
    world = World(Direction.INBOUND, control=FakeControl(Faults()))
    calls, record = await active(world)
    assert world.control is not None
    world.control._faults.planned["control.hang_up"] = error
    with pytest.raises(type(error)):
        await calls.hang_up(record)
    assert world.store.records["call_1"] == record
