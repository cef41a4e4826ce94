"""At a carrier that holds the phone when its stream is gone, or never came: somebody must hang it up, and who."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from connector.call.registry.hang_ups import RETURN_GRACE
from connector.call.session.answer import CANNOT_HEAR
from connector.call.session.call_session import CallSession
from connector.errors import ConnectorError, CredentialsRefused, NotFound, Unavailable
from connector.model.call import CarrierCall, Direction, Transfer, TransferStatus
from connector.model.end_reason import EndReason
from tests.unit.call.fakes import CARRIER_CALL, FakeControl, Faults, World
from tests.unit.call.virtual_time import virtual_time

STREAMED = CarrierCall(CARRIER_CALL, "AC1", CARRIER_CALL)


class Control(FakeControl):
    def __init__(self, faults: Faults, ends_with_stream: bool) -> None:
        super().__init__(faults)
        self.ends_with_stream = ends_with_stream
        self.asked: list[CarrierCall] = []

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        await super().hang_up(call, say)
        self.asked.append(call)


def holding(direction: Direction = Direction.INBOUND, ends_with_stream: bool = False) -> tuple[World, Control]:
    faults = Faults()
    control = Control(faults, ends_with_stream)
    return World(direction, faults=faults, control=control), control


async def streaming(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "start")
    await asyncio.wait_for(call.settled.wait(), 5)
    return call, carrying


@pytest.mark.parametrize("direction", Direction)
@pytest.mark.parametrize(
    "reason", [EndReason.ROOM_DELETED, EndReason.PARTICIPANT_REMOVED, EndReason.MAX_DURATION, EndReason.ENDED_BY_API]
)
@virtual_time
async def test_whoever_ends_the_call_the_phone_is_hung_up_by_all_its_names(
    direction: Direction, reason: EndReason
) -> None:
    world, control = holding(direction)
    call, carrying = await streaming(world)
    call.end(reason)
    await carrying
    assert control.asked == [STREAMED]
    world.assert_ended_once(call, reason)


@pytest.mark.parametrize("cleanly", [True, False])
@virtual_time
async def test_a_stream_that_the_carrier_ends_does_not_leave_the_phone_behind(cleanly: bool) -> None:
    world, control = holding()
    await world.hang_ups.start()
    call, carrying = await streaming(world)
    world.socket.hang_up(cleanly)
    await carrying
    # It may come back with the phone in a moment.
    assert control.asked == []
    world.assert_ended_once(call, EndReason.CARRIER_CLOSED if cleanly else EndReason.CARRIER_LOST)
    await asyncio.sleep(RETURN_GRACE + 0.1)
    assert control.asked == [STREAMED]
    await world.hang_ups.stop()


@pytest.mark.parametrize("comes", ["before the close is seen", "after it"])
@pytest.mark.parametrize("at", ["this process", "another one"])
@virtual_time
async def test_a_phone_with_which_the_carrier_comes_back_is_never_hung_up(comes: str, at: str) -> None:
    world, control = holding()
    other = World(Direction.INBOUND, owner="other", store=world.store, control=control)
    asked = world if at == "this process" else other
    await world.hang_ups.start()
    call, carrying = await streaming(world)
    if comes == "before the close is seen":
        await asked.manager.phone_is_back(call.call_id)
    world.socket.hang_up(cleanly=True)
    await carrying
    if comes == "after it":
        await asyncio.sleep(RETURN_GRACE - 0.1)
        await asked.manager.phone_is_back(call.call_id)
    await asyncio.sleep(3600)
    assert control.asked == []
    await world.hang_ups.stop()


@virtual_time
async def test_a_phone_that_has_stayed_is_hung_up_as_ever() -> None:
    world, control = holding()
    call, carrying = await streaming(world)
    await world.manager.phone_is_back(call.call_id)
    await world.manager.phone_has_stayed(call.call_id)
    call.end(EndReason.ROOM_DELETED)
    await carrying
    assert control.asked == [STREAMED]


@virtual_time
async def test_who_has_hung_up_is_not_hung_up() -> None:
    world, control = holding()
    call, carrying = await streaming(world)
    world.socket.feed("stop")
    await carrying
    assert control.asked == []
    world.assert_ended_once(call, EndReason.CARRIER_HANGUP)


@virtual_time
async def test_a_room_that_cannot_be_joined_leaves_nobody_on_the_line() -> None:
    world, control = holding()
    world.faults.planned["room.publish"] = ZeroDivisionError("a bug")
    call = world.session()
    await call.open()
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("start")
    await carrying
    assert control.asked == [STREAMED]


async def opened(world: World) -> tuple[CallSession, asyncio.Task[None]]:
    """The carrier has fetched its document and opened the socket, and has said nothing yet."""
    call = world.session()
    await call.open()
    await call.fetched("CA7", "", "")
    await call.claim()
    return call, asyncio.create_task(call.carry(world.socket))


@pytest.mark.parametrize("cleanly", [True, False])
@virtual_time
async def test_a_socket_that_is_closed_before_the_stream_starts_leaves_nobody_on_the_line(cleanly: bool) -> None:
    world, control = holding()
    await world.hang_ups.start()
    _, carrying = await opened(world)
    world.socket.hang_up(cleanly)
    await carrying
    await asyncio.sleep(RETURN_GRACE + 0.1)
    assert control.asked == [CarrierCall("CA7")]
    await world.hang_ups.stop()


@pytest.mark.parametrize("said", ["garbage", "bug", "stop"])
@virtual_time
async def test_a_stream_that_starts_wrongly_leaves_nobody_on_the_line(said: str) -> None:
    world, control = holding()
    _, carrying = await opened(world)
    world.socket.feed(said)
    await carrying
    # A `stop` is the carrier's word that the phone is gone.
    assert control.asked == ([] if said == "stop" else [CarrierCall("CA7")])


@virtual_time
async def test_a_stream_that_says_nothing_leaves_nobody_on_the_line() -> None:
    world, control = holding()
    call, carrying = await opened(world)
    await carrying
    assert control.asked == [CarrierCall("CA7")]
    world.assert_ended_once(call, EndReason.MEDIA_TIMEOUT)


@virtual_time
async def test_a_stream_of_another_call_leaves_nobody_on_the_line() -> None:
    world, control = holding()
    call, carrying = await opened(world)
    world.socket.feed("start CA8")
    await carrying
    assert control.asked == [CarrierCall("CA7")]
    world.assert_ended_once(call, EndReason.CALL_MISMATCH)


@pytest.mark.parametrize("ends_with_stream", [False, True])
@pytest.mark.parametrize("fetched", [False, True])
@virtual_time
async def test_audio_that_cannot_be_decoded_is_named_and_the_phone_told_and_hung_up(
    ends_with_stream: bool, fetched: bool
) -> None:
    world, control = holding(ends_with_stream=ends_with_stream)
    call = world.session()
    await call.open()
    if fetched:
        await call.fetched(CARRIER_CALL, "", "")
    await call.claim()
    carrying = asyncio.create_task(call.carry(world.socket))
    world.socket.feed("connected", "unknown", "audio")
    await carrying
    assert (control.asked, control.said) == ([STREAMED], [CANNOT_HEAR])
    (warning,) = [entry for entry in world.log.entries if entry["log_level"] == "warning"]
    assert warning["format"] == "G722/8000"
    assert "G722/8000" in call.record.end_detail
    assert world.socket.closed_with == [(1008, "protocol_error")]
    world.assert_ended_once(call, EndReason.PROTOCOL_ERROR)


@pytest.mark.parametrize("reason", [EndReason.ROOM_DELETED, EndReason.LIVEKIT_LOST, EndReason.SHUTDOWN])
@virtual_time
async def test_whatever_ends_the_wait_for_a_stream_leaves_nobody_on_the_line(reason: EndReason) -> None:
    world, control = holding()
    call = world.session()
    await call.open()
    await call.fetched("CA7", "", "")
    call.end(reason)
    await call.finished.wait()
    assert control.asked == [CarrierCall("CA7")]


@virtual_time
async def test_a_call_that_could_not_be_opened_hears_its_sentence_from_the_document() -> None:
    """To hang up over the REST API would cut it short."""
    world, control = holding()
    world.faults.planned["admin.check"] = Unavailable("LiveKit is away")
    request = replace(world.request(), carrier_call_id="CA7")
    call = CallSession(request, world.parts, world.finished.append)
    with pytest.raises(Unavailable):
        await call.open()
    await call.finished.wait()
    assert control.asked == []


@virtual_time
async def test_a_call_whose_process_died_while_it_waited_leaves_nobody_on_the_line() -> None:
    world, control = holding()
    call = await world.manager.create(world.request())
    await call.fetched("CA7", "", "")
    other = World(Direction.INBOUND, owner="other", store=world.store, control=control)
    survivor = await other.manager.end_waiting("call_1", EndReason.INTERRUPTED)
    assert survivor is not None
    await survivor.finished.wait()
    assert control.asked == [CarrierCall("CA7")]
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()
    assert control.asked == [CarrierCall("CA7")]


@virtual_time
async def test_a_hang_up_that_fails_is_tried_again_when_the_call_is_over() -> None:
    world, control = holding()
    world.faults.planned["control.hang_up"] = Unavailable("503")
    await world.hang_ups.start()
    call, carrying = await streaming(world)
    began = asyncio.get_running_loop().time()
    call.end(EndReason.ROOM_DELETED)
    await carrying
    assert asyncio.get_running_loop().time() == began
    world.assert_ended_once(call, EndReason.ROOM_DELETED)
    del world.faults.planned["control.hang_up"]
    await asyncio.sleep(2)
    assert control.asked == [STREAMED]
    await world.hang_ups.stop()


@virtual_time
async def test_a_stream_that_never_comes_leaves_nobody_on_the_line() -> None:
    world, control = holding()
    call = world.session()
    await call.open()
    await call.fetched("CA7", "", "")
    await call.finished.wait()
    assert control.asked == [CarrierCall("CA7")]
    world.assert_ended_once(call, EndReason.CONNECT_TIMEOUT)


@virtual_time
async def test_a_call_of_which_the_carrier_has_said_nothing_cannot_be_hung_up() -> None:
    world, control = holding()
    call = world.session()
    await call.open()
    await call.finished.wait()
    assert control.asked == []


@pytest.mark.parametrize("reason", [EndReason.ROOM_DELETED, EndReason.MAX_DURATION])
@virtual_time
async def test_where_the_end_of_the_stream_ends_the_call_nothing_is_asked(reason: EndReason) -> None:
    world, control = holding(ends_with_stream=True)
    call, carrying = await streaming(world)
    call.end(reason)
    await carrying
    assert control.asked == []


@virtual_time
async def test_a_stream_that_outlives_a_transfer_is_closed_at_once_and_the_phone_is_left_alone() -> None:
    world, control = holding()
    control.stream_outlives_transfer = True
    call, carrying = await streaming(world)
    began = asyncio.get_running_loop().time()
    await call.transfer(Transfer("+15550009999", 30))
    await carrying
    assert asyncio.get_running_loop().time() - began < 1
    assert world.socket.closed_with == [(1000, "transferring")]
    await call.transfers.progress(TransferStatus.ANSWERED)
    await call.finished.wait()
    assert (control.transferred, control.asked) == ([(CARRIER_CALL, "+15550009999")], [])
    world.assert_ended_once(call, EndReason.TRANSFERRED)


@pytest.mark.parametrize("ends_with_stream", [False, True])
@virtual_time
async def test_a_sentence_is_given_to_the_carrier_with_the_hang_up_before_the_socket_closes(
    ends_with_stream: bool,
) -> None:
    world, control = holding(ends_with_stream=ends_with_stream)
    call, carrying = await streaming(world)
    call.end(EndReason.MAX_DURATION, say="Goodbye.")
    await carrying
    assert (control.asked, control.said) == ([STREAMED], ["Goodbye."])
    world.assert_ended_once(call, EndReason.MAX_DURATION)


@virtual_time
async def test_who_has_hung_up_is_told_nothing() -> None:
    world, control = holding()
    call, carrying = await streaming(world)
    call.end(EndReason.CARRIER_HANGUP, say="Goodbye.")
    await carrying
    assert (control.asked, control.said) == ([], [])


@virtual_time
async def test_without_credentials_the_stream_is_closed_and_the_missing_setting_named() -> None:
    world = World(Direction.INBOUND)
    call, carrying = await streaming(world)
    call.end(EndReason.MAX_DURATION, say="Goodbye.")
    await carrying
    (warning,) = [entry for entry in world.log.entries if entry["log_level"] == "warning"]
    assert warning["set"] == "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
    world.assert_ended_once(call, EndReason.MAX_DURATION)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (NotFound("account AC1 has no call"), "the phone was not hung up: account AC1 has no call"),
        (CredentialsRefused("401"), "the phone was not hung up: 401"),
        (Unavailable("503"), ""),
    ],
)
@virtual_time
async def test_an_account_that_is_not_the_calls_is_told_in_its_record(error: ConnectorError, told: str) -> None:
    world, control = holding(ends_with_stream=True)
    world.faults.planned["control.hang_up"] = error
    call, carrying = await streaming(world)
    call.end(EndReason.ENDED_BY_API)
    await carrying
    assert control.asked == []
    world.assert_ended_once(call, EndReason.ENDED_BY_API)
    assert (call.record.end_detail, world.store.records[call.call_id].end_detail) == (told, told)
