"""What a request may ask for beside the call: a number that nobody sees, no digits, parameters as attributes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from types import MappingProxyType

import pytest

from connector.call.record.privacy import Privacy
from connector.call.session.call_session import CallSession
from connector.carriers.events import Encoding, Event, StreamStarted
from connector.errors import FailedPrecondition
from connector.model.call import CallRequest, Direction, ParticipantSpec
from tests.unit.call.fakes import FakeCodec, World
from tests.unit.call.virtual_time import virtual_time

PHONE, OURS = "+15551234567", "+15557654321"


class Codec(FakeCodec):
    """`start` tells numbers and parameters, and both are among its attributes, as with Telnyx."""

    parameters = MappingProxyType(
        {
            "caller": PHONE,
            "plain": "5551234567",
            "other": "+4930123456",
            "X-Order": "42",
            "x-city": "Berlin",
            "evil": "hangup",
        }
    )

    def receive(self, text: str) -> Event:
        if text == "start":
            numbers = (PHONE, OURS) if self.inbound else (OURS, PHONE)
            return StreamStarted("CA1", "MZ1", "AC1", Encoding.MULAW, 8000, self.parameters, *numbers)
        return super().receive(text)

    def __init__(self, inbound: bool) -> None:
        self.inbound = inbound


def world_of(direction: Direction) -> World:
    world = World(direction)
    world.parts = replace(world.parts, new_codec=lambda _: Codec(direction is Direction.INBOUND))
    return world


def request_of(world: World, **flags: object) -> CallRequest:
    inbound = world.direction is Direction.INBOUND
    request = replace(
        world.request(),
        from_number=PHONE if inbound else OURS,
        to_number=OURS if inbound else PHONE,
        participant=ParticipantSpec("caller", attributes={"theirs": "kept", "told": f"tel:{PHONE}"}),
        rule_id="rule_1",
        connector_id="cn_1",
        region="eu",
    )
    return replace(request, **flags)  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def talk(world: World, request: CallRequest) -> tuple[CallSession, asyncio.Task[None]]:
    call = CallSession(request, world.parts, world.finished.append)
    await call.open()
    await call.fetched("CA1", request.from_number, request.to_number)
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await settle()
    return call, carrying


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_hidden_number_is_nowhere(direction: Direction) -> None:
    world = world_of(direction)
    waiting: list[str] = []
    insert = world.store.waiting.insert

    async def watched(entry):  # type: ignore[no-untyped-def]
        waiting.append(repr(entry))
        await insert(entry)

    world.store.waiting.insert = watched  # type: ignore[method-assign]
    call, carrying = await talk(world, request_of(world, hide_number=True))
    await call.switch_room("cellar")
    world.room.listener.room_attributes({"x": "y"})
    world.socket.feed("stop")
    await carrying
    everything = [
        *waiting,
        repr(world.store.records),
        repr(world.lifecycle.told),
        *(repr(room.attributes) for room in world.rooms),
        *(repr(entry) for entry in world.log.entries),
        repr(call.request),
    ]
    assert [text for text in everything if "5551234567" in text] == []
    assert [text for text in everything if "4930123456" in text] == []
    # The service's own number is no secret, and what holds no number stays.
    attributes = world.rooms[0].attributes if direction is Direction.INBOUND else world.admin.revealed
    assert attributes["phone.to" if direction is Direction.INBOUND else "phone.from"] == OURS
    assert "phone.number" not in attributes
    assert attributes["theirs"] == "kept"
    assert attributes["fake.X-Order"] == "42"


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_number_that_is_not_hidden_is_told(direction: Direction) -> None:
    world = world_of(direction)
    call, carrying = await talk(world, request_of(world))
    assert {call.record.from_number, call.record.to_number} == {PHONE, OURS}
    attributes = world.rooms[0].attributes if direction is Direction.INBOUND else world.admin.revealed
    assert attributes["fake.caller"] == PHONE
    assert attributes["told"] == f"tel:{PHONE}"
    assert {attributes["phone.from"], attributes["phone.to"]} == {PHONE, OURS}
    assert attributes["phone.number"] == PHONE
    assert not [name for name in attributes if name.startswith("sip.")]
    world.socket.feed("stop")
    await carrying


@virtual_time
async def test_what_the_request_knows_is_in_the_record_from_the_beginning() -> None:
    world = world_of(Direction.INBOUND)
    call = CallSession(request_of(world, carrier_call_id="CA1"), world.parts, world.finished.append)
    await call.open()
    record = world.store.records["call_1"]
    assert (record.from_number, record.to_number, record.carrier_call_id) == (PHONE, OURS, "CA1")
    assert (record.rule_id, record.connector_id, record.region) == ("rule_1", "cn_1", "eu")
    (entry,) = world.store.waiting.entries.values()
    assert (entry.from_number, entry.carrier_call_id, entry.owner) == (PHONE, "CA1", "test")
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await settle()
    world.socket.feed("stop")
    await carrying


@virtual_time
async def test_parameters_become_attributes_under_the_names_that_were_asked_for() -> None:
    world = world_of(Direction.INBOUND)
    wanted = {
        "x-order": "order",
        "X-City": "city",
        "X-Absent": "absent",
        "evil": "connector.callStatus",
        "plain": "phone.from",
    }
    _, carrying = await talk(world, request_of(world, headers_to_attributes=wanted))
    attributes = dict(world.room.attributes)
    assert (attributes["order"], attributes["city"]) == ("42", "Berlin")
    assert "absent" not in attributes
    assert attributes["connector.callStatus"] == "active"
    assert attributes["phone.from"] == PHONE
    world.socket.feed("stop")
    await carrying


@virtual_time
async def test_without_dtmf_no_digit_passes_in_either_direction() -> None:
    world = world_of(Direction.INBOUND)
    call, carrying = await talk(world, request_of(world, dtmf=False))
    world.socket.feed("digit 5", "audio")
    world.room.listener.room_dtmf("7")
    await settle()
    assert world.room.digits == []
    assert call.bridge.outbox.tones == 0
    with pytest.raises(FailedPrecondition, match="turned off"):
        call.send_dtmf("1")
    assert world.metrics.refused.labels("dtmf", "off")._value.get() == 2
    assert not any(message.startswith("audio") for message in world.socket.sent)
    world.socket.feed("stop")
    await carrying


@pytest.mark.parametrize(
    ("value", "is_kept"),
    [
        ("+1 (555) 123-4567", False),
        ("sip:15551234567@x", False),
        ("(0555) 1234567", False),
        ("5551234", True),
        ("CA5551", True),
        ("", True),
    ],
)
def test_a_hidden_number_is_found_however_it_is_written(value: str, is_kept: bool) -> None:
    privacy = Privacy(request_of(World(Direction.INBOUND), hide_number=True))
    assert (privacy.own({"a": value}) == {"a": value}) is is_kept
