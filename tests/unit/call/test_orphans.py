"""The phones of calls whose process died: a carrier that holds them without a stream would do so for ever."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import pytest

from connector.call.orphans import hang_up_held
from connector.errors import Unavailable
from connector.model import CallRecord, CallState, CarrierCall, Direction, Provider
from tests.unit.call.fakes import Faults, World

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
            raise Unavailable("no answer")

    async def transfer(self, call: CarrierCall, to: str) -> None:
        raise AssertionError


async def hang_up(control: Control, *records: CallRecord) -> list[str]:
    parts = replace(World(Direction.INBOUND, faults=Faults()).parts, control={Provider.TELNYX: control})
    await hang_up_held(parts, records)
    return control.asked


async def test_a_held_phone_is_hung_up() -> None:
    assert await hang_up(Control(), RECORD) == ["v3:1"]


async def test_a_phone_that_ended_with_its_stream_is_left_alone() -> None:
    assert await hang_up(Control(ends_with_stream=True), RECORD) == []


@pytest.mark.parametrize("record", [replace(RECORD, carrier_call_id=""), replace(RECORD, provider=Provider.PLIVO)])
async def test_a_phone_that_cannot_be_named_is_left_alone(record: CallRecord) -> None:
    assert await hang_up(Control(), record) == []


async def test_one_that_cannot_be_hung_up_keeps_none_of_the_others_waiting() -> None:
    assert await hang_up(Control(fails_for="v3:1"), RECORD, replace(RECORD, carrier_call_id="v3:2")) == ["v3:1", "v3:2"]
