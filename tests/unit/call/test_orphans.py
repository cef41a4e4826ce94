"""The phones of calls whose process died: a carrier that holds them without a stream would do so for ever."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

import pytest

from connector.call.dependencies import CallDependencies
from connector.call.registry.hang_ups import HangUps
from connector.call.registry.lease import OwnerLease
from connector.carriers.transfers import TransferDial
from connector.errors import Unavailable
from connector.model.call import CallRecord, CallState, CarrierCall, Direction
from connector.model.provider import Provider
from connector.storage.base import StoreError
from tests.carriers import CARRIERS
from tests.unit.call.fakes import Faults, World
from tests.unit.call.virtual_time import virtual_time

RECORD = CallRecord(
    "call_1", Provider.TELNYX, Direction.INBOUND, "room", "caller", CallState.ACTIVE, "here", 1.0, "v3:1"
)


@dataclass
class Control:
    ends_with_stream: bool = False
    stream_outlives_transfer: bool = False
    fails_for: str = ""
    asked: list[str] = field(default_factory=list)

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        self.asked.append(call.id)
        if call.id == self.fails_for:
            self.fails_for = ""
            raise Unavailable("no answer")

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        raise NotImplementedError

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        raise AssertionError

    async def is_live(self, call: CarrierCall) -> bool:
        raise AssertionError


def started(control: Control, *records: CallRecord) -> tuple[World, CallDependencies, HangUps]:
    """A process of the same name as the one that held these calls and died."""
    world = World(Direction.INBOUND, faults=Faults(), owner="here")
    world.store.records = {record.call_id: record for record in records}
    controls = {Provider.TELNYX: control}
    clock = asyncio.get_running_loop().time
    hang_ups = HangUps(world.store.hang_ups, CARRIERS, controls, world.metrics, clock, lambda: 0.0)
    return world, replace(world.parts, control=controls, hang_ups=hang_ups), hang_ups


async def hang_up(control: Control, *records: CallRecord) -> list[str]:
    _, parts, hang_ups = started(control, *records)
    assert len(await OwnerLease(parts, bool).take_up()) == len(records)
    await hang_ups.start()
    await asyncio.sleep(5)
    await hang_ups.stop()
    return control.asked


@virtual_time
async def test_a_held_phone_is_hung_up() -> None:
    assert await hang_up(Control(), RECORD) == ["v3:1"]


@virtual_time
async def test_a_phone_that_ended_with_its_stream_is_left_alone() -> None:
    assert await hang_up(Control(ends_with_stream=True), RECORD) == []


@pytest.mark.parametrize("record", [replace(RECORD, carrier_call_id=""), replace(RECORD, provider=Provider.PLIVO)])
@virtual_time
async def test_a_phone_that_cannot_be_named_is_left_alone(record: CallRecord) -> None:
    assert await hang_up(Control(), record) == []


@virtual_time
async def test_one_that_cannot_be_hung_up_keeps_none_of_the_others_waiting_and_is_tried_again() -> None:
    other = replace(RECORD, call_id="call_2", carrier_call_id="v3:2")
    assert await hang_up(Control(fails_for="v3:1"), RECORD, other) == ["v3:1", "v3:2", "v3:1"]


@virtual_time
async def test_a_process_that_dies_before_the_record_is_ended_leaves_the_hang_up_in_the_store() -> None:
    world, parts, _ = started(Control(), RECORD)
    world.faults.planned["store.save"] = StoreError("killed here")
    with pytest.raises(StoreError):
        await OwnerLease(parts, bool).take_up()
    assert list(world.store.hang_ups.kept) == ["call_1"]
    assert world.store.records["call_1"].end_reason is None
