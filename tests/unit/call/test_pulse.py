"""A media socket that says nothing: held, dead, or behind a proxy that swallows pings."""

from __future__ import annotations

import asyncio

import pytest

from connector.call.media.liveness import DEAD_AFTER, PING_EVERY
from connector.call.session.call_session import CallSession
from connector.model.call import Direction
from connector.model.end_reason import EndReason
from tests.unit.call.fakes import LIMITS, World
from tests.unit.call.virtual_time import virtual_time


async def streaming(world: World, answers_pings: bool) -> tuple[CallSession, asyncio.Task[None]]:
    world.socket.answers_pings = answers_pings
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start", "audio")
    await asyncio.wait_for(call.settled.wait(), 5)
    return call, carrying


async def lasted(carrying: asyncio.Task[None]) -> float:
    began = asyncio.get_running_loop().time()
    await carrying
    return asyncio.get_running_loop().time() - began


@pytest.mark.parametrize("hold", [40, 3000])
@virtual_time
async def test_a_held_phone_that_sends_no_media_and_answers_pings_is_alive(hold: float) -> None:
    world = World(Direction.INBOUND)
    call, carrying = await streaming(world, answers_pings=True)
    await asyncio.sleep(hold)
    assert not call.finished.is_set()
    world.socket.feed("audio", "stop")
    await carrying
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_peer_that_answers_no_ping_any_more_is_dead_after_ten_seconds() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await streaming(world, answers_pings=True)
    await asyncio.sleep(60)
    world.socket.answers_pings = False
    assert await lasted(carrying) <= DEAD_AFTER + PING_EVERY
    world.assert_ended_once(call, EndReason.CARRIER_LOST)


@virtual_time
async def test_a_peer_that_dies_in_the_middle_of_its_media_is_found_too() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await streaming(world, answers_pings=True)
    for _ in range(100):
        world.socket.feed("audio")
        await asyncio.sleep(0.02)
    world.socket.answers_pings = False
    assert await lasted(carrying) == pytest.approx(DEAD_AFTER, abs=0.1)
    world.assert_ended_once(call, EndReason.CARRIER_LOST)


@virtual_time
async def test_where_pings_are_swallowed_any_message_is_life_and_silence_ends_the_call() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await streaming(world, answers_pings=False)
    for _ in range(10):
        await asyncio.sleep(LIMITS.media_timeout - 1)
        world.socket.feed("mark x")
    await asyncio.sleep(0)
    assert not call.finished.is_set()
    assert await lasted(carrying) == pytest.approx(LIMITS.media_timeout, abs=0.1)
    world.assert_ended_once(call, EndReason.MEDIA_TIMEOUT)


@virtual_time
async def test_messages_without_a_pong_are_life_also_of_a_peer_that_has_answered() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await streaming(world, answers_pings=True)
    world.socket.answers_pings = False
    for _ in range(20):
        await asyncio.sleep(DEAD_AFTER - 1)
        world.socket.feed("audio")
    await asyncio.sleep(0)
    assert not call.finished.is_set()
    world.socket.feed("stop")
    await carrying


@virtual_time
async def test_a_socket_that_never_starts_a_stream_does_not_live_by_its_pongs() -> None:
    world = World(Direction.INBOUND)
    world.socket.answers_pings = True
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    assert await lasted(carrying) == pytest.approx(LIMITS.media_timeout, abs=0.1)
    world.assert_ended_once(call, EndReason.MEDIA_TIMEOUT)


@virtual_time
async def test_while_media_come_nobody_is_pinged() -> None:
    world = World(Direction.INBOUND)
    _, carrying = await streaming(world, answers_pings=True)
    for _ in range(3000):
        world.socket.feed("audio")
        await asyncio.sleep(0.02)
    assert world.socket.pings == 1
    world.socket.feed("stop")
    await carrying


@pytest.mark.parametrize("fault", [None, ConnectionResetError("gone")])
@virtual_time
async def test_a_ping_that_cannot_be_sent_is_no_end_of_its_own(fault: BaseException | None) -> None:
    world = World(Direction.INBOUND)
    world.faults.planned["socket.ping"] = fault
    call, carrying = await streaming(world, answers_pings=True)
    await asyncio.sleep(LIMITS.media_timeout - 1)
    assert not call.finished.is_set()
    await carrying
    world.assert_ended_once(call, EndReason.MEDIA_TIMEOUT)


@virtual_time
async def test_a_process_that_stood_still_first_reads_what_has_come_meanwhile() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await streaming(world, answers_pings=True)
    await asyncio.sleep(2 * PING_EVERY)
    loop = asyncio.get_running_loop()
    loop._virtual.now += 60  # type: ignore[attr-defined]
    await asyncio.sleep(1)
    assert not call.finished.is_set()
    world.socket.feed("audio", "stop")
    await carrying
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)
