"""PlaceTwilioCall against the carrier's REST API: the whole outbound flow, answered or not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from livekit import api

from carrier_simulator import Answer, CallStatus, OutboundCall, Outcome, TwilioSimulator
from connector.app import Connector
from connector.model.end_reason import EndReason
from connectorpb.v1 import connector_pb2 as pb
from tests.integration.harness import PATIENCE, Stage, ended, only_session, strength, tone, until
from tests.integration.rpc import TRANSPORTS, Rpc, RpcFailed, grpc_connector, rpc_over

TO, FROM = "+15551234567", "+15557654321"
RINGS_ON = Outcome(after=60)


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


@pytest.fixture
async def connector(stage: Stage, twilio: TwilioSimulator) -> Connector:
    return await grpc_connector(stage, twilio_account_sid=twilio.account_sid, twilio_api_url=twilio.base_url)


@pytest.fixture(params=TRANSPORTS)
async def rpc(request: pytest.FixtureRequest, stage: Stage, connector: Connector) -> AsyncIterator[Rpc]:
    async with rpc_over(request.param, stage, connector) as rpc:
        yield rpc


@pytest.fixture
async def twirp(stage: Stage, connector: Connector) -> AsyncIterator[Rpc]:
    async with rpc_over("twirp protobuf", stage, connector) as rpc:
        yield rpc


async def over(phone: OutboundCall) -> CallStatus:
    """The phone's final status, once everything it tells has been told; no request of it failed."""
    async with asyncio.timeout(PATIENCE):
        await phone.finished()
    assert phone.errors == []
    return phone.status


async def test_an_answered_call_talks_in_the_room(
    stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator, rpc: Rpc
) -> None:
    guest = await stage.guest(room)
    placed = await rpc.place(
        TO,
        FROM,
        room,
        participant_identity="caller",
        participant_name="Ann",
        participant_attributes={"plan": "gold"},
        wait_until_answered=True,
    )
    phone = await twilio.next_call()
    assert (phone.to, phone.from_) == (TO, FROM)
    assert (placed.carrier_call_id, placed.carrier_status, placed.end_reason) == (phone.sid, "in-progress", "")
    assert (getattr(placed, "from"), placed.to, placed.room_name) == (FROM, TO, room)
    assert phone.answered.has_come()
    assert phone.spoken == []

    (caller,) = await guest.event("participant_connected")
    assert (caller.identity, caller.name, caller.attributes["plan"]) == ("caller", "Ann", "gold")
    assert (caller.attributes["phone.from"], caller.attributes["phone.to"]) == (FROM, TO)
    await guest.event("track_subscribed")
    phone.say(tone(600, 1.0))
    await guest.until(lambda: strength(guest.sound_of("caller")[-4000:], 600) > 3000)

    await phone.hangup()
    record = await ended(connector)
    assert record.end_reason is EndReason.CARRIER_HANGUP
    assert await over(phone) is CallStatus.COMPLETED
    assert (await rpc.get(placed.call_id)).carrier_status == "completed"


async def test_without_waiting_the_answer_comes_while_it_rings(
    stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator, rpc: Rpc
) -> None:
    twilio.outcome = RINGS_ON
    placed = await rpc.place(TO, FROM, room, participant_identity="caller")
    phone = await twilio.next_call()
    assert placed.state == pb.Call.STATE_RINGING
    assert placed.carrier_status in ("queued", "initiated", "ringing")
    assert (await stage.participants(room))["caller"].permission.hidden
    await until(lambda: only_session(connector).record.carrier_status == "ringing")
    assert (await rpc.get(placed.call_id)).carrier_status == "ringing"
    assert not phone.answered.has_come()
    stored = await connector.store.get_call(placed.call_id)
    assert stored is not None
    assert (stored.carrier_call_id, stored.from_number, stored.to_number) == (phone.sid, FROM, TO)


async def test_agents_are_there_before_the_phone_rings(
    stage: Stage, room: str, twilio: TwilioSimulator, twirp: Rpc
) -> None:
    twilio.outcome = RINGS_ON
    await twirp.place(TO, FROM, room, agents=[pb.RoomAgentDispatch(agent_name="helper", metadata="m")])
    (dispatch,) = await stage.admin.agent_dispatch.list_dispatch(room)
    assert (dispatch.agent_name, dispatch.metadata) == ("helper", "m")


NOT_ANSWERED = pytest.mark.parametrize(
    ("answer", "reason", "status"),
    [
        (Answer.BUSY, "busy", "busy"),
        (Answer.NO_ANSWER, "no_answer", "no-answer"),
        (Answer.FAILED, "carrier_failed", "failed"),
    ],
)


@NOT_ANSWERED
async def test_who_waits_is_told_that_nobody_answered(
    stage: Stage,
    room: str,
    connector: Connector,
    twilio: TwilioSimulator,
    rpc: Rpc,
    answer: Answer,
    reason: str,
    status: str,
) -> None:
    twilio.outcome = Outcome(answer)
    started = time.monotonic()
    placed = await rpc.place(TO, FROM, room, wait_until_answered=True)
    assert time.monotonic() - started < 30  # Not the connect timeout of 90 s.
    assert (placed.state, placed.end_reason, placed.carrier_status) == (pb.Call.STATE_ENDED, reason, status)
    assert status in placed.end_detail
    assert connector.calls.live() == []
    assert room not in await stage.rooms()


@NOT_ANSWERED
async def test_the_hidden_participant_leaves_at_once(
    stage: Stage,
    room: str,
    connector: Connector,
    twilio: TwilioSimulator,
    twirp: Rpc,
    answer: Answer,
    reason: str,
    status: str,
) -> None:
    guest = await stage.guest(room)
    twilio.outcome = Outcome(answer, after=0.3)
    placed = await twirp.place(TO, FROM, room, participant_identity="caller")
    assert "caller" in await stage.participants(room)
    phone = await twilio.next_call()
    await phone.ended.wait()
    await until(lambda: not connector.calls.live())
    assert (await stage.participants(room)).keys() == {"guest"}
    assert not guest.saw("participant_connected")
    record = await ended(connector, placed.call_id)
    assert (record.end_reason, record.carrier_status) == (EndReason(reason), status)
    assert await over(phone) is CallStatus(status)


async def test_a_call_that_the_application_cancels_ends_as_canceled(
    connector: Connector, room: str, twilio: TwilioSimulator, twirp: Rpc
) -> None:
    twilio.outcome = RINGS_ON
    waiting = asyncio.ensure_future(twirp.place(TO, FROM, room, wait_until_answered=True))
    phone = await twilio.next_call()
    phone.order(CallStatus.CANCELED)
    placed = await waiting
    assert (placed.end_reason, placed.carrier_status) == ("canceled", "canceled")
    assert await over(phone) is CallStatus.CANCELED


async def test_nobody_picks_up_within_the_ring_timeout(
    connector: Connector, room: str, twilio: TwilioSimulator, twirp: Rpc
) -> None:
    twilio.outcome = RINGS_ON
    started = time.monotonic()
    placed = await twirp.place(TO, FROM, room, ring_timeout_seconds=5, wait_until_answered=True)
    assert 4.9 < time.monotonic() - started < 30  # Not the connect timeout of 90 s.
    assert (placed.end_reason, placed.carrier_status) == ("no_answer", "no-answer")
    assert connector.calls.live() == []


# While it rings, somebody else ends it: the phone must stop ringing.


async def _ringing(twilio: TwilioSimulator, twirp: Rpc, room: str) -> tuple[pb.Call, OutboundCall]:
    twilio.outcome = RINGS_ON
    placed = await twirp.place(TO, FROM, room, participant_identity="caller")
    phone = await twilio.next_call()
    assert not phone.is_over
    return placed, phone


async def test_the_phone_stops_ringing_when_the_room_is_deleted(
    stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator, twirp: Rpc
) -> None:
    placed, phone = await _ringing(twilio, twirp, room)
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    assert await over(phone) is CallStatus.CANCELED
    record = await ended(connector, placed.call_id)
    assert record.end_reason is EndReason.ROOM_DELETED


async def test_the_phone_stops_ringing_when_the_participant_is_removed(
    stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator, twirp: Rpc
) -> None:
    placed, phone = await _ringing(twilio, twirp, room)
    await stage.admin.room.remove_participant(api.RoomParticipantIdentity(room=room, identity="caller"))
    assert await over(phone) is CallStatus.CANCELED
    assert (await ended(connector, placed.call_id)).end_reason is EndReason.PARTICIPANT_REMOVED


async def test_the_phone_stops_ringing_when_the_call_is_ended(
    room: str, twilio: TwilioSimulator, connector: Connector, twirp: Rpc
) -> None:
    placed, phone = await _ringing(twilio, twirp, room)
    assert (await twirp.end(placed.call_id)).end_reason == "ended_by_api"
    assert await over(phone) is CallStatus.CANCELED


async def test_the_phone_stops_ringing_when_the_service_stops(
    room: str, twilio: TwilioSimulator, connector: Connector, twirp: Rpc
) -> None:
    placed, phone = await _ringing(twilio, twirp, room)
    await connector.calls.drain(0)
    await phone.ended.wait()
    assert phone.status is CallStatus.CANCELED
    assert (await ended(connector, placed.call_id)).end_reason is EndReason.SHUTDOWN


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_phone_stops_ringing_when_the_client_gives_up(
    stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator, transport: str
) -> None:
    twilio.outcome = RINGS_ON
    async with rpc_over(transport, stage, connector) as rpc:
        waiting = asyncio.ensure_future(rpc.place(TO, FROM, room, wait_until_answered=True))
        phone = await twilio.next_call()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
    assert await over(phone) is CallStatus.CANCELED
    record = await ended(connector)
    assert (record.end_reason, record.carrier_call_id) == (EndReason.CANCELED, phone.sid)
    assert room not in await stage.rooms()


# What is refused before anything is created


@pytest.mark.parametrize(
    ("to", "from_", "fields", "field"),
    [
        ("", FROM, {}, "to"),
        ("5551234567", FROM, {}, "to"),
        ("+0551234567", FROM, {}, "to"),
        ("+1555123456789012", FROM, {}, "to"),
        ("sip:a@b", FROM, {}, "to"),
        (TO, "", {}, "from"),
        (TO, "+1 555", {}, "from"),
        (TO, FROM, {"ring_timeout_seconds": 4}, "ring_timeout_seconds"),
        (TO, FROM, {"ring_timeout_seconds": 601}, "ring_timeout_seconds"),
        (TO, FROM, {"participant_identity": "x" * 257}, "participant_identity"),
        (TO, FROM, {"destination_country": "XX"}, "destination_country"),
    ],
    ids=[str(number) for number in range(11)],
)
async def test_a_wrong_field_is_named(
    room: str,
    twilio: TwilioSimulator,
    connector: Connector,
    twirp: Rpc,
    to: str,
    from_: str,
    fields: dict[str, object],
    field: str,
) -> None:
    with pytest.raises(RpcFailed) as caught:
        await twirp.place(to, from_, room, **fields)
    assert (caught.value.code, caught.value.message.split(":")[0]) == ("invalid_argument", field)
    assert not twilio.calls
    assert await connector.store.list_calls() == []


async def test_without_credentials_no_call_is_placed(stage: Stage, room: str) -> None:
    connector = await stage.connector(twilio_account_sid="")
    async with rpc_over("twirp json", stage, connector) as rpc:
        with pytest.raises(RpcFailed) as caught:
            await rpc.place(TO, FROM, room)
    assert caught.value.code == "failed_precondition"
    assert "TWILIO_ACCOUNT_SID" in caught.value.message
    assert room not in await stage.rooms()
