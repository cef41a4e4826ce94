"""Twilio will not, or does not answer: the client is told what to mend, and nothing is left of the call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import aiohttp
import pytest
from aiohttp import web
from livekit import api
from multidict import MultiDict

from carrier_simulator.twilio.signing import signed_headers
from connector.app import Connector
from connector.call.session import phone_leg as leg
from connector.model.end_reason import EndReason
from connector.telephony import twilio
from tests.integration.harness import PATIENCE, TWILIO_TOKEN, Stage, ended, only_session, until
from tests.integration.rpc import TRANSPORTS, Rpc, RpcFailed, grpc_connector, rpc_over
from tests.integration.twilio_api import ACCOUNT, SID, TwilioApi, created, error, twilio_api

TO, FROM = "+15551234567", "+15557654321"


@pytest.fixture
async def carrier() -> AsyncIterator[TwilioApi]:
    async with twilio_api() as carrier:
        yield carrier


@pytest.fixture
async def connector(stage: Stage, carrier: TwilioApi) -> Connector:
    return await grpc_connector(stage, twilio_account_sid=ACCOUNT, twilio_api_url=carrier.url)


@pytest.fixture
async def twirp(stage: Stage, connector: Connector) -> AsyncIterator[Rpc]:
    async with rpc_over("twirp protobuf", stage, connector) as rpc:
        yield rpc


async def assert_refused(
    stage: Stage, connector: Connector, room: str, rpc: Rpc, reason: EndReason = EndReason.CARRIER_FAILED
) -> RpcFailed:
    with pytest.raises(RpcFailed) as caught:
        await rpc.place(TO, FROM, room, participant_identity="caller", wait_until_answered=True)
    assert connector.calls.live() == []
    assert room not in await stage.rooms()
    record = await ended(connector)
    assert (record.end_reason, record.end_detail) == (reason, caught.value.message)
    assert TWILIO_TOKEN not in caught.value.message
    return caught.value


@pytest.mark.parametrize(
    ("answer", "code", "says"),
    [
        ((400, 21211, "The phone number is not valid"), "invalid_argument", "to: Twilio answered 400, error 21211"),
        ((400, 21212, "The source is not valid"), "invalid_argument", "from: "),
        ((401, 20003, "Authenticate"), "internal", "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
        ((429, 20429, "Too Many Requests"), "resource_exhausted", "Too Many Requests"),
        ((500, 20500, "Internal Server Error"), "unavailable", "answered 500"),
        ((400, 21205, "Url is not a valid URL"), "failed_precondition", "Url is not a valid URL"),
    ],
    ids=["number", "caller id", "credentials", "too many", "broken", "url"],
)
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_each_refusal_has_its_meaning(
    stage: Stage,
    room: str,
    connector: Connector,
    carrier: TwilioApi,
    transport: str,
    answer: tuple[int, int, str],
    code: str,
    says: str,
) -> None:
    carrier.will(error(*answer))
    async with rpc_over(transport, stage, connector) as rpc:
        refusal = await assert_refused(stage, connector, room, rpc)
    assert refusal.code == code
    assert says in refusal.message


async def test_nobody_answers_at_twilios_address(stage: Stage, room: str) -> None:
    connector = await stage.connector(
        twilio_account_sid=ACCOUNT, twilio_api_url=f"http://127.0.0.1:{stage.free_port()}"
    )
    async with rpc_over("twirp json", stage, connector) as rpc:
        refusal = await assert_refused(stage, connector, room, rpc)
    assert (refusal.code, "cannot be reached" in refusal.message) == ("unavailable", True)


async def test_twilio_accepts_but_never_answers(
    stage: Stage, room: str, connector: Connector, carrier: TwilioApi, twirp: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio, "PLACE_TIMEOUT", 0.3)
    carrier.answer = carrier.hang
    started = time.monotonic()
    refusal = await assert_refused(stage, connector, room, twirp)
    assert (refusal.code, "cannot be reached" in refusal.message) == ("unavailable", True)
    assert time.monotonic() - started < 8  # Not the 10 s that a request may take by default.


# The call ends while Twilio has yet to answer


class LateAnswer:
    """Twilio has taken the call, but its answer is on the way until `arrives` is set."""

    def __init__(self, carrier: TwilioApi) -> None:
        self.arrives = asyncio.Event()
        carrier.answer = self

    async def __call__(self, _: MultiDict[str]) -> web.Response:
        await self.arrives.wait()
        return created()


def hang_ups(carrier: TwilioApi) -> list[tuple[str, str]]:
    return [(path, form["Status"]) for path, form, _ in carrier.requests if not path.endswith("/Calls.json")]


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_client_that_gives_up_while_twilio_answers_leaves_no_phone_ringing(
    stage: Stage, room: str, connector: Connector, carrier: TwilioApi, transport: str
) -> None:
    late = LateAnswer(carrier)
    async with rpc_over(transport, stage, connector) as rpc:
        placing = asyncio.ensure_future(rpc.place(TO, FROM, room))
        await carrier.asked.wait()
        placing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await placing
        await until(lambda: only_session(connector).is_ending)
        late.arrives.set()
        record = await ended(connector)
    assert hang_ups(carrier) == [(f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json", "completed")]
    assert (record.end_reason, record.carrier_call_id) == (EndReason.CANCELED, SID)
    assert room not in await stage.rooms()


async def test_a_room_deleted_while_twilio_answers_leaves_no_phone_ringing(
    stage: Stage, room: str, connector: Connector, carrier: TwilioApi, twirp: Rpc
) -> None:
    late = LateAnswer(carrier)
    placing = asyncio.ensure_future(twirp.place(TO, FROM, room, wait_until_answered=True))
    await carrier.asked.wait()
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    await until(lambda: only_session(connector).is_ending)
    late.arrives.set()
    placed = await placing
    assert (placed.end_reason, placed.carrier_call_id) == ("room_deleted", SID)
    assert len(hang_ups(carrier)) == 1


async def test_an_answer_that_never_comes_holds_up_no_end(
    stage: Stage, room: str, connector: Connector, carrier: TwilioApi, twirp: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leg, "STEP_TIMEOUT", 0.5)
    carrier.answer = carrier.hang
    placing = asyncio.ensure_future(twirp.place(TO, FROM, room))
    await carrier.asked.wait()
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    with pytest.raises(RpcFailed) as caught:
        await placing
    assert (caught.value.code, caught.value.message) == ("unavailable", "the call ended before the carrier answered")
    assert (await ended(connector)).end_reason is EndReason.ROOM_DELETED


async def test_a_hang_up_that_twilio_does_not_answer_holds_up_no_end(
    room: str, connector: Connector, carrier: TwilioApi, twirp: Rpc, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio, "HANG_UP_TIMEOUT", 0.3)
    carrier.hang_up_answer = carrier.hang
    placed = await twirp.place(TO, FROM, room)
    # The carrier would keep the end waiting for ever.
    async with asyncio.timeout(PATIENCE):
        call = await twirp.end(placed.call_id)
    assert (call.end_reason, carrier.hung_up.is_set()) == ("ended_by_api", True)


async def test_a_report_that_overtakes_twilios_answer_counts(
    room: str, connector: Connector, carrier: TwilioApi, twirp: Rpc
) -> None:
    async def report_first(form: MultiDict[str]) -> web.Response:
        url, facts = form["StatusCallback"], [("CallSid", SID), ("CallStatus", "busy"), ("SequenceNumber", "2")]
        async with aiohttp.ClientSession() as client:
            headers = signed_headers(TWILIO_TOKEN, url, facts)
            reply = await client.post(url, data=aiohttp.FormData(facts), headers=headers)
        assert reply.status == 204
        return created()

    carrier.answer = report_first
    placed = await twirp.place(TO, FROM, room, wait_until_answered=True)
    assert (placed.end_reason, placed.carrier_status, placed.carrier_call_id) == ("busy", "busy", SID)
    assert hang_ups(carrier) == []
