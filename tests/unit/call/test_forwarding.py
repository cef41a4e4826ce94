"""Commands that arrive at another process than the one that holds the call, on virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from connector.call.registry.control import CallControl, TransferWish
from connector.call.registry.dialled import OWNER, DialledCalls
from connector.call.registry.forwarding import END_PATIENCE, Commands
from connector.call.registry.reports import PATIENCE, CarrierReports
from connector.call.session.call_session import CallSession
from connector.errors import ConnectorError, DeadlineExceeded, FailedPrecondition, NotFound, Unavailable
from connector.model.call import AgentDispatch, CallRecord, CallState, TransferStatus
from connector.model.end_reason import EndReason
from connector.peers.commands import CallCommand
from connector.peers.failures import AnswerLost, NoPeerAddress, NotHeld, PeerError, PeerGone, PeerUnreachable
from connector.storage.base import StoreError
from tests.unit.call.fakes import FakeControl, FakeSocket, Faults, World
from tests.unit.call.virtual_time import virtual_time

Control = Callable[[CallControl], Awaitable[Any]]
REQUESTS: dict[str, Control] = {
    "SendDtmf": lambda control: control.send_dtmf("call_1", "12"),
    "ClearAudio": lambda control: control.clear_audio("call_1"),
    "SwitchRoom": lambda control: control.switch_room("call_1", "sales", [AgentDispatch("helper")]),
    "TransferCall": lambda control: control.transfer("call_1", TransferWish("+15550001111")),
    "EndCall": lambda control: control.end("call_1"),
}
EVERY = pytest.mark.parametrize("request_", REQUESTS.values(), ids=REQUESTS)
STEERS = {name: request for name, request in REQUESTS.items() if name != "EndCall"}


class Peers:
    """The other processes: their commands by name, or the error that asking one gives."""

    def __init__(self) -> None:
        self.processes: dict[str, Commands] = {}
        self.errors: dict[str, ConnectorError] = {}
        self.hangs = False
        self.asked: list[tuple[str, str]] = []
        self.commands: list[CallCommand] = []
        self.before: dict[str, Callable[[], None]] = {}
        """Things that happen before this process answers."""

    async def ask(self, owner: str, command: CallCommand) -> CallRecord:
        self.asked.append((owner, command.name))
        if self.hangs:
            await asyncio.Event().wait()
        self.commands.append(command)
        if owner in self.before:
            self.before[owner]()
        if owner in self.errors:
            raise self.errors[owner]
        return await self.processes[owner].carry_out(command)

    async def is_reachable(self, owner: str) -> bool:
        return owner not in self.errors

    async def takes_calls(self, owner: str) -> bool:
        return owner not in self.errors


class Scene:
    """`holder` holds the call, `asked` gets the requests; both have one store."""

    def __init__(self, carrier: FakeControl | None = None) -> None:
        self.holder = World(owner="holder", control=carrier)
        self.asked = World(owner="asked", store=self.holder.store)
        self.peers = Peers()
        self.peers.processes = {world.owner: Commands(world.manager.held) for world in (self.holder, self.asked)}
        self.control = CallControl(
            self.asked.manager, self.asked.admin, DialledCalls(self.asked.parts), self.peers, "asked"
        )

        self.reports = CarrierReports(self.asked.manager, self.control, self.asked.transfers)

    @property
    def record(self) -> CallRecord:
        return self.holder.store.records["call_1"]

    def becomes(self, **changes: Any) -> Callable[[], None]:
        """Something that happens to the record."""

        def happen() -> None:
            self.holder.store.records["call_1"] = replace(self.record, **changes)

        return happen

    async def active(self) -> CallSession:
        call = await self.holder.manager.create(self.holder.request())
        await self.holder.manager.claim("call_1")
        self.holder.socket = FakeSocket(self.holder.faults)
        self.carrying = asyncio.create_task(call.carry(self.holder.socket))
        self.holder.socket.feed("connected", "start")
        while call.state is not CallState.ACTIVE:  # noqa: ASYNC110 - virtual time
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        return call


@virtual_time
async def test_each_request_reaches_the_call_wherever_it_is() -> None:
    scene = Scene()
    call = await scene.active()
    await scene.control.send_dtmf("call_1", "12")
    await scene.control.clear_audio("call_1")
    moved = await scene.control.switch_room("call_1", "sales")
    assert (moved.room, call.record.room) == ("sales", "sales")
    ended = await scene.control.end("call_1")
    assert (ended, ended.end_reason) == (call.record, EndReason.ENDED_BY_API)
    assert scene.holder.counted() == {"ended_by_api": 1.0}
    assert scene.asked.counted() == {}
    assert scene.asked.admin.removed == [], "nobody was put out of the room to end the call"
    await scene.carrying


@EVERY
@virtual_time
async def test_a_call_that_only_waits_answers_as_its_owner_does(request_: Control) -> None:
    scene = Scene()
    call = await scene.holder.manager.create(scene.holder.request())
    if request_ is REQUESTS["EndCall"]:
        assert (await request_(scene.control)).end_reason is EndReason.ENDED_BY_API
        assert scene.peers.asked == [], "taken over and ended here: that needs no owner"
        scene.holder.room.listener.room_ended(EndReason.DUPLICATE_IDENTITY, "")
    else:
        with pytest.raises(FailedPrecondition, match="the call is ringing, not active"):
            await request_(scene.control)
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()


@EVERY
@virtual_time
async def test_an_owner_that_is_gone_makes_it_unavailable_and_nothing_else(request_: Control) -> None:
    scene = Scene()
    call = await scene.active()
    for error in (PeerGone("gone"), PeerUnreachable("no connection"), DeadlineExceeded("slow")):
        scene.peers.errors["holder"] = error
        with pytest.raises(type(error)):
            await request_(scene.control)
    assert len(scene.peers.asked) == 3
    assert scene.asked.admin.removed == []
    assert not call.is_ending
    scene.holder.manager.end_all()
    await scene.carrying


@EVERY
@virtual_time
async def test_a_call_that_moves_meanwhile_is_asked_for_once_more(request_: Control) -> None:
    scene = Scene()
    call = await scene.active()
    scene.becomes(owner="former")()
    scene.peers.errors["former"] = NotHeld("moved")
    scene.peers.before["former"] = scene.becomes(owner="holder")
    if request_ is REQUESTS["TransferCall"]:
        with pytest.raises(FailedPrecondition, match="credentials"):  # The owner has no credentials.
            await request_(scene.control)
    else:
        await request_(scene.control)
    assert [owner for owner, _ in scene.peers.asked] == ["former", "holder"]
    call.end(EndReason.SHUTDOWN)
    await scene.carrying


@EVERY
@virtual_time
async def test_a_call_that_keeps_moving_is_not_run_after(request_: Control) -> None:
    scene = Scene()
    await scene.active()
    scene.becomes(owner="first")()
    for owner, successor in (("first", "second"), ("second", "third")):
        scene.peers.errors[owner] = NotHeld("moved")
        scene.peers.before[owner] = scene.becomes(owner=successor)
    with pytest.raises(Unavailable, match="moved"):
        await request_(scene.control)
    assert [owner for owner, _ in scene.peers.asked] == ["first", "second"]
    scene.holder.manager.end_all()
    await scene.carrying


@EVERY
@virtual_time
async def test_a_call_that_comes_here_meanwhile_is_commanded_here(request_: Control) -> None:
    scene = Scene()
    call = await scene.active()
    scene.becomes(owner="former")()
    scene.peers.errors["former"] = PeerGone("gone")

    def taken_over() -> None:
        scene.becomes(owner="asked")()
        call._recorder.record = scene.record
        scene.asked.manager.held._calls["call_1"] = call

    scene.peers.before["former"] = taken_over
    if request_ is REQUESTS["TransferCall"]:
        with pytest.raises(FailedPrecondition, match="credentials"):
            await request_(scene.control)
    else:
        await request_(scene.control)
    assert [owner for owner, _ in scene.peers.asked] == ["former"]
    call.end(EndReason.SHUTDOWN)
    await scene.carrying


@pytest.mark.parametrize("error", [NotHeld("over"), PeerGone("gone"), AnswerLost("lost")], ids=lambda e: e.result)
@pytest.mark.parametrize("name", REQUESTS)
@virtual_time
async def test_a_call_that_ends_meanwhile_has_ended(name: str, error: PeerError) -> None:
    scene = Scene()
    call = await scene.active()
    scene.peers.errors["holder"] = error
    scene.peers.before["holder"] = scene.becomes(state=CallState.ENDED, end_reason=EndReason.CARRIER_HANGUP)
    if name == "EndCall":
        assert (await REQUESTS[name](scene.control)).end_reason is EndReason.CARRIER_HANGUP
    elif isinstance(error, AnswerLost):
        # The digits may have been played before the end.
        with pytest.raises(AnswerLost):
            await REQUESTS[name](scene.control)
    else:
        with pytest.raises(FailedPrecondition, match="ended"):
            await REQUESTS[name](scene.control)
    assert len(scene.peers.asked) == 1
    call.end(EndReason.SHUTDOWN)
    await scene.carrying


@pytest.mark.parametrize("name", REQUESTS)
@virtual_time
async def test_a_request_whose_answer_is_lost_is_not_sent_twice(name: str) -> None:
    scene = Scene()
    await scene.active()
    scene.peers.errors["holder"] = AnswerLost("lost")
    scene.peers.before["holder"] = scene.becomes(owner="another")
    with pytest.raises(AnswerLost):
        await REQUESTS[name](scene.control)
    assert len(scene.peers.asked) == 1
    scene.holder.manager.end_all()
    await scene.carrying


@EVERY
@virtual_time
async def test_a_call_that_an_earlier_process_of_this_name_left_is_not_asked_for_elsewhere(request_: Control) -> None:
    scene = Scene()
    await scene.active()
    scene.becomes(owner="asked")()
    with pytest.raises(Unavailable, match="does not hold the call"):
        await request_(scene.control)
    assert scene.peers.asked == []
    scene.holder.manager.end_all()
    await scene.carrying


@EVERY
@virtual_time
async def test_what_another_process_asks_for_is_never_passed_on(request_: Control) -> None:
    """Each of two processes believes that the other one has the call."""
    scene = Scene()
    await scene.active()
    scene.peers.errors["holder"] = NotHeld("")
    with pytest.raises(NotHeld):
        await request_(scene.control)
    with pytest.raises(NotHeld):
        await scene.peers.processes["asked"].carry_out(scene.peers.commands[0])
    assert len(scene.peers.commands) == 1
    scene.holder.manager.end_all()
    await scene.carrying


@virtual_time
async def test_a_process_of_an_earlier_version_still_ends_its_call() -> None:
    """It cannot be asked, but sees that its caller is put out of the room."""
    scene = Scene()
    await scene.active()
    scene.peers.errors["holder"] = NoPeerAddress("none")
    ending = asyncio.create_task(scene.control.end("call_1"))
    await asyncio.sleep(1)
    assert scene.asked.admin.removed == [("lobby", "caller")]
    scene.holder.room.listener.room_ended(EndReason.PARTICIPANT_REMOVED, "")
    assert (await ending).end_reason is EndReason.PARTICIPANT_REMOVED
    for request_ in STEERS.values():
        with pytest.raises(FailedPrecondition, match="ended"):
            await request_(scene.control)
    await scene.carrying


@virtual_time
async def test_a_process_that_cannot_be_asked_and_does_not_end_its_call_is_waited_for_in_bounds() -> None:
    scene = Scene()
    await scene.active()
    scene.peers.errors["holder"] = NoPeerAddress("none")
    started = asyncio.get_running_loop().time()
    with pytest.raises(Unavailable, match="holder, which holds the call, does not end it"):
        await scene.control.end("call_1")
    assert asyncio.get_running_loop().time() - started == pytest.approx(END_PATIENCE, abs=0.5)
    for request_ in STEERS.values():
        with pytest.raises(NoPeerAddress):
            await request_(scene.control)
    scene.holder.manager.end_all()
    await scene.carrying


@EVERY
@virtual_time
async def test_a_call_that_never_was_is_not_found(request_: Control) -> None:
    scene = Scene()
    with pytest.raises(NotFound):
        await request_(scene.control)
    assert scene.peers.asked == []


@virtual_time
async def test_calls_of_livekit_sip_belong_to_no_process() -> None:
    scene = Scene()
    await scene.active()
    scene.becomes(owner=OWNER)()
    for name in ("SendDtmf", "ClearAudio", "SwitchRoom"):
        with pytest.raises(FailedPrecondition, match="LiveKit SIP"):
            await REQUESTS[name](scene.control)
    assert scene.peers.asked == []
    scene.holder.manager.end_all()
    await scene.carrying


# Reports of carriers


@virtual_time
async def test_a_report_reaches_the_process_that_holds_the_call() -> None:
    scene = Scene()
    call = await scene.active()
    told = await scene.reports.status("call_1", "completed", 1)
    assert told == call.record
    assert (call.record.carrier_status, call.is_ending) == ("completed", False), "the stream tells the end"
    await scene.reports.end_stream("call_1")
    await call.finished.wait()
    assert call.record.end_reason is EndReason.CARRIER_CLOSED
    assert scene.peers.asked == [("holder", "CarrierReport"), ("holder", "EndStream")]
    assert await scene.reports.status("call_1", "completed", 2) is None, "it is over: the record gets the status"
    assert await scene.reports.status("call_unknown", "completed", 2) is None
    await scene.carrying


@virtual_time
async def test_a_call_rings_wherever_the_report_arrives() -> None:
    scene = Scene()
    call = await scene.holder.manager.create(scene.holder.request())
    await scene.reports.status("call_1", "ringing", 1)
    assert "call-ringing" in [event for event, _ in call.record.timelog]
    call.end(EndReason.SHUTDOWN)
    await call.finished.wait()


@pytest.mark.parametrize("error", [PeerGone("gone"), AnswerLost("lost"), StoreError("away")], ids=lambda e: e.message)
@virtual_time
async def test_a_report_on_a_call_of_a_dead_process_is_no_error(error: PeerError) -> None:
    scene = Scene()
    await scene.active()
    scene.peers.errors["holder"] = error
    assert await scene.reports.status("call_1", "completed", 1) is None
    await scene.reports.transfer_progress("call_1", 2, TransferStatus.RINGING)
    await scene.reports.end_stream("call_1")
    assert {name for _, name in scene.peers.asked} == {"CarrierReport", "TransferReport", "EndStream"}
    scene.holder.manager.end_all()
    await scene.carrying


@virtual_time
async def test_a_carrier_does_not_wait_long_for_a_process_that_is_stopped() -> None:
    scene = Scene()
    await scene.active()
    scene.peers.hangs = True
    started = asyncio.get_running_loop().time()
    assert await scene.reports.status("call_1", "completed", 1) is None
    assert asyncio.get_running_loop().time() - started == pytest.approx(PATIENCE, abs=0.1)
    scene.holder.manager.end_all()
    await scene.carrying


@virtual_time
async def test_the_number_of_a_transfer_rings_and_answers_wherever_that_is_told() -> None:
    scene = Scene(FakeControl(Faults()))
    call = await scene.active()
    call._recorder.learn(carrier_call_id="CA1")
    await scene.control.transfer("call_1", TransferWish("+15550001111"))
    stream = call.wait.stream
    await scene.reports.transfer_progress("call_1", stream + 1, TransferStatus.RINGING)
    assert call.record.transfer_status == "initiated", "a report on another transfer"
    await scene.reports.transfer_progress("call_1", stream, TransferStatus.RINGING)
    assert call.record.transfer_status == "ringing"
    await scene.reports.transfer_progress("call_1", stream, TransferStatus.ANSWERED)
    await call.finished.wait()
    assert (call.record.end_reason, call.record.owner) == (EndReason.TRANSFERRED, "holder")
    assert scene.asked.manager.live() == [], "nobody took the call over for that"
    await scene.carrying
