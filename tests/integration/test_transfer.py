"""A call is transferred to a number at Twilio; tests/integration/test_telnyx_plivo.py has the other carriers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from carrier_simulator import Answer, OutboundCall, Outcome, TwilioSimulator
from connector.app import Connector
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from connectorpb.v1 import connector_pb2 as pb
from tests.integration.harness import RATE, Stage, connect_call, ended, only_session, place, strength, tone, until
from tests.integration.rest import RestClient
from tests.integration.rpc import TRANSPORTS, Rpc, RpcFailed, grpc_connector, rpc_over
from tests.integration.scene import ended_calls

TO = "+15550001111"


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


@pytest.fixture
async def connector(stage: Stage, twilio: TwilioSimulator) -> Connector:
    return await grpc_connector(stage, twilio_account_sid=twilio.account_sid, twilio_api_url=twilio.base_url)


@pytest.fixture
async def call(stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator) -> OutboundCall:
    call = place(twilio, await connect_call(stage.client(connector), room))
    await until(lambda: only_session(connector).state is CallState.ACTIVE)
    return call


@pytest.fixture(params=TRANSPORTS)
async def rpc(request: pytest.FixtureRequest, stage: Stage, connector: Connector) -> AsyncIterator[Rpc]:
    async with rpc_over(request.param, stage, connector) as rpc:
        yield rpc


def call_id_of(connector: Connector) -> str:
    call_id: str = only_session(connector).call_id
    return call_id


async def test_the_phone_talks_to_the_number_and_the_call_ends_here_as_transferred(
    stage: Stage, room: str, connector: Connector, call: OutboundCall, rpc: Rpc
) -> None:
    call_id = call_id_of(connector)
    answer = await rpc.transfer(call_id, TO)
    assert answer.call_id == call_id
    record = await ended(connector, call_id)
    assert record.end_reason is EndReason.TRANSFERRED
    assert [event for event, _ in record.timelog][-2:] == ["call-transferred", "call-hangup"]
    await stage.gone(room, "caller")
    await until(lambda: bool(call.dialled))
    assert [str(target.address) for target in call.dialled] == [TO]
    # Nobody hung the phone up.
    assert not call.ended.has_come()
    assert ended_calls(connector) == {"transferred": 1.0}
    assert call.errors == []


async def test_what_the_carrier_refuses_leaves_the_call_as_it_is(
    stage: Stage, room: str, connector: Connector, call: OutboundCall, twilio: TwilioSimulator, rpc: Rpc
) -> None:
    guest = await stage.guest(room)
    await guest.publish()
    guest.start_saying(tone(900, 20))
    only_session(connector)._recorder.learn(carrier_call_id="CA" + "0" * 32)
    for _ in range(2):
        with pytest.raises(RpcFailed) as refused:
            await rpc.transfer(call_id_of(connector), TO)
        assert refused.value.code == "not_found"
    await until(lambda: strength(call.heard[-RATE // 4 :], 900) > 2000)
    assert only_session(connector).state is CallState.ACTIVE
    assert "call-transferred" not in [event for event, _ in only_session(connector).record.timelog]
    assert only_session(connector).record.transfer_status == "failed"
    await call.hangup()
    assert (await ended(connector)).end_reason is EndReason.CARRIER_HANGUP


async def test_two_transfers_at_once_are_one(connector: Connector, call: OutboundCall, rpc: Rpc) -> None:
    call_id = call_id_of(connector)
    outcomes = await asyncio.gather(*(rpc.transfer(call_id, TO) for _ in range(2)), return_exceptions=True)
    (refused,) = [outcome for outcome in outcomes if isinstance(outcome, RpcFailed)]
    assert refused.code == "failed_precondition"
    assert (await ended(connector, call_id)).end_reason is EndReason.TRANSFERRED
    await until(lambda: bool(call.dialled))
    assert len(call.dialled) == 1


async def test_the_outcome_is_told_to_whoever_waits_for_it(
    connector: Connector, call: OutboundCall, rpc: Rpc, twilio: TwilioSimulator
) -> None:
    twilio.script(TO, Outcome(Answer.BUSY))
    answer = await rpc.transfer(call_id_of(connector), TO, wait_until_answered=True)
    assert (answer.transfer_to, answer.transfer_status, answer.state) == (TO, "busy", pb.Call.STATE_ACTIVE)
    assert len(call.streams) == 2
    twilio.script(TO, Outcome())
    answer = await rpc.transfer(call_id_of(connector), TO, wait_until_answered=True, timeout=20)
    assert (answer.transfer_status, answer.end_reason) == ("answered", "transferred")
    assert call.errors == []


async def test_a_sentence_instead_of_the_return(
    connector: Connector, call: OutboundCall, rpc: Rpc, twilio: TwilioSimulator
) -> None:
    twilio.script(TO, Outcome(Answer.BUSY))
    await rpc.transfer(call_id_of(connector), TO, failure_sentence="Nobody is there.")
    await call.ended.wait()
    assert call.spoken[-1] == "Nobody is there."
    assert (await ended(connector)).end_reason is EndReason.TRANSFER_FAILED


@pytest.mark.parametrize(("asked", "shown"), [("", "+15550001111"), ("+15559998888", "+15559998888")])
async def test_a_caller_from_an_app_is_transferred_under_a_number(
    stage: Stage, room: str, connector: Connector, rpc: Rpc, twilio: TwilioSimulator, asked: str, shown: str
) -> None:
    made = await RestClient(await stage.http(), connector).connector(defaultRoomId=room)
    caller = twilio.inbound_call(made["webhookUrl"], to="+15550001111", from_="client:alice")
    await until(lambda: [call.state for call in connector.calls.live()] == [CallState.ACTIVE])
    await rpc.transfer(call_id_of(connector), "+15557776666", caller_id=asked)
    await caller.transferred.wait()
    assert (caller.dialled_as, caller.errors) == ([shown], [])


async def test_what_is_no_number_is_refused(connector: Connector, call: OutboundCall, rpc: Rpc) -> None:
    for number in ("", "15550001111", "+0555", "+1 555 000", "+1555000111122223", "sip:x@y", "+١٢٣٤٥"):
        with pytest.raises(RpcFailed, match="to: ") as refused:
            await rpc.transfer(call_id_of(connector), number)
        assert refused.value.code == "invalid_argument", number
        assert not call.dialled, number


async def test_only_an_active_call_is_transferred(stage: Stage, room: str, connector: Connector, rpc: Rpc) -> None:
    await connect_call(stage.client(connector), room)
    with pytest.raises(RpcFailed, match="ringing, not active") as refused:
        await rpc.transfer(call_id_of(connector), TO)
    assert refused.value.code == "failed_precondition"
    with pytest.raises(RpcFailed) as unknown:
        await rpc.transfer("call_nobody", TO)
    assert unknown.value.code == "not_found"


async def test_without_the_carriers_credentials_it_says_so(stage: Stage, room: str, twilio: TwilioSimulator) -> None:
    connector = await stage.connector()
    place(twilio, await connect_call(stage.client(connector), room))
    await until(lambda: only_session(connector).state is CallState.ACTIVE)
    async with rpc_over("twirp json", stage, connector) as rpc:
        with pytest.raises(RpcFailed, match="credentials") as refused:
            await rpc.transfer(call_id_of(connector), TO)
    assert refused.value.code == "failed_precondition"
