"""A lost stream comes back, to its process or to another one. On virtual time; the wall clock follows it."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from connector.call.registry.manager import CallManager
from connector.call.registry.owners import LEASE_LAPSE
from connector.call.registry.resume import LONGEST_WAIT
from connector.call.session.call_session import CallSession
from connector.call.session.presence import REPLACED_WAIT
from connector.call.session.returns import MOST_RETURNS, ResumeVerdict
from connector.errors import CarrierCallOver, FailedPrecondition, NotFound, TokenInvalid, TokenUsed, Unavailable
from connector.model.call import (
    NO_EXPIRY,
    AgentDispatch,
    AgentWatch,
    CallRecord,
    CallState,
    Direction,
    Transfer,
    WaitingCall,
)
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.webhook import LifecycleEvent
from connector.peers.commands import CallCommand
from connector.room.listener import Departure, Kind, Occupant
from connector.storage.base import StoreError
from tests.carriers import CARRIERS
from tests.unit.call.fakes import LIMITS, FakeControl, FakeSocket, Faults, World
from tests.unit.call.freezing import freeze
from tests.unit.call.virtual_time import virtual_time

GRACE = 5.0
RESUMING = replace(LIMITS, resume_grace=GRACE)
START = 1_800_000_000.0


@pytest.fixture(autouse=True)
def _wall_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    def now() -> float:
        try:
            return START + asyncio.get_running_loop().time()
        except RuntimeError:
            return START

    monkeypatch.setattr(time, "time", now)


@pytest.fixture
def reopening(monkeypatch: pytest.MonkeyPatch) -> None:
    """The carrier opens the URL of a lost stream again by itself."""
    monkeypatch.setattr(type(CARRIERS[Provider.TWILIO]), "reopens_streams", True)


async def settle() -> None:
    for _ in range(60):
        await asyncio.sleep(0)


def world_on(direction: Direction = Direction.INBOUND, **options: object) -> World:
    return World(direction, limits=RESUMING, **options)  # type: ignore[arg-type]


def two(direction: Direction = Direction.INBOUND) -> tuple[World, World]:
    maker = world_on(direction, owner="maker")
    return maker, world_on(direction, owner="taker", store=maker.store)


async def talking(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    call = await world.manager.create(world.request())
    await world.manager.claim(call.call_id, 1)
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await settle()
    assert call.state is CallState.ACTIVE
    return call, carrying


async def streams_again(world: World, call_id: str, stream: int) -> tuple[CallSession, FakeSocket, asyncio.Task[None]]:
    call = await world.manager.claim(call_id, stream)
    socket = FakeSocket(world.faults)
    carrying = asyncio.create_task(call.carry(socket))
    socket.feed("connected", "start")
    await settle()
    return call, socket, carrying


async def ends(call: CallSession, socket: FakeSocket, carrying: asyncio.Task[None]) -> None:
    socket.feed("stop")
    await carrying
    await call.finished.wait()


def events(world: World) -> list[tuple[str, str]]:
    return [(event.value, details.get("status", "")) for event, _, details in world.lifecycle.told]


async def looks(*worlds: World, seconds: float = 1.0) -> None:
    """The living processes renew their leases and look for dead ones, for so long."""
    for _ in range(round(seconds)):
        for world in worlds:
            await world.store.renew_lease(world.owner, time.time())
            await world.manager.resumes.look()
        await asyncio.sleep(1.0)
        await settle()


# In one process


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_broken_stream_comes_back_to_the_same_participant(direction: Direction) -> None:
    world = world_on(direction)
    call, carrying = await talking(world)
    (entry,) = world.store.waiting.entries.values()
    assert (entry.served, entry.stream, entry.expires_at, entry.room_sid) == (True, 2, NO_EXPIRY, "RM1")
    world.socket.hang_up(cleanly=False)
    await carrying
    await settle()
    assert not call.is_ending
    assert world.room.attributes["connector.callStatus"] == "reconnecting"
    (entry,) = world.store.waiting.entries.values()
    assert (entry.served, entry.stream, entry.expires_at) == (False, 2, START + GRACE)
    await asyncio.sleep(0.4)
    answer = await world.manager.resume(call.call_id, 1, carrier_let_go=True)
    assert (answer.verdict, answer.stream, answer.deadline) == (ResumeVerdict.STREAM, 2, START + GRACE)
    assert answer == await world.manager.resume(call.call_id, 1, carrier_let_go=True)
    again, socket, returned = await streams_again(world, call.call_id, 2)
    assert again is call
    assert len(world.rooms) == 1
    assert world.room.attributes["connector.callStatus"] == "active"
    socket.feed("audio")
    await settle()
    assert call.bridge.heard_frames == 1
    (entry,) = world.store.waiting.entries.values()
    assert (entry.served, entry.stream) == (True, 3)
    updates = [one for one in events(world) if one[0] == "call-update"]
    assert updates == [("call-update", "reconnecting"), ("call-update", "resumed")]
    assert world.lifecycle.told[-1][2] == {"change": "stream", "status": "resumed", "gap_ms": "400"}
    await ends(call, socket, returned)
    assert world.counted() == {"carrier_hangup": 1.0}
    assert world.lifecycle.events.count("call-answered") == world.lifecycle.events.count("call-hangup") == 1
    assert world.store.waiting.entries == {}


@virtual_time
async def test_the_gap_begins_with_the_last_message_of_the_lost_stream() -> None:
    world = world_on()
    call, carrying = await talking(world)
    await asyncio.sleep(1.5)
    world.socket.feed("audio")
    await asyncio.sleep(0.7)
    world.socket.hang_up(cleanly=False)
    await carrying
    await asyncio.sleep(0.3)
    again, socket, returned = await streams_again(world, call.call_id, 2)
    assert world.lifecycle.told[-1][2]["gap_ms"] == "1000"
    (family,) = world.metrics.return_gap.collect()
    assert [sample.value for sample in family.samples if sample.name.endswith("_sum")] == [pytest.approx(1.0)]
    await ends(again, socket, returned)


@pytest.mark.parametrize(("cleanly", "code"), [(False, None), (True, 1001), (True, 1011), (True, 1012)])
@virtual_time
async def test_a_stream_that_does_not_come_back_ends_the_call_after_the_grace(cleanly: bool, code: int | None) -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.socket.hang_up(cleanly=cleanly, close_code=code)
    await carrying
    await asyncio.sleep(GRACE - 0.1)
    assert not call.is_ending
    await call.finished.wait()
    reason = EndReason.CARRIER_CLOSED if cleanly else EndReason.CARRIER_LOST
    assert call.record.end_reason is reason
    assert world.counted() == {reason.value: 1.0}
    assert world.store.waiting.entries == {}
    answer = await world.manager.resume(call.call_id, 1, carrier_let_go=True)
    assert answer.verdict is ResumeVerdict.OVER


@pytest.mark.parametrize(("how", "reason"), [("stop", "carrier_hangup"), ("close", "carrier_closed")])
@virtual_time
async def test_a_finished_stream_ends_the_call_at_once(how: str, reason: str) -> None:
    world = world_on()
    call, carrying = await talking(world)
    if how == "stop":
        world.socket.feed("stop")
    else:
        world.socket.hang_up(cleanly=True, close_code=1000)
    await carrying
    assert world.counted() == {reason: 1.0}
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=True)).verdict is ResumeVerdict.OVER


@virtual_time
async def test_without_grace_everything_is_as_before() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await talking(world)
    assert world.store.waiting.entries == {}
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=False)).verdict is ResumeVerdict.LIVES
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=True)).verdict is ResumeVerdict.OVER
    world.socket.hang_up(cleanly=False)
    await carrying
    assert world.counted() == {"carrier_lost": 1.0}


@virtual_time
async def test_the_carrier_reports_the_hang_up_while_the_stream_is_lost() -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.socket.hang_up(cleanly=False)
    await carrying
    await world.manager.carrier_said(call.call_id, "completed", 9)
    await call.finished.wait()
    assert world.counted() == {"carrier_hangup": 1.0}


@virtual_time
async def test_the_carriers_visit_proves_that_a_stream_is_over() -> None:
    world = world_on()
    call, carrying = await talking(world)
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=False)).verdict is ResumeVerdict.LIVES
    assert not call.returns.is_open
    answer = await world.manager.resume(call.call_id, 1, carrier_let_go=True)
    assert (answer.verdict, answer.stream) == (ResumeVerdict.STREAM, 2)
    await carrying
    assert world.socket.closed_with
    # Once lost, a poll gets the same answer.
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=False)).stream == 2
    _, socket, returned = await streams_again(world, call.call_id, 2)
    assert (await world.manager.resume(call.call_id, 2, carrier_let_go=False)).verdict is ResumeVerdict.LIVES
    # A late repetition of the first request gets the same answer; much later it is stale.
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=True)).stream == 2
    assert not call.returns.is_open
    await asyncio.sleep(11)
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=True)).verdict is ResumeVerdict.OVER
    assert not call.returns.is_open
    await ends(call, socket, returned)


@virtual_time
async def test_the_fourth_loss_within_a_minute_ends_the_call() -> None:
    world = world_on()
    call, carrying = await talking(world)
    socket = world.socket
    for stream in range(1, MOST_RETURNS + 1):
        socket.hang_up(cleanly=False)
        await carrying
        answer = await world.manager.resume(call.call_id, stream, carrier_let_go=True)
        assert answer.stream == stream + 1
        _, socket, carrying = await streams_again(world, call.call_id, stream + 1)
    socket.hang_up(cleanly=False)
    await carrying
    await call.finished.wait()
    assert world.counted() == {"interrupted": 1.0}
    answer = await world.manager.resume(call.call_id, MOST_RETURNS + 1, carrier_let_go=True)
    assert answer.verdict is ResumeVerdict.OVER


@virtual_time
async def test_losses_far_apart_do_not_end_the_call() -> None:
    world = world_on()
    call, carrying = await talking(world)
    socket = world.socket
    for stream in range(1, 8):
        await asyncio.sleep(21)
        socket.hang_up(cleanly=False)
        await carrying
        _, socket, carrying = await streams_again(world, call.call_id, stream + 1)
    assert not call.is_ending
    await ends(call, socket, carrying)


@virtual_time
async def test_a_stream_whose_socket_never_comes_about_is_answered_a_few_times() -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.socket.hang_up(cleanly=False)
    await carrying
    await world.manager.resume(call.call_id, 1, carrier_let_go=True)
    for _ in range(2):
        assert (await world.manager.resume(call.call_id, 2, carrier_let_go=True)).stream == 2
    assert (await world.manager.resume(call.call_id, 2, carrier_let_go=True)).verdict is ResumeVerdict.OVER
    await call.finished.wait()
    assert world.counted() == {"interrupted": 1.0}


@virtual_time
async def test_a_returned_stream_that_breaks_before_it_is_active_is_followed_by_the_next_one() -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.socket.hang_up(cleanly=False)
    await carrying
    await world.manager.claim(call.call_id, 2)
    socket = FakeSocket(world.faults)
    second = asyncio.create_task(call.carry(socket))
    await settle()
    socket.hang_up(cleanly=False)
    await second
    answer = await world.manager.resume(call.call_id, 2, carrier_let_go=True)
    assert answer.stream == 3
    _, socket, third = await streams_again(world, call.call_id, 3)
    assert not call.returns.is_open
    (entry,) = world.store.waiting.entries.values()
    assert (entry.served, entry.stream) == (True, 4)
    await ends(call, socket, third)


@virtual_time
async def test_a_failed_handshake_of_the_return_does_not_end_the_call() -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.socket.hang_up(cleanly=False)
    await carrying
    await world.manager.claim(call.call_id, 2)
    call.returns.lose(EndReason.CARRIER_LOST, "the handshake failed")
    _, socket, third = await streams_again(world, call.call_id, 3)
    await ends(call, socket, third)


@virtual_time
async def test_what_the_api_asks_meanwhile_is_refused_for_a_moment() -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.socket.hang_up(cleanly=False)
    await carrying
    with pytest.raises(Unavailable, match="media stream"):
        call.send_dtmf("1")
    with pytest.raises(Unavailable, match="media stream"):
        await call.transfer(Transfer("+15550001111", 30))
    call.end(EndReason.ENDED_BY_API)
    await call.finished.wait()
    assert world.counted() == {"ended_by_api": 1.0}


@pytest.mark.parametrize("reason", [EndReason.ROOM_DELETED, EndReason.PARTICIPANT_REMOVED])
@virtual_time
async def test_an_end_of_the_room_meanwhile_ends_the_call(reason: EndReason) -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.socket.hang_up(cleanly=False)
    await carrying
    world.room.goes(reason)
    await call.finished.wait()
    assert world.counted() == {reason.value: 1.0}
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=True)).verdict is ResumeVerdict.OVER


# A second socket with the same token


@virtual_time
async def test_a_second_socket_never_ends_the_first_that_lives() -> None:
    world = world_on()
    call, carrying = await talking(world)

    async def speak() -> None:
        while True:
            world.socket.feed("audio")
            await asyncio.sleep(0.02)

    speaking = asyncio.create_task(speak())
    with pytest.raises(TokenUsed):
        await world.manager.claim(call.call_id, 1)
    assert not call.returns.is_open
    speaking.cancel()
    await ends(call, world.socket, carrying)


@virtual_time
async def test_a_carrier_that_does_not_reopen_streams_keeps_the_silent_one() -> None:
    world = world_on()
    call, carrying = await talking(world)
    await asyncio.sleep(5)
    with pytest.raises(TokenUsed):
        await world.manager.claim(call.call_id, 1)
    assert not call.returns.is_open
    await ends(call, world.socket, carrying)


@pytest.mark.usefixtures("reopening")
@pytest.mark.parametrize("how", ["broken", "silent"])
@virtual_time
async def test_a_second_socket_replaces_the_first_that_is_lost(how: str) -> None:
    world = world_on()
    call, carrying = await talking(world)
    if how == "broken":
        world.socket.hang_up(cleanly=False)
        await carrying
    assert (await world.manager.expected(call.call_id, 1)).stream == 1
    again, socket, returned = await streams_again(world, call.call_id, 1)
    assert again is call
    await carrying
    assert not call.returns.is_open
    with pytest.raises(TokenUsed):
        await world.manager.expected(call.call_id, 1)
    await ends(call, socket, returned)


# The store is away


@virtual_time
async def test_a_stream_comes_back_while_the_store_is_away() -> None:
    world = world_on()
    call, carrying = await talking(world)
    for step in ("waiting.get", "waiting.insert", "waiting.replace", "waiting.delete", "store.save", "store.get"):
        world.faults.planned[step] = StoreError("away")
    world.socket.hang_up(cleanly=False)
    await carrying
    assert (await world.manager.resume(call.call_id, 1, carrier_let_go=True)).stream == 2
    _, socket, returned = await streams_again(world, call.call_id, 2)
    assert not call.returns.is_open
    world.faults.planned.clear()
    await asyncio.sleep(5)
    (entry,) = world.store.waiting.entries.values()
    assert (entry.served, entry.stream) == (True, 3)
    await ends(call, socket, returned)
    assert world.counted() == {"carrier_hangup": 1.0}
    assert world.store.waiting.entries == {}


@virtual_time
async def test_the_entry_is_written_when_the_store_is_back() -> None:
    world = world_on()
    world.faults.planned["waiting.replace"] = None
    world.faults.steps.clear()
    call, carrying = await make(world)
    assert call.state is CallState.ACTIVE
    assert [entry.started_at for entry in world.store.waiting.entries.values()] == [0.0], "as the claim left it"
    world.faults.planned.clear()
    await asyncio.sleep(5)
    (entry,) = world.store.waiting.entries.values()
    assert entry.served
    assert entry.started_at == call.record.started_at
    await ends(call, world.socket, carrying)
    assert world.store.waiting.entries == {}


async def make(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    """An active call for which the store failed after it had been claimed."""
    fault = world.faults.planned.pop("waiting.replace")
    call = await world.manager.create(world.request())
    await world.manager.claim(call.call_id, 1)
    world.faults.planned["waiting.replace"] = fault
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await settle()
    return call, carrying


@virtual_time
async def test_an_end_while_the_store_is_away_is_recorded_once_it_is_back() -> None:
    world = world_on()
    _, carrying = await talking(world)
    for step in ("waiting.get", "waiting.delete", "store.save", "store.get"):
        world.faults.planned[step] = StoreError("away")
    world.socket.feed("stop")
    await carrying
    assert world.counted() == {}
    world.faults.planned.clear()
    await asyncio.sleep(2)
    await settle()
    assert world.counted() == {"carrier_hangup": 1.0}
    await looks(world)
    assert world.store.waiting.entries == {}


# On another process


@virtual_time
async def test_an_entry_that_is_being_written_gives_the_next_stream_to_one_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store has the entry and others can take it, but its answer to the owner is on its way."""
    maker, taker = two()
    replace_now = maker.store.waiting.replace

    async def answer_late(entry: WaitingCall, expected: WaitingCall | None = None) -> bool:
        is_replaced = await replace_now(entry, expected)
        if entry.owner == "maker":
            await asyncio.sleep(0.5)
        return is_replaced

    call = await maker.manager.create(maker.request())
    await maker.manager.claim(call.call_id, 1)
    monkeypatch.setattr(maker.store.waiting, "replace", answer_late)
    carrying = asyncio.create_task(call.carry(maker.socket))
    maker.socket.feed("connected", "start")
    await settle()
    maker.socket.hang_up(cleanly=False)
    await carrying
    assert (await maker.manager.resume(call.call_id, 1, carrier_let_go=True)).stream == 2
    for step in ("store.save", "store.change"):
        maker.faults.delays[step] = 0.3
    taking = asyncio.create_task(taker.manager.claim(call.call_id, 2))
    await settle()
    assert [(entry.owner, entry.stream) for entry in maker.store.waiting.entries.values()] == [("taker", 3)]
    outcomes = await asyncio.gather(taking, maker.manager.claim(call.call_id, 2), return_exceptions=True)
    (granted,) = [outcome for outcome in outcomes if isinstance(outcome, CallSession)]
    assert len([outcome for outcome in outcomes if isinstance(outcome, TokenUsed)]) == 1
    granted.end(EndReason.ENDED_BY_API)
    await granted.finished.wait()
    await call.finished.wait()
    assert maker.store.waiting.entries == {}


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_another_process_carries_on_when_the_owner_is_killed(direction: Direction) -> None:
    maker, taker = two(direction)
    former, carried = await talking(maker)
    await freeze(maker, former, carried)
    await asyncio.sleep(0.3)
    answer = await taker.manager.resume("call_1", 1, carrier_let_go=True)
    assert (answer.verdict, answer.stream) == (ResumeVerdict.STREAM, 2)
    await asyncio.sleep(0.2)
    call, socket, carrying = await streams_again(taker, "call_1", 2)
    assert taker.faults.in_livekit == ["admin.sid", "admin.participant", "room.join_visible", "room.publish"]
    assert taker.room.attributes["theirs"] == "kept"
    assert taker.store.records["call_1"].owner == "taker"
    (entry,) = taker.store.waiting.entries.values()
    assert (entry.owner, entry.served, entry.stream) == ("taker", True, 3)
    assert events(taker) == [("call-update", "resumed")]
    assert taker.lifecycle.told[0][2]["gap_ms"] == "200"
    await ends(call, socket, carrying)
    told = maker.lifecycle.events + taker.lifecycle.events
    assert told.count("call-answered") == told.count("call-hangup") == 1
    assert taker.counted() == {"carrier_hangup": 1.0}
    assert taker.store.waiting.entries == {}


async def claimed(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    """A call whose socket is open, but has not sent its `start` yet."""
    call = await world.manager.create(world.request())
    await world.manager.claim(call.call_id, 1)
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected")
    await settle()
    assert call.state is not CallState.ACTIVE
    return call, carrying


@pytest.mark.parametrize("asks", [True, False], ids=["the carrier asks", "the carrier is told"])
@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_another_process_begins_a_call_whose_owner_is_killed_before_the_start(
    direction: Direction, asks: bool
) -> None:
    maker, taker = two(direction)
    former, carried = await claimed(maker)
    await looks(maker, taker, seconds=2)
    await freeze(maker, former, carried)
    if asks:
        answer = await taker.manager.resume("call_1", 1, carrier_let_go=True)
        assert (answer.verdict, answer.stream) == (ResumeVerdict.STREAM, 2)
    else:
        await looks(taker, seconds=LEASE_LAPSE + 2)
    call, socket, carrying = await streams_again(taker, "call_1", 2)
    assert call.state is CallState.ACTIVE
    (entry,) = taker.store.waiting.entries.values()
    assert (entry.owner, entry.served, entry.stream) == ("taker", True, 3)
    assert entry.started_at == call.record.started_at > 0.0
    await ends(call, socket, carrying)
    told = maker.lifecycle.events + taker.lifecycle.events
    assert told.count("call-answered") == told.count("call-hangup") == 1
    assert taker.counted() == {"carrier_hangup": 1.0}
    assert taker.store.waiting.entries == {}
    await taker.manager.resumes.close()


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_the_maker_carries_on_a_call_whose_claimer_is_killed_before_the_start(direction: Direction) -> None:
    maker, claimer = two(direction)
    await maker.manager.create(maker.request())
    former = await claimer.manager.claim("call_1", 1)
    carried = asyncio.create_task(former.carry(claimer.socket))
    claimer.socket.feed("connected")
    await settle()
    await freeze(claimer, former, carried)
    answer = await maker.manager.resume("call_1", 1, carrier_let_go=True)
    assert (answer.verdict, answer.stream) == (ResumeVerdict.STREAM, 2)
    assert (await maker.manager.expected("call_1", 2)).stream == 2
    call, socket, carrying = await streams_again(maker, "call_1", 2)
    assert call.state is CallState.ACTIVE
    await ends(call, socket, carrying)
    assert maker.counted() == {"carrier_hangup": 1.0}
    assert maker.store.waiting.entries == {}


@pytest.mark.usefixtures("reopening")
@virtual_time
async def test_the_same_url_again_of_a_call_whose_owner_is_killed_before_the_start() -> None:
    maker, taker = two()
    former, carried = await claimed(maker)
    await looks(maker, taker, seconds=2)
    await freeze(maker, former, carried)
    claiming = asyncio.create_task(taker.manager.claim("call_1", 1))
    await looks(taker, seconds=LEASE_LAPSE + 2)
    call = await claiming
    socket = FakeSocket(taker.faults)
    carrying = asyncio.create_task(call.carry(socket))
    socket.feed("connected", "start")
    await settle()
    assert call.state is CallState.ACTIVE
    await ends(call, socket, carrying)
    assert taker.store.waiting.entries == {}


@virtual_time
async def test_a_call_that_is_lost_before_the_start_and_does_not_come_back_ends() -> None:
    maker, taker = two()
    former, carried = await claimed(maker)
    await looks(maker, taker, seconds=2)
    await freeze(maker, former, carried)
    await looks(taker, seconds=LONGEST_WAIT + LEASE_LAPSE + 2)
    assert taker.store.records["call_1"].end_reason is EndReason.INTERRUPTED
    assert taker.store.waiting.entries == {}
    await taker.manager.resumes.close()


@virtual_time
async def test_a_call_that_ends_between_claim_and_start_leaves_no_entry() -> None:
    world = world_on()
    call, carrying = await claimed(world)
    assert [entry.stream for entry in world.store.waiting.entries.values()] == [2]
    world.socket.feed("stop")
    await carrying
    await call.finished.wait()
    assert world.store.waiting.entries == {}


@pytest.mark.parametrize("now", ["", "RM2"])
@virtual_time
async def test_a_room_deleted_while_the_owner_was_dead_is_not_made_anew(now: str) -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    await freeze(maker, former, carried)
    taker.admin.sids["lobby"] = now
    await taker.manager.resume("call_1", 1, carrier_let_go=True)
    call, _, _ = await streams_again(taker, "call_1", 2)
    await call.finished.wait()
    assert taker.counted() == {"room_deleted": 1.0}
    assert "room.join_visible" not in taker.faults.steps


CHANGED = {"language": "fr"}


async def changed_call() -> tuple[World, World, CallSession, asyncio.Task[None]]:
    """A call whose caller has been changed in its room."""
    owner, taker = two()
    call, carrying = await talking(owner)
    owner.room.change("a note of the agent", **CHANGED)
    return owner, taker, call, carrying


def assert_is_as_it_was(world: World) -> None:
    assert world.room.participant.metadata == "a note of the agent"
    assert CHANGED.items() <= world.room.attributes.items()
    assert world.room.attributes["theirs"] == "kept"
    assert world.room.attributes["connector.callStatus"] == "active"
    assert world.room.attributes["fake.a"] == "b"


@pytest.mark.parametrize("is_at_livekit", [True, False], ids=["LiveKit still has it", "only the store has it"])
@virtual_time
async def test_the_caller_returns_as_the_room_has_changed_it(is_at_livekit: bool) -> None:
    owner, taker, call, carrying = await changed_call()
    if is_at_livekit:
        # The owner dies before it has written the change.
        taker.admin.participants["call_1"] = replace(
            owner.room.participant, attributes={**owner.room.attributes, "connector.callStatus": "reconnecting"}
        )
    else:
        await looks(owner)
    await freeze(owner, call, carrying)
    await taker.manager.resume("call_1", 1, carrier_let_go=True)
    resumed, socket, returned = await streams_again(taker, "call_1", 2)
    assert_is_as_it_was(taker)
    assert taker.lifecycle.events.count("call-update") == 1, "only the return itself"
    await ends(resumed, socket, returned)


@virtual_time
async def test_an_attribute_that_the_room_has_removed_does_not_return() -> None:
    owner, taker, call, carrying = await changed_call()
    del owner.room.attributes["theirs"]
    await looks(owner)
    await freeze(owner, call, carrying)
    await taker.manager.resume("call_1", 1, carrier_let_go=True)
    resumed, socket, returned = await streams_again(taker, "call_1", 2)
    assert "theirs" not in taker.room.attributes
    assert CHANGED.items() <= taker.room.attributes.items()
    await ends(resumed, socket, returned)


@virtual_time
async def test_a_livekit_that_cannot_say_how_the_caller_was_does_not_stop_the_return() -> None:
    owner, taker, call, carrying = await changed_call()
    await looks(owner)
    taker.faults.planned["admin.participant"] = Unavailable("LiveKit does not answer")
    await freeze(owner, call, carrying)
    await taker.manager.resume("call_1", 1, carrier_let_go=True)
    resumed, socket, returned = await streams_again(taker, "call_1", 2)
    assert_is_as_it_was(taker)
    await ends(resumed, socket, returned)


@virtual_time
async def test_changes_outlive_a_second_return() -> None:
    owner, taker, call, carrying = await changed_call()
    await looks(owner)
    await freeze(owner, call, carrying)
    await taker.manager.resume("call_1", 1, carrier_let_go=True)
    resumed, socket, returned = await streams_again(taker, "call_1", 2)
    taker.room.change("another note", language="de")
    await looks(taker)
    await freeze(taker, resumed, returned)
    third = world_on(owner="third", store=owner.store)
    await third.manager.resume("call_1", 2, carrier_let_go=True)
    last, socket, returned = await streams_again(third, "call_1", 3)
    assert third.room.participant.metadata == "another note"
    assert (third.room.attributes["language"], third.room.attributes["theirs"]) == ("de", "kept")
    await ends(last, socket, returned)


AGENT = Occupant("agent-1", Kind.AGENT, "support", has_audio=True)
WATCH = AgentWatch(warn_after=5, timeout=30, empty_timeout=10, fallback_agent="", fallback_number="", message="")


@pytest.mark.parametrize("on_purpose", [True, False])
@virtual_time
async def test_an_agent_that_left_on_purpose_before_the_crash_is_not_dispatched_again(on_purpose: bool) -> None:
    agents = (AgentDispatch("support"),)
    owner = world_on(owner="maker", watch=WATCH, agents=agents)
    taker = world_on(owner="taker", watch=WATCH, agents=agents, store=owner.store)
    call, carrying = await talking(owner)
    owner.room.listener.room_people([AGENT], None)
    owner.room.listener.room_people([], Departure("agent-1", on_purpose))
    await settle()  # No look in between.
    await freeze(owner, call, carrying)
    await taker.manager.resume("call_1", 1, carrier_let_go=True)
    resumed, socket, returned = await streams_again(taker, "call_1", 2)
    before = len(taker.admin.dispatched)
    if on_purpose:
        await returned
        assert len(taker.admin.dispatched) == before
        assert resumed.record.end_reason is EndReason.ROOM_EMPTY
    else:
        await asyncio.sleep(6)
        assert len(taker.admin.dispatched) > before
        await ends(resumed, socket, returned)


@virtual_time
async def test_a_restart_of_livekit_is_no_deleted_room() -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    maker.room.sid = taker.admin.sids["lobby"] = "RM2"
    await looks(maker)
    await freeze(maker, former, carried)
    await taker.manager.resume("call_1", 1, carrier_let_go=True)
    call, socket, carrying = await streams_again(taker, "call_1", 2)
    await ends(call, socket, carrying)
    assert taker.counted() == {"carrier_hangup": 1.0}


@virtual_time
async def test_of_two_returns_at_once_one_is_let_in() -> None:
    maker, taker = two()
    third = world_on(owner="third", store=maker.store)
    former, carried = await talking(maker)
    await freeze(maker, former, carried)
    await asyncio.gather(*(one.manager.resume("call_1", 1, carrier_let_go=True) for one in (taker, third)))
    outcomes = await asyncio.gather(
        *(one.manager.claim("call_1", 2) for one in (taker, third, taker)), return_exceptions=True
    )
    (call,) = [outcome for outcome in outcomes if isinstance(outcome, CallSession)]
    assert sum(isinstance(outcome, TokenUsed) for outcome in outcomes) == 2
    call.end(EndReason.CARRIER_HANGUP)
    await call.finished.wait()
    assert len(taker.endings()) + len(third.endings()) == 1


@pytest.mark.parametrize("notices", ["socket", "stop", "livekit", "look"])
@virtual_time
async def test_an_owner_that_is_slow_steps_aside(notices: str) -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    answer = await taker.manager.resume("call_1", 1, carrier_let_go=True)
    call, socket, carrying = await streams_again(taker, "call_1", answer.stream)
    if notices == "socket":
        maker.socket.hang_up(cleanly=False)
    elif notices == "stop":
        maker.socket.feed("stop")
    elif notices == "livekit":
        maker.room.goes(EndReason.DUPLICATE_IDENTITY)
    await settle()
    await looks(maker, taker)
    if notices != "livekit":
        # It leaves the room only when LiveKit has put it out.
        await asyncio.sleep(3)
        assert maker.room.left == 0
        maker.room.goes(EndReason.DUPLICATE_IDENTITY)
    await former.finished.wait()
    await carried
    assert maker.counted() == {}
    assert "call-hangup" not in maker.lifecycle.events
    assert not call.is_ending
    await ends(call, socket, carrying)
    assert taker.counted() == {"carrier_hangup": 1.0}


@virtual_time
async def test_a_poll_finds_that_the_owner_is_dead() -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=2)
    assert (await taker.manager.resume("call_1", 1, carrier_let_go=False)).verdict is ResumeVerdict.LIVES
    await freeze(maker, former, carried)
    await looks(taker, seconds=LEASE_LAPSE + 2)
    answer = await taker.manager.resume("call_1", 1, carrier_let_go=False)
    assert (answer.verdict, answer.stream) == (ResumeVerdict.STREAM, 2)
    call, socket, carrying = await streams_again(taker, "call_1", 2)
    await ends(call, socket, carrying)


@pytest.mark.usefixtures("reopening")
@pytest.mark.parametrize("dead", [True, False])
@virtual_time
async def test_the_same_url_again_at_another_process(dead: bool) -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    if dead:
        await freeze(maker, former, carried)
        claiming = asyncio.create_task(streams_again(taker, "call_1", 1))
        await looks(taker, seconds=5)
        call, socket, carrying = await claiming
        await ends(call, socket, carrying)
        assert taker.counted() == {"carrier_hangup": 1.0}
        return
    claim = asyncio.create_task(taker.manager.claim("call_1", 1))
    await looks(maker, taker, seconds=6)
    with pytest.raises(TokenUsed):
        await claim
    assert not former.returns.is_open
    await ends(former, maker.socket, carried)


@virtual_time
async def test_a_call_whose_carrier_does_not_come_ends_as_interrupted() -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    await freeze(maker, former, carried)
    killed = time.time()
    taker.admin.there.add("call_1")
    await looks(taker, seconds=40)
    # LiveKit still has the caller: the process may live, without the store.
    assert taker.store.records["call_1"].end_reason is None
    taker.admin.there.clear()
    await looks(taker, seconds=3)
    record = taker.store.records["call_1"]
    assert record.end_reason is EndReason.INTERRUPTED
    assert killed - 1.5 <= record.ended_at <= killed
    assert taker.admin.ghosts == [("lobby", "caller", "call_1")]
    assert taker.lifecycle.events == ["call-hangup"]
    assert taker.store.waiting.entries == {}
    await taker.manager.resumes.close()


@virtual_time
async def test_the_carrier_hung_up_while_the_owner_was_dead() -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    await freeze(maker, former, carried)
    assert await taker.manager.carrier_said("call_1", "completed", 9) is None
    record = taker.store.records["call_1"]
    taker.store.records["call_1"] = replace(record, carrier_status="completed")  # As the status callback keeps it.
    await looks(taker, seconds=6)
    assert taker.store.records["call_1"].end_reason is EndReason.CARRIER_HANGUP
    assert taker.store.waiting.entries == {}
    await taker.manager.resumes.close()


@virtual_time
async def test_a_successor_of_the_same_name_resumes_the_calls() -> None:
    maker = world_on(owner="one")
    former, carried = await talking(maker)
    await freeze(maker, former, carried)
    successor = world_on(owner="one", store=maker.store)
    await successor.manager.resumes.look()
    (entry,) = successor.store.waiting.entries.values()
    assert not entry.served
    call, socket, carrying = await streams_again(successor, "call_1", 2)
    await ends(call, socket, carrying)
    assert successor.counted() == {"carrier_hangup": 1.0}


@virtual_time
async def test_an_outage_of_the_store_does_not_make_owners_dead() -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    await asyncio.sleep(6)  # Redis is stopped: nobody renews, nobody looks.
    await taker.manager.resumes.look()
    (entry,) = maker.store.waiting.entries.values()
    assert entry.served
    await looks(maker, taker, seconds=4)
    (entry,) = maker.store.waiting.entries.values()
    assert entry.served
    await ends(former, maker.socket, carried)


@virtual_time
async def test_an_owner_taken_for_dead_goes_on_with_its_stream() -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    await looks(taker, seconds=5)  # The maker hangs.
    (entry,) = maker.store.waiting.entries.values()
    assert not entry.served
    await looks(maker, taker)
    (entry,) = maker.store.waiting.entries.values()
    assert entry.served
    # The carrier was told to come back: that ends the old stream as if the phone had hung up.
    maker.socket.feed("stop")
    await carried
    assert not former.is_ending
    call, socket, carrying = await streams_again(taker, "call_1", 2)
    await looks(maker, taker)
    maker.room.goes(EndReason.DUPLICATE_IDENTITY)
    await former.finished.wait()
    assert maker.counted() == {}
    await ends(call, socket, carrying)


@virtual_time
async def test_a_call_that_nobody_knows_cannot_come_back() -> None:
    world = world_on()
    with pytest.raises(TokenInvalid):
        await world.manager.resume("call_9", 1, carrier_let_go=True)
    maker, taker = two()
    former, carried = await talking(maker)
    await freeze(maker, former, carried)
    maker.store.waiting.entries.clear()
    with pytest.raises(StoreError):
        await taker.manager.resume("call_1", 1, carrier_let_go=True)
    assert (await taker.manager.resume("call_1", 1, carrier_let_go=False)).verdict is ResumeVerdict.LIVES


# With a transfer


@virtual_time
async def test_a_refused_transfer_leaves_the_call_as_it_was() -> None:
    faults = Faults()
    control = FakeControl(faults)
    world = world_on(faults=faults, control=control)
    call, carrying = await talking(world)
    faults.planned["control.transfer"] = FailedPrecondition("no")
    with pytest.raises(FailedPrecondition):
        await call.transfer(Transfer("+15550001111", 30))
    await settle()
    (entry,) = world.store.waiting.entries.values()
    assert (entry.served, entry.stream, entry.transfer) == (True, 2, None)
    world.socket.hang_up(cleanly=False)
    await carrying
    assert not call.is_ending
    _, socket, returned = await streams_again(world, call.call_id, 2)
    await ends(call, socket, returned)
    assert world.counted() == {"carrier_hangup": 1.0}
    assert world.lifecycle.events.count(LifecycleEvent.HANGUP) == 1


def test_the_wait_for_livekit_is_longer_than_a_join() -> None:
    assert REPLACED_WAIT > 5


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_the_maker_of_a_call_that_another_process_serves_leaves_its_entry_alone(direction: Direction) -> None:
    maker = World(direction, limits=replace(RESUMING, connect_timeout=10), owner="maker")
    taker = world_on(direction, owner="taker", store=maker.store)
    former = await maker.manager.create(maker.request())
    call, socket, carrying = await streams_again(taker, "call_1", 1)
    assert await former.wait.update() is False
    await asyncio.sleep(11)
    await former.finished.wait()
    assert maker.counted() == {}
    (entry,) = taker.store.waiting.entries.values()
    assert (entry.owner, entry.served) == ("taker", True)
    await ends(call, socket, carrying)


@virtual_time
async def test_the_maker_cannot_claim_a_call_that_another_process_serves() -> None:
    maker, taker = two()
    former = await maker.manager.create(maker.request())
    call, socket, carrying = await streams_again(taker, "call_1", 1)
    with pytest.raises(TokenUsed):
        await maker.manager.claim("call_1", 1)
    await former.finished.wait()
    assert not call.is_ending
    (entry,) = taker.store.waiting.entries.values()
    assert (entry.owner, entry.served) == ("taker", True)
    await ends(call, socket, carrying)
    assert (maker.counted(), taker.counted()) == ({}, {"carrier_hangup": 1.0})


# The carrier is told


def two_with_control() -> tuple[World, World]:
    maker = world_on(owner="maker")
    faults = Faults()
    return maker, world_on(owner="taker", store=maker.store, faults=faults, control=FakeControl(faults))


@virtual_time
async def test_the_carrier_of_a_dead_process_is_told_to_come_back() -> None:
    maker, taker = two_with_control()
    third = world_on(owner="third", store=maker.store, faults=taker.faults, control=taker.control)
    former, carried = await talking(maker)
    await looks(maker, taker, third, seconds=4)
    await freeze(maker, former, carried)
    taker.faults.planned["control.bring_back"] = Unavailable("not now")
    await looks(taker, third, seconds=LEASE_LAPSE + 1)
    taker.faults.planned.clear()
    await looks(taker, third, seconds=3)
    assert taker.control is not None
    assert taker.control.brought_back == [("CA1", "document 1", "stream 2")]
    # It streams, and then asks for the document, too.
    call, socket, carrying = await streams_again(third, "call_1", 2)
    assert (await third.manager.resume("call_1", 1, carrier_let_go=False)).stream == 2
    await ends(call, socket, carrying)


@virtual_time
async def test_a_call_that_its_carrier_has_no_longer_ends_at_once() -> None:
    maker, taker = two_with_control()
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    await freeze(maker, former, carried)
    taker.faults.planned["control.bring_back"] = CarrierCallOver("it has ended")
    await looks(taker, seconds=LEASE_LAPSE + 2)
    assert taker.counted() == {"carrier_hangup": 1.0}
    assert taker.store.waiting.entries == {}
    assert taker.control is not None
    assert taker.control.hung_up == []
    await taker.manager.resumes.close()


@virtual_time
async def test_a_call_that_the_carrier_does_not_find_in_this_account_may_still_come_back() -> None:
    maker, taker = two_with_control()
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    await freeze(maker, former, carried)
    taker.faults.planned["control.bring_back"] = NotFound("no such call")
    await looks(taker, seconds=LEASE_LAPSE + 2)
    (warning,) = [each for each in taker.log.entries if "does not know the call" in each["event"]]
    assert (warning["call_id"], warning["error"]) == ("call_1", "no such call")
    assert taker.counted() == {}
    await taker.manager.resume("call_1", 1, carrier_let_go=True)
    call, socket, carrying = await streams_again(taker, "call_1", 2)
    await ends(call, socket, carrying)
    await taker.manager.resumes.close()


@pytest.mark.parametrize(
    ("error", "ends_at_once"), [(CarrierCallOver("it has ended"), True), (NotFound("no such call"), False)]
)
@virtual_time
async def test_the_answer_of_a_carrier_that_polls_ends_the_wait_only_if_it_says_that_the_call_is_over(
    monkeypatch: pytest.MonkeyPatch, error: NotFound, ends_at_once: bool
) -> None:
    monkeypatch.setattr(type(CARRIERS[Provider.TWILIO]), "comes_back_within", 10.0)
    world = world_on(control=None)
    world.control = FakeControl(world.faults)
    world.parts.control[Provider.TWILIO] = world.control  # type: ignore[index]
    world.faults.planned["control.bring_back"] = error
    call, carrying = await talking(world)
    world.socket.hang_up(cleanly=False)
    await carrying
    await settle()
    assert call.is_ending is ends_at_once
    await call.finished.wait()
    assert world.counted() == {"carrier_hangup" if ends_at_once else "carrier_lost": 1.0}


class FakePeers:
    """The addresses of all processes refuse connections."""

    async def ask(self, owner: str, command: CallCommand) -> CallRecord:
        raise NotImplementedError

    asked = 0

    async def is_reachable(self, owner: str) -> bool:
        self.asked += 1
        return False

    async def takes_calls(self, owner: str) -> bool:
        return False


class LivingPeers(FakePeers):
    async def is_reachable(self, owner: str) -> bool:
        return not await super().is_reachable(owner)


@virtual_time
async def test_an_owner_whose_address_is_closed_is_known_to_be_dead_sooner() -> None:
    maker, taker = two()
    taker.manager = CallManager(taker.parts, 10, FakePeers())
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    assert next(iter(maker.store.waiting.entries.values())).served
    await freeze(maker, former, carried)
    await looks(taker, seconds=3)
    assert not next(iter(maker.store.waiting.entries.values())).served
    await taker.manager.resumes.close()


@pytest.mark.parametrize("lives", [True, False])
@virtual_time
async def test_a_poll_asks_whether_the_owner_lives(lives: bool) -> None:
    maker, taker = two()
    peers = LivingPeers() if lives else FakePeers()
    taker.manager = CallManager(taker.parts, 10, peers)
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    await freeze(maker, former, carried)
    answer = await taker.manager.resume("call_1", 1, carrier_let_go=False)
    assert answer.verdict is (ResumeVerdict.LIVES if lives else ResumeVerdict.STREAM)
    if lives:
        # Another call of the same process at the same moment asks nothing.
        await taker.manager.resume("call_1", 1, carrier_let_go=False)
        assert peers.asked == 1
        await asyncio.sleep(1)
        await taker.manager.resume("call_1", 1, carrier_let_go=False)
        assert peers.asked == 2
    else:
        call, socket, carrying = await streams_again(taker, "call_1", 2)
        await ends(call, socket, carrying)
    await taker.manager.resumes.close()


class SilentPeers(FakePeers):
    """No address answers: the machines are gone, or their processes are frozen."""

    async def is_reachable(self, owner: str) -> bool:
        await asyncio.sleep(2.1)
        return True


@virtual_time
async def test_an_owner_that_does_not_answer_is_gone_when_its_lease_has_lapsed() -> None:
    maker, taker = two()
    taker.manager = CallManager(taker.parts, 10, SilentPeers())
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=4)
    await freeze(maker, former, carried)
    await looks(taker, seconds=LEASE_LAPSE + 2)
    assert not next(iter(maker.store.waiting.entries.values())).served
    await taker.manager.resumes.close()


class LatePeers(FakePeers):
    """The answer of an address comes late: until then, another process with the owner's name has started."""

    def __init__(self, restarted: World) -> None:
        self._restarted = restarted

    async def is_reachable(self, owner: str) -> bool:
        await asyncio.sleep(0.5)
        await looks(self._restarted, seconds=1)
        return False


@virtual_time
async def test_a_late_answer_does_not_count_against_an_owner_that_renews_its_lease() -> None:
    maker, taker = two()
    taker.manager = CallManager(taker.parts, 10, LatePeers(maker))
    call, carrying = await talking(maker)
    await looks(maker, taker, seconds=4)
    await looks(taker, seconds=3)
    await looks(maker, taker, seconds=4)
    assert next(iter(maker.store.waiting.entries.values())).served
    await taker.manager.resumes.close()
    call.end(EndReason.ENDED_BY_API)
    await carrying
    await call.finished.wait()


# A process that stops


@virtual_time
async def test_a_process_that_stops_hands_its_calls_over() -> None:
    maker, taker = two()
    former, carried = await talking(maker)
    await taker.store.renew_lease("taker", time.time())
    await looks(maker, taker, seconds=2)
    closed: list[str] = []

    async def close() -> None:
        closed.append("doors")

    draining = asyncio.create_task(maker.manager.drain(0.0, close))
    await settle()
    await carried
    assert closed == ["doors"]
    assert maker.socket.closed_with == [(1012, "reconnecting")]
    with pytest.raises(Unavailable):
        await maker.manager.claim("call_1", 2)
    assert (await taker.manager.resume("call_1", 1, carrier_let_go=True)).stream == 2
    call, socket, carrying = await streams_again(taker, "call_1", 2)
    assert maker.room.left == 0
    await looks(maker, taker, seconds=3)
    maker.room.goes(EndReason.DUPLICATE_IDENTITY)
    await draining
    assert maker.counted() == {}
    assert former.finished.is_set()
    await ends(call, socket, carrying)
    assert taker.counted() == {"carrier_hangup": 1.0}


class Siblings(FakePeers):
    """The other processes live; those in `stopping` say that they are about to stop."""

    def __init__(self, *stopping: str) -> None:
        self._stopping = stopping

    async def is_reachable(self, owner: str) -> bool:
        return True

    async def takes_calls(self, owner: str) -> bool:
        return owner not in self._stopping


@pytest.mark.parametrize("says", ["its lease", "itself", "both"])
@virtual_time
async def test_a_process_that_stops_too_is_given_no_calls(says: str) -> None:
    """All workers of a service stop at once: calls must not go from one to the next."""
    maker, taker = two()
    stopping = () if says == "its lease" else ("taker",)
    maker.manager = CallManager(maker.parts, 10, Siblings(*stopping))
    _, carrying = await talking(maker)
    await looks(maker, taker, seconds=2)
    await taker.store.renew_lease("taker", time.time(), draining=says != "itself")
    await maker.manager.drain(0.0, not_to_be_closed)
    await carrying
    assert maker.counted() == {"shutdown": 1.0}
    assert maker.store.waiting.entries == {}


async def not_to_be_closed() -> None:
    raise AssertionError("nobody else listens")


@virtual_time
async def test_beside_one_that_stops_the_calls_go_to_one_that_goes_on() -> None:
    maker, taker = two()
    third = world_on(owner="third", store=maker.store)
    maker.manager = CallManager(maker.parts, 10, Siblings("taker"))
    former, carried = await talking(maker)
    await looks(maker, taker, third, seconds=2)
    draining = asyncio.create_task(maker.manager.drain(0.0))
    await settle()
    await carried
    call, socket, carrying = await streams_again(third, "call_1", 2)
    maker.room.goes(EndReason.DUPLICATE_IDENTITY)
    await draining
    assert former.finished.is_set()
    await ends(call, socket, carrying)
    assert (maker.counted(), third.counted()) == ({}, {"carrier_hangup": 1.0})


@virtual_time
async def test_while_the_store_is_away_the_processes_themselves_say_whether_they_stop() -> None:
    maker, taker = two()
    maker.manager = CallManager(maker.parts, 10, Siblings("taker"))
    _, carrying = await talking(maker)
    await looks(maker, taker, seconds=2)
    maker.faults.planned["store.draining"] = StoreError("away")
    assert not await maker.manager.resumes.has_others()
    maker.manager.resumes._peers = Siblings()
    assert await maker.manager.resumes.has_others()
    maker.manager.end_all()
    await carrying


@virtual_time
async def test_a_call_that_is_handed_to_a_process_which_stops_a_moment_later_is_carried_on_there() -> None:
    """That process had not begun to stop when the first one looked. It carries the call as long as it drains (because
    it has a call of its own), and the call does not go back."""
    maker, taker = two()
    await taker.manager.create(taker.request("call_of_its_own"))
    former, carried = await talking(maker)
    await looks(maker, taker, seconds=2)
    draining = asyncio.create_task(maker.manager.drain(0.0))
    await settle()
    await carried
    await maker.store.renew_lease("maker", time.time(), draining=True)
    stopping = asyncio.create_task(taker.manager.drain(5.0))
    await settle()
    call, _, carrying = await streams_again(taker, "call_1", 2)
    maker.room.goes(EndReason.DUPLICATE_IDENTITY)
    await draining
    assert former.finished.is_set()
    await looks(taker, seconds=6)
    await asyncio.gather(stopping, carrying)
    assert (maker.counted(), taker.counted()) == ({}, {"shutdown": 2.0})
    assert call.finished.is_set()
    with pytest.raises(Unavailable):
        await taker.manager.claim("call_1", 3)


@pytest.mark.parametrize("others", [True, False])
@virtual_time
async def test_a_draining_process_leaves_a_call_that_has_not_begun_to_the_others(others: bool) -> None:
    maker, taker = two(Direction.OUTBOUND)
    call = await maker.manager.create(maker.request())
    await looks(maker, taker, seconds=2)
    await maker.store.renew_lease("maker", time.time(), draining=not others)
    taker.manager.begin_drain()
    if others:
        with pytest.raises(Unavailable, match="another process"):
            await taker.manager.claim("call_1", 1)
        call.end(EndReason.ENDED_BY_API)
        await call.finished.wait()
    else:
        taken, socket, carrying = await streams_again(taker, "call_1", 1)
        await ends(taken, socket, carrying)
        call.end(EndReason.INTERRUPTED)
        await call.finished.wait()
        assert (maker.counted(), taker.counted()) == ({}, {"carrier_hangup": 1.0})


@virtual_time
async def test_without_another_process_calls_end_as_shutdown() -> None:
    world = world_on()
    _, carrying = await talking(world)
    await looks(world, seconds=2)
    await world.manager.drain(0.0)
    await carrying
    assert world.counted() == {"shutdown": 1.0}
    assert world.store.waiting.entries == {}


@virtual_time
async def test_a_call_that_nobody_claims_is_left_in_the_store() -> None:
    maker, taker = two()
    _, carried = await talking(maker)
    await taker.store.renew_lease("taker", time.time())
    await looks(maker, taker, seconds=2)
    await maker.manager.drain(0.0)
    await carried
    assert maker.counted() == {}
    assert len(maker.store.waiting.entries) == 1
    await maker.store.drop_lease("maker")
    await looks(taker, seconds=6)
    assert taker.counted() == {"interrupted": 1.0}
    await taker.manager.resumes.close()
