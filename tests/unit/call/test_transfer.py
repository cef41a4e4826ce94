"""A transfer: the phone leaves its stream, and either talks to somebody else or comes back. On virtual time."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from connector.call.session.call_session import CallSession
from connector.call.session.transfer import MARGIN, STREAM_GRACE
from connector.call.session.transfer_progress import CallTransfer
from connector.errors import ConnectorError, FailedPrecondition, NotFound, TokenUsed, Unavailable
from connector.model.call import CallState, Direction, Transfer, TransferStatus
from connector.model.end_reason import EndReason
from connector.model.webhook import LifecycleEvent
from connector.storage.base import StoreError
from tests.unit.call.fakes import CARRIER_CALL, LIMITS, FakeControl, FakeSocket, Faults, World
from tests.unit.call.virtual_time import virtual_time

TO = "+15550001111"
ORDER = Transfer(TO, 30)
FAILED = [TransferStatus.BUSY, TransferStatus.NO_ANSWER, TransferStatus.FAILED, TransferStatus.CANCELED]


async def settle() -> None:
    for _ in range(40):
        await asyncio.sleep(0)


def world_on(direction: Direction = Direction.INBOUND, **options: object) -> World:
    faults = Faults()
    return World(direction, faults=faults, control=FakeControl(faults), **options)  # type: ignore[arg-type]


async def talking(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    """A call of the world's manager, active."""
    call = await world.manager.create(world.request())
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await settle()
    assert call.state is CallState.ACTIVE
    return call, carrying


async def ringing(world: World, order: Transfer = ORDER) -> CallSession:
    """A call whose phone has left for another number, which rings."""
    call, carrying = await talking(world)
    await call.transfer(order)
    world.socket.feed("stop")
    await carrying
    await settle()
    assert not call.finished.is_set()
    return call


async def comes_back(world: World, call: CallSession) -> tuple[FakeSocket, asyncio.Task[None]]:
    socket = FakeSocket(world.faults)
    assert await world.manager.claim(call.call_id) is call
    returned = asyncio.create_task(call.carry(socket))
    socket.feed("connected", "start")
    await settle()
    return socket, returned


def assert_over(world: World, call: CallSession, reason: EndReason) -> None:
    assert call.finished.is_set()
    assert call.record.end_reason is reason
    assert world.counted() == {reason.value: 1.0}
    assert world.store.waiting.entries == {}
    assert not world.manager.live()


@pytest.mark.parametrize("status", FAILED)
@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_a_phone_that_reached_nobody_comes_back_to_the_same_participant(
    direction: Direction, status: TransferStatus
) -> None:
    world = world_on(direction)
    call = await ringing(world)
    joins = [step for step in world.faults.steps if step.startswith(("room.join", "admin.ensure"))]
    assert world.room.attributes["connector.callStatus"] == "transferring"
    way = await world.transfers.over(call.call_id, 2, status, caller_left=False)
    assert way is not None
    assert (way.stream, way.say) == (2, "")
    # Told again, the same.
    assert await world.transfers.over(call.call_id, 2, status, caller_left=False) == way
    socket, returned = await comes_back(world, call)
    assert world.room.attributes["connector.callStatus"] == "active"
    assert joins == [step for step in world.faults.steps if step.startswith(("room.join", "admin.ensure"))]
    assert len(world.rooms) == 1
    socket.feed("audio")
    await settle()
    assert call.bridge.heard_frames == 1
    assert world.lifecycle.events[-3:] == ["call-transfer-initiated", "call-transferring", "call-transfer-failed"]
    assert world.lifecycle.told[-1][2] == {"to": TO, "reason": status.value}
    assert (call.record.transfer_to, call.record.transfer_status) == (TO, status.value)
    assert world.store.records[call.call_id].transfer_status == status.value
    socket.feed("stop")
    await returned
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_while_it_rings_no_audio_passes_and_no_timer_of_the_stream_runs() -> None:
    world = world_on()
    call = await ringing(world, Transfer(TO, 600))
    sent = list(world.socket.sent)
    await asyncio.sleep(LIMITS.media_timeout * 2)
    assert not call.is_ending
    assert world.socket.sent == sent
    with pytest.raises(FailedPrecondition, match="being transferred"):
        call.send_dtmf("1")
    with pytest.raises(FailedPrecondition, match="being transferred"):
        call.clear_audio()
    with pytest.raises(FailedPrecondition, match="transferred"):
        await call.switch_room("elsewhere")
    with pytest.raises(FailedPrecondition, match="transferred"):
        await call.transfer(ORDER)
    await call.transfers.progress(TransferStatus.ANSWERED)
    await call.finished.wait()
    assert_over(world, call, EndReason.TRANSFERRED)


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_the_call_ends_when_somebody_answers(direction: Direction) -> None:
    world = world_on(direction)
    call = await ringing(world)
    await world.transfers.progress(call.call_id, 2, TransferStatus.RINGING)
    assert call.record.transfer_status == "ringing"
    await world.transfers.progress(call.call_id, 2, TransferStatus.ANSWERED)
    await call.finished.wait()
    assert world.lifecycle.events[-6:] == [
        "call-transfer-initiated",
        "call-transferring",
        "call-transfer-ringing",
        "call-transfer-accepted",
        "call-transferred",
        "call-hangup",
    ]
    assert world.control is not None
    assert world.control.hung_up == []
    assert_over(world, call, EndReason.TRANSFERRED)
    # The talk ends, an hour later.
    assert await world.transfers.over(call.call_id, 2, TransferStatus.ANSWERED, caller_left=False) is None


@virtual_time
async def test_an_answer_that_was_not_told_is_told_with_the_end_of_the_talk() -> None:
    world = world_on()
    call = await ringing(world)
    assert await world.transfers.over(call.call_id, 2, TransferStatus.ANSWERED, caller_left=True) is None
    await call.finished.wait()
    assert_over(world, call, EndReason.TRANSFERRED)


@pytest.mark.parametrize("how", ["action", "status"])
@virtual_time
async def test_a_caller_who_hangs_up_while_it_rings_has_hung_up(how: str) -> None:
    world = world_on()
    call = await ringing(world)
    if how == "action":
        over = await world.transfers.over(call.call_id, 2, TransferStatus.CANCELED, caller_left=True)
        assert over is None
    else:
        await world.manager.carrier_said(call.call_id, "completed", 1)
    await call.finished.wait()
    assert world.control is not None
    assert world.control.hung_up == []
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_sentence_instead_of_the_return() -> None:
    world = world_on()
    call = await ringing(world, replace(ORDER, say="Nobody is there."))
    for _ in range(2):
        way = await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
        assert way is not None
        assert way.say == "Nobody is there."
    await call.finished.wait()
    assert world.control is not None
    assert world.control.hung_up == []
    assert_over(world, call, EndReason.TRANSFER_FAILED)


@virtual_time
async def test_a_phone_that_does_not_come_back_is_waited_for_in_bounded_time_and_hung_up() -> None:
    world = world_on()
    call = await ringing(world)
    began = asyncio.get_running_loop().time()
    assert await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    await call.finished.wait()
    assert asyncio.get_running_loop().time() - began <= ORDER.timeout + MARGIN + LIMITS.answer_grace
    assert world.control is not None
    assert world.control.hung_up == [CARRIER_CALL]
    assert_over(world, call, EndReason.CONNECT_TIMEOUT)


@pytest.mark.parametrize(
    ("lives", "reason"),
    [(True, EndReason.TRANSFERRED), (False, EndReason.CARRIER_HANGUP), (None, EndReason.TRANSFERRED)],
)
@virtual_time
async def test_when_nobody_tells_an_outcome_the_carrier_is_asked(lives: bool | None, reason: EndReason) -> None:
    world = world_on()
    assert world.control is not None
    call = await ringing(world)
    if lives is None:
        world.faults.planned["control.is_live"] = Unavailable("no")
    else:
        world.control.lives = lives
    began = asyncio.get_running_loop().time()
    await call.finished.wait()
    assert asyncio.get_running_loop().time() - began == pytest.approx(ORDER.timeout + MARGIN, abs=1)
    assert "not report" in call.record.end_detail
    assert world.control.hung_up == []
    assert_over(world, call, reason)


@virtual_time
async def test_a_carrier_that_does_not_tell_outcomes_at_all() -> None:
    world = world_on()
    assert world.control is not None
    world.control.follows = False
    call, carrying = await talking(world)
    await call.transfer(ORDER)
    await carrying
    await call.finished.wait()
    assert call.record.transfer_status == "unknown"
    assert_over(world, call, EndReason.TRANSFERRED)


@virtual_time
async def test_a_carrier_that_leaves_the_stream_open_does_not_keep_it() -> None:
    world = world_on()
    call, carrying = await talking(world)
    await call.transfer(Transfer(TO, 600))
    world.socket.feed("audio")
    await settle()
    assert call.bridge.heard_frames == 0
    began = asyncio.get_running_loop().time()
    await carrying
    assert asyncio.get_running_loop().time() - began == pytest.approx(STREAM_GRACE, abs=1)
    assert not call.is_ending
    call.end(EndReason.ENDED_BY_API)
    await call.finished.wait()


@pytest.mark.parametrize("reason", [EndReason.ENDED_BY_API, EndReason.PARTICIPANT_REMOVED, EndReason.MAX_DURATION])
@virtual_time
async def test_an_end_while_it_rings_hangs_the_phone_up(reason: EndReason) -> None:
    world = world_on()
    call = await ringing(world)
    call.end(reason)
    await call.finished.wait()
    assert world.control is not None
    assert world.control.hung_up == [CARRIER_CALL]
    assert await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False) is None
    assert_over(world, call, reason)


@pytest.mark.parametrize("when", ["before the carrier agrees", "while it rings"])
@virtual_time
async def test_a_room_that_ends_meanwhile_is_joined_again_when_the_phone_comes_back(when: str) -> None:
    world = world_on()
    world.faults.delays["control.transfer"] = 1.0
    call, carrying = await talking(world)
    transferring = asyncio.create_task(call.transfer(ORDER))
    await asyncio.sleep(0.5)
    if when == "before the carrier agrees":
        world.room.listener.room_ended(EndReason.ROOM_DELETED, "")
    await transferring
    world.socket.feed("stop")
    await carrying
    if when == "while it rings":
        world.room.listener.room_ended(EndReason.ROOM_DELETED, "")
    await settle()
    assert not call.is_ending
    await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    socket, returned = await comes_back(world, call)
    assert len(world.rooms) == 2
    assert (world.rooms[0].left, world.rooms[1].listening) == (1, True)
    assert world.faults.steps.count("admin.keep_room") == 1
    assert not call.is_ending
    socket.feed("stop")
    await returned
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_room_that_ends_while_it_rings_does_not_harm_the_transfer() -> None:
    world = world_on()
    call = await ringing(world)
    world.room.listener.room_ended(EndReason.ROOM_DELETED, "")
    await call.transfers.progress(TransferStatus.ANSWERED)
    await call.finished.wait()
    assert world.control is not None
    assert world.control.hung_up == []
    assert_over(world, call, EndReason.TRANSFERRED)


# The carrier's answer to the request


@pytest.mark.parametrize("last_word", ["stop", "closed", "lost"])
@virtual_time
async def test_a_stream_that_ends_before_the_carrier_has_agreed_is_the_transfers_doing(last_word: str) -> None:
    world = world_on()
    world.faults.delays["control.transfer"] = 1.0
    call, carrying = await talking(world)
    transferring = asyncio.create_task(call.transfer(ORDER))
    await asyncio.sleep(0.5)
    if last_word == "stop":
        world.socket.feed("stop")
    else:
        world.socket.hang_up(cleanly=last_word == "closed")
    await carrying
    await transferring
    assert not call.is_ending
    await call.transfers.progress(TransferStatus.ANSWERED)
    await call.finished.wait()
    assert_over(world, call, EndReason.TRANSFERRED)


@virtual_time
async def test_an_outcome_that_overtakes_the_carriers_answer() -> None:
    world = world_on()
    world.faults.delays["control.transfer"] = 1.0
    call, carrying = await talking(world)
    transferring = asyncio.create_task(call.transfer(ORDER))
    await asyncio.sleep(0.5)
    assert await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    await carrying
    socket, returned = await comes_back(world, call)
    transfer: CallTransfer = await transferring
    assert transfer.failed
    socket.feed("audio")
    await settle()
    assert call.bridge.heard_frames == 1
    socket.feed("stop")
    await returned
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@pytest.mark.parametrize("error", [NotFound("ended"), FailedPrecondition("no"), Unavailable("gone")])
@virtual_time
async def test_what_the_carrier_refuses_leaves_the_call_as_it_is(error: ConnectorError) -> None:
    world = world_on()
    world.faults.planned["control.transfer"] = error
    call, carrying = await talking(world)
    with pytest.raises(type(error)):
        await call.transfer(ORDER)
    await settle()
    assert world.store.waiting.entries == {}
    world.socket.feed("audio")
    await settle()
    assert call.bridge.heard_frames == 1
    assert world.lifecycle.events[-2:] == ["call-transfer-initiated", "call-transfer-failed"]
    # And it can be tried again.
    del world.faults.planned["control.transfer"]
    await call.transfer(ORDER)
    call.end(EndReason.ENDED_BY_API)
    await carrying
    await call.finished.wait()
    assert_over(world, call, EndReason.ENDED_BY_API)


@virtual_time
async def test_a_transfer_that_is_refused_while_the_person_hangs_up_is_a_hang_up() -> None:
    world = world_on()
    assert world.control is not None
    world.control.lives = False
    world.faults.delays["control.transfer"] = 1.0
    world.faults.planned["control.transfer"] = Unavailable("no")
    call, carrying = await talking(world)
    transferring = asyncio.create_task(call.transfer(ORDER))
    await asyncio.sleep(0.5)
    world.socket.feed("stop")
    await carrying
    with pytest.raises(Unavailable):
        await transferring
    await call.finished.wait()
    assert "call-transferred" not in world.lifecycle.events
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_transfer_whose_answer_was_lost_is_known_by_the_end_of_the_stream() -> None:
    world = world_on()
    world.faults.planned["control.transfer"] = Unavailable("timeout")
    call, carrying = await talking(world)
    transferring = asyncio.create_task(call.transfer(ORDER))
    await asyncio.sleep(2)
    world.socket.feed("stop")
    await transferring
    await carrying
    assert not call.is_ending
    await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    socket, returned = await comes_back(world, call)
    socket.feed("stop")
    await returned
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_without_the_store_there_is_no_way_back_and_so_no_transfer() -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.faults.planned["waiting.insert"] = StoreError("gone")
    with pytest.raises(StoreError):
        await call.transfer(ORDER)
    assert world.control is not None
    assert world.control.transferred == []
    world.socket.feed("stop")
    await carrying
    assert_over(world, call, EndReason.CARRIER_HANGUP)


# The returning stream


@virtual_time
async def test_only_one_stream_comes_back_and_the_former_one_has_no_say() -> None:
    world = world_on()
    call = await ringing(world)
    await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    socket, returned = await comes_back(world, call)
    with pytest.raises(TokenUsed):
        await world.manager.claim(call.call_id)
    world.socket.feed("garbage", "stop")
    await settle()
    assert not call.is_ending
    socket.feed("stop")
    await returned
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_transferred_twice_in_one_call() -> None:
    world = world_on()
    call = await ringing(world)
    await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    socket, returned = await comes_back(world, call)
    await call.transfer(Transfer("+15550002222", 30))
    socket.feed("stop")
    await returned
    # What is told late of the first one changes nothing.
    assert await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False) is None
    await world.transfers.progress(call.call_id, 2, TransferStatus.ANSWERED)
    assert not call.is_ending
    assert (await world.manager.expected(call.call_id)).stream == 3
    await world.transfers.progress(call.call_id, 3, TransferStatus.ANSWERED)
    await call.finished.wait()
    assert (call.record.transfer_to, call.record.transfer_status) == ("+15550002222", "answered")
    assert_over(world, call, EndReason.TRANSFERRED)


# Other processes


def neighbour(world: World, **limits: float) -> World:
    faults = Faults()
    return World(
        world.direction,
        replace(LIMITS, **limits),
        faults=faults,
        store=world.store,
        control=FakeControl(faults),
        owner="neighbour",
    )


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_the_outcome_may_reach_another_process_and_the_stream_the_first(direction: Direction) -> None:
    world = world_on(direction)
    other = neighbour(world)
    call = await ringing(world)
    way = await other.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    assert way is not None
    assert way == await other.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    socket, returned = await comes_back(world, call)
    assert call.record.transfer_status == "busy"
    assert world.lifecycle.told[-1][2] == {"to": TO, "reason": "busy"}
    socket.feed("stop")
    await returned
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@pytest.mark.parametrize("direction", Direction)
@virtual_time
async def test_the_outcome_and_the_stream_may_both_reach_another_process(direction: Direction) -> None:
    world = world_on(direction)
    other = neighbour(world)
    call = await ringing(world)
    assert await other.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    theirs = await other.manager.claim(call.call_id)
    carrying = asyncio.create_task(theirs.carry(other.socket))
    other.socket.feed("connected", "start")
    await settle()
    # LiveKit puts the former session of the identity out.
    world.room.listener.room_ended(EndReason.DUPLICATE_IDENTITY, "")
    await call.finished.wait()
    assert world.counted() == {}
    assert world.control is not None
    assert world.control.hung_up == []
    assert other.faults.in_livekit[:4] == ["admin.keep_room", "admin.participant", "room.join_visible", "room.publish"]
    assert (theirs.state, theirs.record.started_at) == (CallState.ACTIVE, call.record.started_at)
    assert theirs.record.transfer_status == "busy"
    other.socket.feed("audio")
    await settle()
    assert theirs.bridge.heard_frames == 1
    other.socket.feed("stop")
    await carrying
    assert_over(other, theirs, EndReason.CARRIER_HANGUP)


@pytest.mark.parametrize(
    ("what", "reason"), [("answered", EndReason.TRANSFERRED), ("left", EndReason.CARRIER_HANGUP), ("say", None)]
)
@virtual_time
async def test_another_process_ends_the_call_of_which_it_is_told(what: str, reason: EndReason | None) -> None:
    world = world_on()
    other = neighbour(world)
    call = await ringing(world, replace(ORDER, say="Sorry." if what == "say" else ""))
    if what == "answered":
        await other.transfers.progress(call.call_id, 2, TransferStatus.ANSWERED)
    else:
        left = what == "left"
        way = await other.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=left)
        assert (way.say if way else "") == ("" if left else "Sorry.")
    (theirs,) = other.manager.live()
    await theirs.finished.wait()
    assert other.admin.removed == [("lobby", "caller")]
    world.room.listener.room_ended(EndReason.PARTICIPANT_REMOVED, "")
    await call.finished.wait()
    assert (world.counted(), world.control.hung_up if world.control else None) == ({}, [])
    assert other.control is not None
    assert other.control.hung_up == []
    assert_over(other, theirs, reason or EndReason.TRANSFER_FAILED)


@virtual_time
async def test_a_process_that_stops_meanwhile_leaves_the_phone_to_the_others() -> None:
    world = world_on()
    other = neighbour(world)
    call = await ringing(world)
    await world.manager.drain(0)
    assert call.finished.is_set()
    assert world.counted() == {}
    assert world.control is not None
    assert world.control.hung_up == []
    assert await other.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    theirs = await other.manager.claim(call.call_id)
    carrying = asyncio.create_task(theirs.carry(other.socket))
    other.socket.feed("connected", "start", "audio")
    await settle()
    assert (theirs.call_id, theirs.state) == (call.call_id, CallState.ACTIVE)
    other.socket.feed("stop")
    await carrying
    assert_over(other, theirs, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_transfer_whose_process_died_ends_when_its_time_is_over() -> None:
    world = world_on()
    other = neighbour(world)
    call = await ringing(world)
    entry = world.store.waiting.entries[call.call_id]
    world.store.waiting.entries[call.call_id] = replace(entry, expires_at=1.0)
    await other.manager.take_overs.sweep()
    await settle()
    record = world.store.records[call.call_id]
    assert (record.end_reason, record.transfer_status) == (EndReason.TRANSFERRED, "unknown")
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()


# Told once, whoever is told


def failures(*worlds: World) -> list[dict[str, str]]:
    return [
        details
        for world in worlds
        for event, _, details in world.lifecycle.told
        if event is LifecycleEvent.TRANSFER_FAILED
    ]


@pytest.mark.parametrize("told_at", ["the first", "the other"])
@virtual_time
async def test_an_outcome_is_told_once_when_the_stream_reaches_another_process(told_at: str) -> None:
    world = world_on()
    other = neighbour(world)
    call = await ringing(world)
    told = world if told_at == "the first" else other
    assert await told.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    await settle()
    theirs = await other.manager.claim(call.call_id)
    carrying = asyncio.create_task(theirs.carry(other.socket))
    other.socket.feed("connected", "start")
    await settle()
    world.room.listener.room_ended(EndReason.DUPLICATE_IDENTITY, "")
    await call.finished.wait()
    assert failures(world, other) == [{"to": TO, "reason": "busy"}]
    assert theirs.record.transfer_status == "busy"
    other.socket.feed("stop")
    await carrying


@virtual_time
async def test_an_outcome_stands_when_the_process_that_was_told_dies() -> None:
    world = world_on()
    other = neighbour(world)
    call = await ringing(world)
    assert await world.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    await settle()
    entry = world.store.waiting.entries[call.call_id]
    assert entry.transfer is not None
    assert entry.transfer.status is TransferStatus.BUSY
    # The phone does not come back either.
    world.store.waiting.entries[call.call_id] = replace(entry, expires_at=1.0)
    await other.manager.take_overs.sweep()
    await settle()
    record = world.store.records[call.call_id]
    assert (record.end_reason, record.transfer_status) == (EndReason.CONNECT_TIMEOUT, "busy")
    assert len(failures(world, other)) == 1
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()


@pytest.mark.parametrize("how", ["progress", "action", "both"])
@virtual_time
async def test_an_answer_that_two_processes_are_told_is_told_once(how: str) -> None:
    world = world_on()
    other = neighbour(world)
    call = await ringing(world)

    async def tell(at: World, what: str) -> None:
        if what == "progress":
            await at.transfers.progress(call.call_id, 2, TransferStatus.ANSWERED)
        else:
            await at.transfers.over(call.call_id, 2, TransferStatus.ANSWERED, caller_left=False)

    first, second = ("progress", "action") if how == "both" else (how, how)
    await asyncio.gather(tell(other, first), tell(world, second), tell(world, first))
    await asyncio.wait_for(call.finished.wait(), 60)
    await settle()
    events = [event for each in (world, other) for event in each.lifecycle.events]
    assert [events.count(name) for name in ("call-transfer-accepted", "call-transferred", "call-hangup")] == [1, 1, 1]
    assert world.store.records[call.call_id].end_reason is EndReason.TRANSFERRED
    assert (world.control.hung_up, other.control.hung_up) == ([], []) if world.control and other.control else False


@virtual_time
async def test_a_process_that_has_lost_the_call_tells_nothing_when_its_time_is_over() -> None:
    world = world_on()
    other = neighbour(world, media_timeout=3600.0)
    call = await ringing(world)
    # Nobody tells this process that the other has taken the call: its room is gone.
    world.room.listener.room_ended(EndReason.ROOM_DELETED, "")
    assert await other.transfers.over(call.call_id, 2, TransferStatus.BUSY, caller_left=False)
    theirs = await other.manager.claim(call.call_id)
    carrying = asyncio.create_task(theirs.carry(other.socket))
    other.socket.feed("connected", "start")
    await call.finished.wait()
    assert (failures(world), world.counted()) == ([], {})
    assert "call-transferred" not in world.lifecycle.events
    assert not theirs.is_ending
    other.socket.feed("stop")
    await carrying
    assert_over(other, theirs, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_an_outcome_that_comes_while_the_carrier_is_asked_is_the_one_that_counts() -> None:
    world = world_on()
    world.faults.delays["control.is_live"] = 2.0
    call = await ringing(world)
    await asyncio.sleep(ORDER.timeout + MARGIN + 1.0)
    assert await world.transfers.over(call.call_id, 2, TransferStatus.NO_ANSWER, caller_left=False)
    await asyncio.sleep(5)
    socket, returned = await comes_back(world, call)
    assert call.record.transfer_status == "no-answer"
    socket.feed("stop")
    await returned
    assert_over(world, call, EndReason.CARRIER_HANGUP)


@pytest.mark.parametrize("refuses", [True, False])
@virtual_time
async def test_a_process_that_stops_while_the_carrier_is_asked_knows_first_where_the_phone_is(refuses: bool) -> None:
    world = world_on()
    assert world.control is not None
    world.control.ends_with_stream = False
    world.faults.delays["control.transfer"] = 1.0
    if refuses:
        world.faults.planned["control.transfer"] = FailedPrecondition("no such number")
    call, carrying = await talking(world)
    transferring = asyncio.create_task(call.transfer(ORDER))
    await asyncio.sleep(0.5)
    call.end(EndReason.SHUTDOWN)
    await carrying
    with pytest.raises(FailedPrecondition):
        await transferring
    if refuses:
        # It stays at the carrier, without a stream: nobody else would hang it up.
        assert world.control.hung_up == [CARRIER_CALL]
        assert_over(world, call, EndReason.SHUTDOWN)
    else:
        assert world.control.hung_up == []
        assert list(world.store.waiting.entries) == [call.call_id]
    # A call that goes on without its process is not over.
    assert world.store.records[call.call_id].end_reason is (EndReason.SHUTDOWN if refuses else None)


@virtual_time
async def test_what_could_not_be_begun_leaves_no_trace_in_the_record() -> None:
    world = world_on()
    call, carrying = await talking(world)
    world.faults.planned["waiting.insert"] = StoreError("away")
    with pytest.raises(StoreError):
        await call.transfer(ORDER)
    assert (call.record.transfer_to, call.record.transfer_status) == ("", "")
    world.socket.feed("stop")
    await carrying
