"""Two processes that share a store, on virtual time: who gets a call when both want it, and what the other one does."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from connector.call.record.changes import end_of
from connector.call.registry import take_over
from connector.call.registry.lease import OwnerLease
from connector.call.session.call_session import CallSession
from connector.errors import ResourceExhausted, TokenExpired, TokenInvalid, TokenUsed, Unavailable
from connector.model.call import CallState, Direction, WaitingCall
from connector.model.end_reason import EndReason
from connector.storage.base import StoreError
from tests.unit.call.fakes import LIMITS, FakeSocket, World
from tests.unit.call.virtual_time import virtual_time


def two(direction: Direction = Direction.OUTBOUND, **taker: int) -> tuple[World, World]:
    maker = World(direction, owner="maker")
    return maker, World(direction, owner="taker", store=maker.store, **taker)  # type: ignore[arg-type]


async def settle() -> None:
    for _ in range(30):
        await asyncio.sleep(0)


async def carry(world: World, call: CallSession) -> asyncio.Task[None]:
    world.socket = FakeSocket(world.faults)
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await settle()
    assert call.state is CallState.ACTIVE
    return carrying


def put_out(world: World) -> None:
    """What LiveKit does to a hidden participant whose identity joins once more."""
    world.room.listener.room_ended(EndReason.DUPLICATE_IDENTITY, "")


@virtual_time
async def test_the_taker_joins_visible_and_the_maker_ends_without_a_word() -> None:
    maker, taker = two()
    former = await maker.manager.create(maker.request())
    call = await taker.manager.claim("call_1")
    assert taker.manager.held.get("call_1") is call
    assert maker.store.records["call_1"].owner == "taker"
    carrying = await carry(taker, call)
    assert taker.faults.in_livekit == ["admin.keep_room", "room.join_visible", "room.publish"]
    put_out(maker)
    await former.finished.wait()
    assert maker.manager.held.all() == []
    assert maker.counted() == {}
    assert maker.endings() == []
    assert maker.admin.undone == []
    assert maker.lifecycle.events == ["call-started", "call-ringing"]
    assert "room.set_attributes" not in maker.faults.steps
    assert former.record.owner == "taker"
    assert former.settled.is_set()
    taker.socket.feed("stop")
    await carrying
    assert taker.counted() == {"carrier_hangup": 1.0}
    assert taker.lifecycle.events == ["call-answered", "call-hangup"]
    events = [event for event, _ in maker.store.records["call_1"].timelog]
    assert events == ["call-started", "call-ringing", "call-answered", "call-hangup"]


@virtual_time
async def test_an_inbound_call_is_prepared_by_whoever_carries_it() -> None:
    maker, taker = two(Direction.INBOUND)
    await maker.manager.create(maker.request())
    call = await taker.manager.claim("call_1")
    carrying = await carry(taker, call)
    assert taker.faults.in_livekit == ["admin.ensure_room", "room.join_visible", "room.publish"]
    assert "admin.ensure_room" not in maker.faults.steps
    taker.socket.feed("stop")
    await carrying
    # The maker notices when the time it gave the call is over.
    await asyncio.sleep(LIMITS.connect_timeout + 1)
    assert maker.manager.held.all() == []
    assert maker.counted() == {}
    assert maker.store.records["call_1"].end_reason is EndReason.CARRIER_HANGUP


@pytest.mark.parametrize("ends_first", [False, True])
@virtual_time
async def test_the_maker_of_an_inbound_call_steps_aside_at_its_next_look(ends_first: bool) -> None:
    limits = replace(LIMITS, resume_grace=5.0)
    maker = World(Direction.INBOUND, owner="maker", limits=limits)
    taker = World(Direction.INBOUND, owner="taker", limits=limits, store=maker.store)
    former = await maker.manager.create(maker.request())
    await maker.manager.resumes.look()
    await settle()
    assert maker.manager.held.all() == [former]
    call = await taker.manager.claim("call_1")
    carrying = await carry(taker, call)
    if ends_first:
        taker.socket.feed("stop")
        await carrying
    await maker.manager.resumes.look()
    await asyncio.wait_for(former.finished.wait(), 1.0)
    assert maker.manager.held.all() == []
    assert (maker.counted(), maker.lifecycle.events) == ({}, ["call-started"])
    if not ends_first:
        assert maker.store.records["call_1"].end_reason is None
        taker.socket.feed("stop")
        await carrying
    assert taker.counted() == {"carrier_hangup": 1.0}


@virtual_time
async def test_a_waiting_call_whose_entry_the_store_has_lost_goes_on_waiting() -> None:
    maker = World(Direction.INBOUND, owner="maker", limits=replace(LIMITS, resume_grace=5.0))
    call = await maker.manager.create(maker.request())
    maker.store.waiting.entries.clear()
    for _ in range(3):
        await maker.manager.resumes.look()
        await asyncio.sleep(1.0)
    assert not call.is_ending
    call.end(EndReason.ENDED_BY_API)
    await call.finished.wait()


@pytest.mark.parametrize("reason", [EndReason.SHUTDOWN, EndReason.ENDED_BY_API, EndReason.PARTICIPANT_REMOVED])
@virtual_time
async def test_whatever_ends_the_wait_of_a_call_that_has_gone_elsewhere_does_not_end_the_call(
    reason: EndReason,
) -> None:
    maker, taker = two()
    former = await maker.manager.create(maker.request())
    call = await taker.manager.claim("call_1")
    former.end(reason)
    await former.finished.wait()
    assert maker.counted() == {}
    assert maker.store.records["call_1"].end_reason is None
    carrying = await carry(taker, call)
    taker.socket.feed("stop")
    await carrying


@pytest.mark.parametrize("first", ["maker", "taker"])
@virtual_time
async def test_of_many_claims_everywhere_one_is_granted(first: str) -> None:
    maker, taker = two()
    await maker.manager.create(maker.request())
    for world in (maker, taker):
        world.faults.delays["waiting.delete"] = 0.01
    maker.store.waiting._faults.delays["waiting.get"] = 0.01
    order = [maker, taker] * 4 if first == "maker" else [taker, maker] * 4
    outcomes = await asyncio.gather(*(world.manager.claim("call_1") for world in order), return_exceptions=True)
    granted = [outcome for outcome in outcomes if isinstance(outcome, CallSession)]
    assert len(granted) == 1
    assert all(isinstance(outcome, TokenUsed) for outcome in outcomes if not isinstance(outcome, CallSession))
    granted[0].end(EndReason.CARRIER_CLOSED)
    await granted[0].finished.wait()
    put_out(maker)
    await settle()
    assert [*maker.manager.held.all(), *taker.manager.live()] == []
    assert len(maker.endings()) + len(taker.endings()) == 1


@pytest.mark.parametrize("others", [True, False], ids=["another process has it", "nobody has"])
@virtual_time
async def test_an_end_in_the_middle_of_a_claim_waits_for_the_stores_word(others: bool) -> None:
    maker, taker = two()
    former = await maker.manager.create(maker.request())
    maker.store.waiting._faults.delays["waiting.delete"] = 0.01
    claiming = asyncio.create_task(maker.manager.claim("call_1"))
    await settle()
    if others:
        del maker.store.waiting._faults.delays["waiting.delete"]
        taken = await taker.manager.claim("call_1")
        put_out(maker)
    else:
        former.end(EndReason.SHUTDOWN)
    outcome = (await asyncio.gather(claiming, return_exceptions=True))[0]
    await former.finished.wait()
    if others:
        assert isinstance(outcome, TokenUsed)
        assert maker.counted() == {}
        assert maker.admin.undone == []
        assert maker.store.records["call_1"].end_reason is None
        carrying = await carry(taker, taken)
        taker.socket.feed("stop")
        await carrying
    else:
        assert maker.counted() == {"shutdown": 1.0}
        assert maker.store.waiting.entries == {}


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted all the same", "another process has it"])
@virtual_time
async def test_a_claim_whose_answer_was_lost_is_ended_by_whoever_has_the_call(deleted: bool) -> None:
    maker, taker = two()
    former = await maker.manager.create(maker.request())
    waiting = maker.store.waiting
    take = waiting.take

    async def answer_lost(document_id: str) -> WaitingCall | None:
        waiting.take = take  # type: ignore[method-assign]
        if deleted:
            await take(document_id)
        else:
            await taker.manager.claim("call_1")
        raise StoreError("the connection broke")

    waiting.take = answer_lost  # type: ignore[method-assign]
    with pytest.raises(StoreError):
        await maker.manager.claim("call_1")
    await former.finished.wait()
    assert maker.counted() == ({"carrier_lost": 1.0} if deleted else {})
    assert (maker.store.records["call_1"].end_reason is None) is not deleted
    taker.manager.end_all()
    await settle()


@virtual_time
async def test_the_owner_adopts_what_another_process_learnt_of_the_call() -> None:
    maker, taker = two()
    call = await maker.manager.create(maker.request())
    before = call.deadline
    call.wait.deadline -= LIMITS.connect_timeout  # Virtual time leaves the wall clock of deadlines behind.
    await taker.manager.fetched("call_1", "CA1", "+15557654321", "+15551234567")
    (entry,) = maker.store.waiting.entries.values()
    assert (entry.carrier_call_id, entry.owner) == ("CA1", "maker")
    await maker.manager.claim("call_1")
    assert (call.record.carrier_call_id, call.record.to_number) == ("CA1", "+15551234567")
    assert call.deadline >= before - LIMITS.connect_timeout + 1
    carrying = asyncio.create_task(call.carry(maker.socket))
    maker.socket.feed("connected", "start CA2")
    await carrying
    maker_ends = maker.counted()
    assert maker_ends == {"call_mismatch": 1.0}


@virtual_time
async def test_an_owner_whose_time_is_over_waits_on_when_another_process_was_asked_for_the_document() -> None:
    maker = World()
    call = await maker.manager.create(maker.request())
    (entry,) = maker.store.waiting.entries.values()
    later = replace(entry, expires_at=entry.expires_at + 1000, to_number="+15551234567")
    assert await maker.store.waiting.replace(later)
    await asyncio.sleep(LIMITS.connect_timeout + 1)
    assert not call.finished.is_set()
    assert call.record.to_number == "+15551234567"
    assert call.deadline == later.expires_at
    await asyncio.sleep(2000)
    assert maker.counted() == {"connect_timeout": 1.0}
    assert maker.store.waiting.entries == {}


@virtual_time
async def test_after_a_claim_a_fetch_elsewhere_is_refused_and_changes_nothing() -> None:
    maker, taker = two()
    call = await maker.manager.create(maker.request())
    await maker.manager.claim("call_1")
    for attempt in (taker.manager.expected("call_1"), taker.manager.fetched("call_1", "CA9", "", "")):
        with pytest.raises(TokenUsed, match="another process"):
            await attempt
    call.end(EndReason.CARRIER_CLOSED)
    await call.finished.wait()
    with pytest.raises(TokenExpired):
        await taker.manager.expected("call_1")
    with pytest.raises(TokenInvalid):
        await taker.manager.expected("call_2")


@virtual_time
async def test_a_call_that_another_process_opens_between_two_looks_is_not_taken_for_one_whose_stream_has_come(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maker, taker = two()
    looks = 0

    async def look(what: Any, call_id: str) -> Any:
        nonlocal looks
        looks += 1
        seen = await what(call_id)
        if looks == 1:
            await maker.manager.create(maker.request())
        return seen

    monkeypatch.setattr(maker.store, "get_call", partial(look, maker.store.get_call))
    monkeypatch.setattr(maker.store.waiting, "get", partial(look, maker.store.waiting.get))
    assert (await taker.manager.expected("call_1")).request.call_id == "call_1"
    await maker.manager.drain(0)


# A store that fails


@pytest.mark.parametrize(
    "fault", [StoreError("gone"), ZeroDivisionError("a bug"), None], ids=["refuses", "breaks", "hangs"]
)
@virtual_time
async def test_without_the_stores_word_no_socket_is_let_in_and_the_call_ends(fault: Exception | None) -> None:
    world = World()
    call = await world.manager.create(world.request())
    world.store.waiting._faults.planned["waiting.delete"] = fault
    with pytest.raises((StoreError, ZeroDivisionError)):
        await world.manager.claim("call_1")
    async with asyncio.timeout(30):
        await call.finished.wait()
    assert world.counted() == {"carrier_lost": 1.0}
    assert world.manager.live() == []


@pytest.mark.parametrize(
    "fault", [StoreError("gone"), ZeroDivisionError("a bug"), None], ids=["refuses", "breaks", "hangs"]
)
@pytest.mark.parametrize("step", ["waiting.insert", "waiting.get", "waiting.delete", "waiting.replace"])
@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_wait_ends_in_time_whatever_the_store_does(
    direction: Direction, step: str, fault: Exception | None
) -> None:
    world = World(direction)
    world.faults.planned[step] = fault
    creating = asyncio.create_task(world.manager.create(world.request()))
    await asyncio.wait([creating], timeout=10)
    assert creating.done()
    if step == "waiting.insert":
        assert creating.exception() is not None
    else:
        call = creating.result()
        fetching = asyncio.create_task(call.fetched("CA1", "", "+15551234567"))
        await asyncio.wait([fetching], timeout=20)
        fetching.cancel()
        await asyncio.gather(fetching, return_exceptions=True)
    await asyncio.sleep(LIMITS.connect_timeout + LIMITS.answer_grace + 60)
    assert world.manager.live() == []
    assert sum(world.counted().values()) == 1


# Clients that go away, full and draining processes


@pytest.mark.parametrize("after", [0.005, 0.015, 0.025])
@virtual_time
async def test_a_client_that_goes_away_while_it_takes_a_call_over_leaves_nobody_holding_it(after: float) -> None:
    maker, taker = two()
    await maker.manager.create(maker.request())
    faults = maker.store.waiting._faults
    faults.delays |= {"waiting.get": 0.01, "waiting.delete": 0.01, "store.save": 0.01}
    claiming = asyncio.create_task(taker.manager.claim("call_1"))
    await asyncio.sleep(after)
    claiming.cancel()
    with pytest.raises(asyncio.CancelledError):
        await claiming
    await asyncio.sleep(5)
    put_out(maker)
    await asyncio.sleep(5)
    assert [*maker.manager.held.all(), *taker.manager.live()] == []
    assert maker.store.waiting.entries == {}
    assert taker.counted() == {"carrier_lost": 1.0}
    assert maker.counted() == {}
    # The hidden participant of the maker is not left in the room.
    assert taker.admin.removed == [("lobby", "caller")]


@virtual_time
async def test_a_process_that_is_full_or_stops_leaves_the_call_to_others() -> None:
    maker, taker = two(max_calls=0)
    await maker.manager.create(maker.request())
    with pytest.raises(ResourceExhausted):
        await taker.manager.claim("call_1")
    other = World(owner="other", store=maker.store)
    other.manager.begin_drain()
    with pytest.raises(Unavailable):
        await other.manager.claim("call_1")
    assert list(maker.store.waiting.entries) == ["call_1"]
    call = await maker.manager.claim("call_1")
    carrying = await carry(maker, call)
    maker.socket.feed("stop")
    await carrying


@virtual_time
async def test_a_full_process_can_still_end_what_waits_elsewhere() -> None:
    maker, taker = two(max_calls=0)
    former = await maker.manager.create(maker.request())
    call = await taker.manager.end_waiting("call_1", EndReason.ENDED_BY_API)
    assert call is not None
    await call.finished.wait()
    assert taker.admin.removed == [("lobby", "caller")]
    assert "room.join_visible" not in taker.faults.steps
    maker.room.listener.room_ended(EndReason.PARTICIPANT_REMOVED, "")
    await former.finished.wait()
    assert (maker.counted(), taker.counted()) == ({}, {"ended_by_api": 1.0})
    assert await taker.manager.end_waiting("call_1", EndReason.ENDED_BY_API) is None


# Processes that died


@virtual_time
async def test_a_sweep_ends_what_nobody_ended_and_leaves_alone_what_somebody_may_still_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    maker, taker = two()
    await maker.manager.create(maker.request())
    await taker.manager.take_overs.sweep()
    assert taker.manager.live() == []
    (entry,) = maker.store.waiting.entries.values()
    await maker.store.waiting.replace(replace(entry, expires_at=entry.created_at - take_over.ORPHAN_GRACE - 1))
    await maker.manager.take_overs.sweep()  # Its own: that has a timer.
    assert len(maker.manager.held.all()) == 1
    await taker.manager.take_overs.sweep()
    await settle()
    assert taker.counted() == {"interrupted": 1.0}
    put_out(maker)
    await settle()
    assert maker.counted() == {}


@virtual_time
async def test_what_a_failing_store_kept_of_an_ended_call_is_swept_away_and_cannot_be_claimed() -> None:
    maker, taker = two()
    call = await maker.manager.create(maker.request())
    faults = maker.store.waiting._faults
    faults.planned["waiting.delete"] = StoreError("gone")
    call.end(EndReason.ENDED_BY_API)
    await call.finished.wait()
    assert maker.counted() == {"ended_by_api": 1.0}
    del faults.planned["waiting.delete"]
    with pytest.raises(TokenExpired):
        await taker.manager.claim("call_1")
    (entry,) = maker.store.waiting.entries.values()
    await maker.store.waiting.replace(replace(entry, expires_at=entry.created_at - take_over.ORPHAN_GRACE - 1))
    await taker.manager.take_overs.sweep()
    assert maker.store.waiting.entries == {}
    assert taker.counted() == {}


@virtual_time
async def test_a_restart_ends_what_its_former_life_held_tells_so_and_leaves_what_waits() -> None:
    world = World(owner="phoenix")
    waiting = await world.manager.create(world.request("call_waits"))
    active = await world.manager.create(world.request("call_active"))
    await active.claim()
    carrying = await carry(world, active)
    foreign = replace(active.record, call_id="call_foreign", owner="another")
    unheard = replace(active.record, call_id="call_unheard", timelog=(), state=CallState.PENDING)
    world.store.records |= {"call_foreign": foreign, "call_unheard": unheard}
    successor = World(owner="phoenix", store=world.store)
    ended = await OwnerLease(successor.parts, bool).take_up()
    assert {record.call_id for record in ended} == {"call_active", "call_unheard"}
    records = world.store.records
    assert records["call_active"].end_reason is EndReason.INTERRUPTED
    assert records["call_active"].timelog[-1][0] == "call-hangup"
    assert records["call_unheard"].end_reason is EndReason.INTERRUPTED
    assert records["call_waits"].end_reason is None
    assert records["call_foreign"].end_reason is None
    assert [(event, record.call_id) for event, record, _ in successor.lifecycle.told] == [
        ("call-hangup", "call_active")
    ]
    world.socket.feed("stop")
    await carrying
    waiting.end(EndReason.SHUTDOWN)
    await waiting.finished.wait()


@virtual_time
async def test_a_take_over_has_what_was_written_while_it_was_under_way() -> None:
    """The record and the wait are another process's to write until the moment of the claim."""
    maker, taker = two()
    await maker.manager.create(maker.request())
    waiting, store = maker.store.waiting, maker.store
    take = waiting.take

    async def learnt_first(document_id: str) -> WaitingCall | None:
        entry, record = waiting.entries[document_id], store.records[document_id]
        waiting.entries[document_id] = replace(entry, carrier_call_id="CA7", to_number="+15551234567")
        store.records[document_id] = replace(record, carrier_status="ringing")
        return await take(document_id)

    waiting.take = learnt_first  # type: ignore[method-assign]
    call = await taker.manager.claim("call_1")
    assert (call.record.carrier_call_id, call.record.to_number) == ("CA7", "+15551234567")
    assert (call.record.carrier_status, call.record.owner) == ("ringing", "taker")
    put_out(maker)
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()
    await settle()


@virtual_time
async def test_of_two_carrier_calls_that_fetch_one_document_at_once_one_is_refused() -> None:
    maker, taker = two()
    third = World(store=maker.store, owner="third")
    call = await maker.manager.create(maker.request())
    maker.store.waiting._faults.delays["waiting.get"] = 0.01
    fetches = [
        world.manager.fetched("call_1", carrier_call, "", "")
        for world, carrier_call in ((taker, "CA1"), (third, "CA2"))
    ]
    outcomes = await asyncio.gather(*fetches, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [type(None), TokenUsed]
    assert maker.store.waiting.entries["call_1"].carrier_call_id == "CA1"
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()


@virtual_time
async def test_a_drained_process_takes_nothing_over() -> None:
    maker, taker = two()
    call = await maker.manager.create(maker.request())
    await taker.manager.drain(0)
    for attempt in (
        taker.manager.end_waiting("call_1", EndReason.ENDED_BY_API),
        taker.manager.carrier_said("call_1", "busy", 1),
        taker.manager.claim("call_1"),
    ):
        with pytest.raises(Unavailable, match="shutting down"):
            await attempt
    assert taker.manager.live() == []
    assert "call_1" in maker.store.waiting.entries
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()


@virtual_time
async def test_a_drain_waits_for_what_is_being_taken_over_and_ends_it() -> None:
    maker, taker = two()
    await maker.manager.create(maker.request())
    taker.store.waiting._faults.delays["waiting.delete"] = 1.0
    ending = asyncio.create_task(taker.manager.end_waiting("call_1", EndReason.ENDED_BY_API))
    await asyncio.sleep(0.5)
    await taker.manager.drain(0)
    assert taker.manager.live() == []
    assert taker.store.records["call_1"].end_reason in (EndReason.SHUTDOWN, EndReason.ENDED_BY_API)
    await ending
    del taker.store.waiting._faults.delays["waiting.delete"]
    put_out(maker)
    await settle()
    assert maker.counted() == {}


@virtual_time
async def test_an_end_that_another_process_was_quicker_with_is_neither_told_nor_counted() -> None:
    world = World()
    call = await world.manager.create(world.request())
    await world.manager.claim("call_1")
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start")
    await settle()
    theirs = end_of(world.store.records["call_1"], EndReason.INTERRUPTED, "gone for a minute").record
    assert await world.store.end_call(theirs)
    world.socket.feed("stop")
    await carrying
    assert world.lifecycle.events == ["call-started", "call-ringing", "call-answered"]
    assert world.counted() == {}
    assert call.record == world.store.records["call_1"] == theirs


@virtual_time
async def test_what_the_owner_learns_does_not_undo_what_another_process_has_learnt() -> None:
    maker, taker = two()
    call = await maker.manager.create(maker.request())
    await taker.manager.fetched("call_1", "CA1", "+15557654321", "")
    (theirs,) = maker.store.waiting.entries.values()
    await call.extend_deadline(1.0)
    assert maker.store.waiting.entries["call_1"].carrier_call_id == "CA1"
    assert maker.store.waiting.entries["call_1"].expires_at >= theirs.expires_at
    assert call.record.from_number == "+15557654321"
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()
