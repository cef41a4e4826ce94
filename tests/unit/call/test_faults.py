"""Each step that touches the outside fails or hangs, one at a time: the call ends all the same, once, in time."""

from __future__ import annotations

import asyncio

import pytest

from connector.errors import Unavailable
from connector.model.call import CallState, Direction
from connector.model.end_reason import EndReason
from connector.storage.base import StoreError
from tests.unit.call.fakes import World
from tests.unit.call.virtual_time import virtual_time

FAULTS: dict[str, BaseException | None] = {
    "refuses": Unavailable("gone"),
    "breaks": ZeroDivisionError("a bug"),
    "hangs": None,
}
PATIENCE = 30.0
"""Virtual seconds from the hang-up to the end; each of the steps has its own bound of 6."""


async def whole_call(world: World) -> BaseException | None:
    """From `open` to a hang-up, with a shutdown for what hangs on the way; what `open` raised."""
    call = world.session()
    opening = asyncio.create_task(call.open())
    hung = asyncio.create_task(world.faults.reached.wait())
    await asyncio.wait([opening, hung], return_when=asyncio.FIRST_COMPLETED)
    if opening.done() and opening.exception() is None:
        await call.claim()
        carrying = asyncio.create_task(call.carry(world.socket))
        world.socket.feed("connected", "start", "audio", "digit 1")
        await asyncio.sleep(1)
        call.bridge.outbox.put_mark("something to send")
        await asyncio.sleep(1)
        world.socket.feed("stop")
        async with asyncio.timeout(PATIENCE):
            await call.finished.wait()
            await carrying
    elif not opening.done():
        call.end(EndReason.SHUTDOWN)
        async with asyncio.timeout(PATIENCE):
            await call.finished.wait()
        opening.cancel()
    hung.cancel()
    error = (await asyncio.gather(opening, hung, return_exceptions=True))[0]
    assert world.finished == [call]
    await world.store_is_back()
    assert sum(world.counted().values()) == 1
    assert len(world.endings()) == 1
    assert call.state is CallState.ENDED
    assert call.record.end_reason is not None
    assert world.counted() == {call.record.end_reason.value: 1.0}
    assert world.room.left == 1
    return error


STEPS = {
    Direction.OUTBOUND: [
        "admin.ensure_room",
        "room.join_hidden",
        "store.save",
        "store.save ringing",
        "waiting.insert",
        "admin.reveal",
    ],
    Direction.INBOUND: [
        "admin.check",
        "store.save pending",
        "waiting.insert",
        "admin.ensure_room",
        "room.join_visible",
    ],
}
BOTH = [
    "room.publish",
    "store.save active",
    "room.send_dtmf",
    "socket.send",
    "room.set_attributes",
    "socket.close",
    "room.leave",
    "store.save ended",
]
CASES = [(direction, step) for direction, steps in STEPS.items() for step in steps + BOTH]


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize(("direction", "step"), CASES)
@virtual_time
async def test_the_call_ends_once_and_in_time(direction: Direction, step: str, fault: str) -> None:
    world = World(direction)
    if (step, fault) == ("socket.send", "refuses"):
        world.faults.planned[step] = ConnectionResetError()
    else:
        world.faults.planned[step] = StoreError("full") if (step[:5], fault) == ("store", "refuses") else FAULTS[fault]
    await whole_call(world)
    assert step in world.faults.steps, "the fault was never met"


@pytest.mark.parametrize("fault", FAULTS)
@virtual_time
async def test_taking_back_an_unanswered_room_may_fail_too(fault: str) -> None:
    world = World()
    world.faults.planned |= {"admin.reveal": Unavailable("gone"), "admin.undo": FAULTS[fault]}
    await whole_call(world)
    assert world.counted() == {"livekit_unavailable": 1.0}


@virtual_time
async def test_everything_hangs_at_once_and_the_call_still_ends() -> None:
    world = World()
    world.faults.planned |= dict.fromkeys(
        ["admin.reveal", "room.set_attributes", "socket.send", "socket.close", "room.leave", "store.save ended"]
    )
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start")
    await asyncio.sleep(1)
    world.socket.feed("stop")
    async with asyncio.timeout(60):
        await carrying
    await world.store_is_back()
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@pytest.mark.parametrize(
    ("step", "fault", "reason"),
    [
        ("admin.ensure_room", "refuses", EndReason.LIVEKIT_UNAVAILABLE),
        ("room.join_hidden", "refuses", EndReason.LIVEKIT_UNAVAILABLE),
        ("room.join_hidden", "breaks", EndReason.INTERNAL_ERROR),
        ("store.save ringing", "refuses", EndReason.INTERNAL_ERROR),
        ("admin.reveal", "refuses", EndReason.LIVEKIT_UNAVAILABLE),
        ("admin.reveal", "breaks", EndReason.INTERNAL_ERROR),
        ("room.publish", "refuses", EndReason.LIVEKIT_UNAVAILABLE),
        ("room.publish", "breaks", EndReason.INTERNAL_ERROR),
        ("store.save active", "refuses", EndReason.CARRIER_HANGUP),
        ("room.send_dtmf", "refuses", EndReason.CARRIER_HANGUP),
        ("room.send_dtmf", "breaks", EndReason.INTERNAL_ERROR),
        ("socket.send", "breaks", EndReason.INTERNAL_ERROR),
    ],
)
@virtual_time
async def test_the_reason_names_what_failed(step: str, fault: str, reason: EndReason) -> None:
    world = World()
    world.faults.planned[step] = StoreError("full") if (step[:5], fault) == ("store", "refuses") else FAULTS[fault]
    await whole_call(world)
    assert world.counted() == {reason.value: 1.0}


@virtual_time
async def test_a_bug_in_the_teardown_itself_lets_go_of_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    call = await world.manager.create(world.request())

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(call._recorder, "finish", broken)
    call.end(EndReason.SHUTDOWN)
    async with asyncio.timeout(PATIENCE):
        await call.finished.wait()
    assert world.manager.live() == []
    assert world.room.left == 1
    assert any(entry["log_level"] == "error" for entry in world.log.entries)


@virtual_time
async def test_slow_steps_of_opening_add_up_to_no_more_than_a_client_waits() -> None:
    world = World()
    world.faults.delays |= {"admin.ensure_room": 2.9, "room.join_hidden": 3.4, "admin.undo": 1.5}
    began = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="took longer than"):
        await world.manager.create(world.request())
    assert asyncio.get_running_loop().time() - began < 5
    # What LiveKit was too slow for is still taken back.
    async with asyncio.timeout(PATIENCE):
        await world.manager.drain(PATIENCE)
    assert world.admin.undone == ["lobby"]
    assert world.counted() == {"livekit_unavailable": 1.0}


@virtual_time
async def test_what_kept_a_call_from_opening_is_told_to_the_client() -> None:
    world = World()
    world.faults.planned["room.join_hidden"] = FAULTS["refuses"]
    assert await whole_call(world) is FAULTS["refuses"]
