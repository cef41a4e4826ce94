"""A second phone with the identity of one that is in the room: it gets a suffix, and the first stays."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from connector.call.registry.manager import MAX_IDENTITY, suffixed
from connector.call.session.call_session import CallSession
from connector.model.call import CallRequest, CallState, Direction, ParticipantSpec
from connector.model.end_reason import EndReason
from tests.unit.call.fakes import Faults, World
from tests.unit.call.virtual_time import virtual_time


def asked(world: World, number: int, identity: str = "caller", room: str = "lobby") -> CallRequest:
    request = replace(world.request(f"call_{number}"), room=room)
    return replace(request, participant=ParticipantSpec(identity))


async def settle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


async def over(*worlds: World) -> None:
    for world in worlds:
        for call in world.manager.live():
            call.end(EndReason.ENDED_BY_API)
            await call.finished.wait()


@pytest.mark.parametrize("is_active", [True, False])
@pytest.mark.parametrize("second", Direction)
@pytest.mark.parametrize("elsewhere", [True, False])
@virtual_time
async def test_a_phone_that_is_there_is_not_put_out(is_active: bool, second: Direction, elsewhere: bool) -> None:
    world = World(Direction.INBOUND)
    call = await world.manager.create(asked(world, 1))
    if is_active:
        await call.claim()
        carrying = asyncio.create_task(call.carry(world.socket))
        world.socket.feed("connected", "start")
        await settle()
        assert call.state is CallState.ACTIVE
    other = World(second, store=world.store, faults=Faults(), owner="neighbour") if elsewhere else world
    request = replace(asked(other, 2), direction=second)
    newcomer = await other.manager.create(request)
    assert newcomer.request.participant.identity == "caller-2"
    assert newcomer.record.identity == "caller-2"
    assert any("suffix" in str(entry["event"]) for entry in other.log.entries)
    # In another room there is room for one more.
    assert (await other.manager.create(asked(other, 3, room="hall"))).request.participant.identity == "caller"
    await over(world, other)
    if is_active:
        await carrying


@virtual_time
async def test_those_who_ask_at_once_get_one_each() -> None:
    world = World()
    other = World(store=world.store, faults=Faults(), owner="neighbour")

    async def ask(number: int) -> CallSession:
        there = (world, other)[number % 2]
        return await there.manager.create(asked(there, number))

    calls = await asyncio.gather(*(ask(number) for number in range(1, 7)))
    names = sorted(call.request.participant.identity for call in calls)
    assert names == ["caller", "caller-2", "caller-3", "caller-4", "caller-5", "caller-6"]
    # Nobody joined under a name that was not theirs.
    joins = [step for each in (world, other) for step in each.faults.steps if step == "room.join_hidden"]
    assert len(joins) == 6
    await over(world, other)


@virtual_time
async def test_the_identity_is_free_again_when_the_phone_has_gone() -> None:
    world = World()
    for number in (1, 2):
        call = await world.manager.create(asked(world, number))
        assert call.request.participant.identity == "caller"
        await over(world)


@pytest.mark.parametrize("identity", ["caller", "x" * MAX_IDENTITY, "é" * (MAX_IDENTITY // 2)])
def test_a_suffix_never_makes_an_identity_too_long(identity: str) -> None:
    names = [name for name, _ in zip(suffixed(identity), range(20), strict=False)]
    assert names[0] == identity
    assert len(set(names)) == 20
    assert all(len(name.encode()) <= MAX_IDENTITY for name in names)
