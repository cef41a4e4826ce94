"""GetCall, EndCall, SendDtmf and ClearAudio over every transport, in every state of a call."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from carrier_simulator import CallStatus, Document, Fault, OutboundCall, TwilioSimulator
from connector.app import Connector
from connector.audio import dtmf
from connectorpb.v1 import connector_pb2 as pb
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    RATE,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    until,
)
from tests.integration.rpc import TRANSPORTS, Rpc, RpcFailed, grpc_connector, rpc_over

AFTER = "Goodbye."
"""What the customer's document says after the stream, when the call goes on."""
UNKNOWN = "call_0123456789abcdef01234567"


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


@pytest.fixture
async def connector(stage: Stage, twilio: TwilioSimulator) -> Connector:
    """One that has the carrier's credentials."""
    return await grpc_connector(stage, twilio_account_sid=twilio.account_sid, twilio_api_url=twilio.base_url)


@pytest.fixture(params=TRANSPORTS)
async def rpc(request: pytest.FixtureRequest, stage: Stage, connector: Connector) -> AsyncIterator[Rpc]:
    async with rpc_over(request.param, stage, connector) as rpc:
        yield rpc


@pytest.fixture
async def active(stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator) -> OutboundCall:
    """An answered call, in a document of the customer's own that goes on after the stream."""
    connect_url = await connect_call(stage.client(connector), room)
    inline = f'<Response><Connect><Stream url="{connect_url}"/></Connect><Say>{AFTER}</Say></Response>'
    call = twilio.dial("+15551234567", "+15557654321", Document(inline=inline))
    await until(lambda: only_session(connector).state == "active")
    return call


def call_id_of(connector: Connector) -> str:
    call_id: str = only_session(connector).call_id
    return call_id


async def failure(call: object) -> RpcFailed:
    with pytest.raises(RpcFailed) as caught:
        await call  # type: ignore[misc]
    return caught.value


def keys_heard(pcm: NDArray[np.int16]) -> str:
    """The digits in a sound, one for each stretch between silences of 30 ms or more."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 200)
    if not len(loud):
        return ""
    gaps = [index for index, (one, next_) in enumerate(pairwise(loud), 1) if next_ - one > 0.03 * RATE]
    stretches = np.split(loud, gaps)
    return "".join(dtmf.detect(pcm[stretch[0] : stretch[-1] + 1], RATE) or "?" for stretch in stretches)


# GetCall


async def test_a_live_call_is_shown_as_it_is_now(
    stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator, rpc: Rpc
) -> None:
    phone = place(twilio, await connect_call(stage.client(connector), room))
    await until(lambda: only_session(connector).state == "active")
    call = await rpc.get(call_id_of(connector))
    assert (call.provider, call.direction) == (pb.Call.PROVIDER_TWILIO, pb.Call.DIRECTION_OUTBOUND)
    assert (call.state, call.end_reason) == (pb.Call.STATE_ACTIVE, "")
    assert (call.room_name, call.participant_identity) == (room, "caller")
    assert (call.carrier_call_id, getattr(call, "from"), call.to) == (phone.sid, phone.from_, phone.to)
    assert call.HasField("started_at")
    assert not call.HasField("ended_at")
    assert 0 < call.started_at.ToNanoseconds() - call.created_at.ToNanoseconds() < 10e9

    await phone.hangup()
    record = await ended(connector)
    after = await rpc.get(record.call_id)
    assert (after.state, after.end_reason) == (pb.Call.STATE_ENDED, "carrier_hangup")
    assert after.ended_at.ToNanoseconds() > after.started_at.ToNanoseconds()


async def test_facts_that_were_learned_since_the_last_save_are_shown(
    stage: Stage, room: str, connector: Connector, rpc: Rpc
) -> None:
    await connect_call(stage.client(connector), room)
    session = only_session(connector)
    await session.fetched("CA123", "+15550000001", "+15550000002")
    stored = await connector.store.get_call(session.call_id)
    assert stored is not None
    assert stored.carrier_call_id == ""
    assert (await rpc.get(session.call_id)).carrier_call_id == "CA123"
    (listed,) = (await rpc.list_calls()).calls
    assert listed.carrier_call_id == "CA123"


# EndCall


async def test_ending_an_active_call_ends_both_legs(
    stage: Stage, room: str, connector: Connector, active: OutboundCall, rpc: Rpc
) -> None:
    call = await rpc.end(call_id_of(connector))
    assert (call.state, call.end_reason) == (pb.Call.STATE_ENDED, "ended_by_api")
    assert call.HasField("ended_at")
    await stage.gone(room, "caller")
    assert connector.calls.live() == []
    await active.finished()
    assert (active.status, active.spoken, active.errors) == (CallStatus.COMPLETED, [], [])


async def test_without_credentials_the_customers_document_goes_on(
    stage: Stage, room: str, twilio: TwilioSimulator
) -> None:
    connector = await stage.connector()
    connect_url = await connect_call(stage.client(connector), room)
    inline = f'<Response><Connect><Stream url="{connect_url}"/></Connect><Say>{AFTER}</Say></Response>'
    phone = twilio.dial("+15551234567", "+15557654321", Document(inline=inline))
    await until(lambda: only_session(connector).state == "active")
    async with rpc_over("twirp json", stage, connector) as rpc:
        await rpc.end(call_id_of(connector))
    await phone.finished()
    assert phone.spoken == [AFTER]


async def test_a_call_that_rings_leaves_the_room(stage: Stage, room: str, connector: Connector, rpc: Rpc) -> None:
    await connect_call(stage.client(connector), room)
    call = await rpc.end(call_id_of(connector))
    assert (call.state, call.end_reason) == (pb.Call.STATE_ENDED, "ended_by_api")
    assert room not in await stage.rooms()


async def test_a_pending_call_ends_and_its_stream_is_refused(
    stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator, rpc: Rpc
) -> None:
    connect_url = await connect_call(stage.client(connector), room, INBOUND)
    assert (await rpc.get(call_id_of(connector))).state == pb.Call.STATE_PENDING
    call = await rpc.end(call_id_of(connector))
    assert (call.state, call.end_reason) == (pb.Call.STATE_ENDED, "ended_by_api")
    inline = f'<Response><Connect><Stream url="{connect_url}"/></Connect></Response>'
    phone = twilio.dial("+15551234567", "+15557654321", Document(inline=inline))
    await phone.finished()
    assert [error.code for error in phone.errors] == [Fault.STREAM_HANDSHAKE]
    assert room not in await stage.rooms()


async def test_an_ended_call_stays_as_it_is(connector: Connector, active: OutboundCall, rpc: Rpc) -> None:
    call_id = call_id_of(connector)
    await active.hangup()
    await ended(connector)
    before = await rpc.get(call_id)
    assert await rpc.end(call_id) == before
    assert before.end_reason == "carrier_hangup"


async def test_two_who_end_a_call_at_once_get_the_same_answer(
    connector: Connector, active: OutboundCall, rpc: Rpc
) -> None:
    call_id = call_id_of(connector)
    first, second = await asyncio.gather(rpc.end(call_id), rpc.end(call_id))
    assert first == second
    assert first.state == pb.Call.STATE_ENDED
    await active.finished()


async def test_a_request_for_a_call_of_another_process_is_carried_there(
    stage: Stage, room: str, connector: Connector, rpc: Rpc
) -> None:
    """Two processes that share a store: the one without the call answers as the one with it does."""
    other = await stage.connector(store=connector.settings.store, instance="the-other")
    await connect_call(stage.client(other), room)
    call_id = call_id_of(other)
    assert (await rpc.get(call_id)).state == pb.Call.STATE_RINGING
    for command in (rpc.dtmf(call_id, "1"), rpc.clear(call_id)):
        refused = await failure(command)
        assert (refused.code, refused.message) == ("failed_precondition", "the call is ringing, not active")


# SendDtmf and ClearAudio


async def test_the_phone_hears_the_digits(connector: Connector, active: OutboundCall, rpc: Rpc) -> None:
    await rpc.dtmf(call_id_of(connector), "159D")
    await rpc.dtmf(call_id_of(connector), "*0#")
    await until(lambda: keys_heard(active.heard) == "159D*0#")
    assert not active.errors


async def test_what_is_no_digit_is_refused_whole(connector: Connector, active: OutboundCall, rpc: Rpc) -> None:
    for digits in ("", "1" * 33, "E", "a", "12 3", "1,2", "\u0661"):
        error = await failure(rpc.dtmf(call_id_of(connector), digits))
        assert (error.code, error.message.split(":")[0]) == ("invalid_argument", "digits"), digits
    assert only_session(connector).bridge.outbox.seconds == 0
    assert active.stream.received_frames == 0


async def test_more_digits_than_can_wait_are_refused_whole(
    connector: Connector, active: OutboundCall, rpc: Rpc
) -> None:
    await rpc.dtmf(call_id_of(connector), "1" * 32)
    await until(lambda: active.stream.received_frames == 32)
    assert (await failure(rpc.dtmf(call_id_of(connector), "22"))).code == "resource_exhausted"
    await rpc.dtmf(call_id_of(connector), "3")
    await until(lambda: active.stream.received_frames == 33)


async def test_clearing_empties_what_the_carrier_has_buffered(
    connector: Connector, active: OutboundCall, rpc: Rpc
) -> None:
    await rpc.dtmf(call_id_of(connector), "1" * 32)
    await until(lambda: active.stream.buffered > 5)
    await rpc.clear(call_id_of(connector))
    await until(lambda: active.stream.received_clears == 1)
    assert active.stream.buffered == 0
    # The digit that was cut off must not run into the next.
    await until(lambda: not active.heard[-RATE // 10 :].any())
    await rpc.dtmf(call_id_of(connector), "9")
    await until(lambda: keys_heard(active.heard).endswith("9"))
    assert not active.errors


@pytest.mark.parametrize("state", ["pending", "ringing", "ended"])
async def test_only_an_active_call_can_be_heard(
    stage: Stage, room: str, connector: Connector, rpc: Rpc, state: str
) -> None:
    await connect_call(stage.client(connector), room, INBOUND if state == "pending" else OUTBOUND)
    call_id = call_id_of(connector)
    if state == "ended":
        await rpc.end(call_id)
    for attempt in (rpc.dtmf(call_id, "1"), rpc.clear(call_id)):
        error = await failure(attempt)
        assert error.code == "failed_precondition"
        assert f"the call is {state}" in error.message


# Ids


async def test_an_id_that_is_nobodys(rpc: Rpc) -> None:
    for call_id, code in (
        (UNKNOWN, "not_found"),
        ("nonsense' OR 1=1", "not_found"),
        ("", "invalid_argument"),
        ("x" * 65, "invalid_argument"),
    ):
        for attempt in (rpc.get(call_id), rpc.end(call_id), rpc.dtmf(call_id, "1"), rpc.clear(call_id)):
            assert (await failure(attempt)).code == code, call_id
