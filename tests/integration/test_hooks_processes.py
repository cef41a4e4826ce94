"""Several processes behind one address: whichever a carrier's request reaches knows what the others do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from twilio.request_validator import RequestValidator

from carrier_simulator.simulator import CarrierSimulator
from connector.api.carrier.sentences import WRONG_PIN
from connector.app import Connector
from demo.redis_server import RedisServer
from tests.integration.harness import TWILIO_TOKEN, Stage, stop, until
from tests.integration.rest import RestClient

CALLER, CALLED = "+15552223333", "+15550001111"
PUBLIC = "https://calls.example.com"


@pytest.fixture(params=["sqlite", "redis"])
async def two(request: pytest.FixtureRequest, stage: Stage, tmp_path: Path) -> AsyncIterator[list[Connector]]:
    """Two connectors with one store and one public URL."""
    async with contextlib.AsyncExitStack() as stack:
        store = f"sqlite:///{tmp_path}/shared.db"
        if request.param == "redis":
            store = (await stack.enter_async_context(RedisServer())).url
        made = [Connector(stage.settings(store=store, public_url=PUBLIC)) for _ in range(2)]
        for connector in made:
            await connector.start()
            stack.push_async_callback(stop, connector)
        yield made


def reaches(carrier: CarrierSimulator, connector: Connector) -> None:
    """From now on the public URL leads to this one."""
    carrier.web.routes[PUBLIC] = f"http://127.0.0.1:{connector.port}"


async def test_a_key_rotated_at_one_is_refused_by_the_other_at_once(
    stage: Stage, two: list[Connector], room: str
) -> None:
    twilio, http = await stage.twilio(), await stage.http()
    first, second = RestClient(http, two[0]), RestClient(http, two[1])
    made = await first.connector(defaultRoomId=room)
    assert (await second.ok("GET", f"/v2/connectors/{made['id']}"))["data"] == made
    rotated = (await first.ok("POST", f"/v2/connectors/{made['id']}/rotate-key"))["data"]
    reaches(twilio, two[1])
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await call.ended.wait()
    assert "404" in str(call.errors)
    guest = await stage.guest(room)
    twilio.inbound_call(rotated["webhookUrl"], to=CALLED, from_=CALLER)
    await guest.event("participant_connected")


async def test_each_wrong_pin_may_reach_another_process(stage: Stage, two: list[Connector], room: str) -> None:
    twilio, rest = await stage.twilio(), RestClient(await stage.http(), two[0])
    await rest.rule(phoneNumbers=[CALLED], room={"id": room, "pin": "4711"})
    made = await rest.connector()
    reaches(twilio, two[0])
    call = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    for times in range(3):
        await until(lambda wanted=times: call.spoken.count(WRONG_PIN) == wanted)  # type: ignore[misc]
        reaches(twilio, two[(times + 1) % 2])
        await call.enter("1111")
    await call.ended.wait()
    assert not call.errors
    assert not await two[0].store.list_calls()


async def test_a_webhook_repeated_at_the_other_process_is_the_same_call(
    stage: Stage, two: list[Connector], room: str
) -> None:
    twilio, http = await stage.twilio(), await stage.http()
    made = await RestClient(http, two[0]).connector(defaultRoomId=room)
    path = made["webhookUrl"].removeprefix(PUBLIC)
    form = [("CallSid", "CA" + "1" * 32), ("From", CALLER), ("To", CALLED)]
    answers = []
    for connector in two:
        reaches(twilio, connector)
        answers.append((await twilio.web.fetch(PUBLIC + path, "POST", form)).body)
    assert answers[0] == answers[1]
    assert b"<Stream" in answers[0]
    assert len(await two[0].store.list_calls()) == 1
    assert [len(connector.calls.live()) for connector in two] == [1, 0]


async def test_a_rule_made_at_one_routes_at_the_other_and_numbers_are_claimed_once(
    stage: Stage, two: list[Connector], room: str
) -> None:
    http = await stage.http()
    first, second = RestClient(http, two[0]), RestClient(http, two[1])
    body = {"name": "Rule", "type": "inbound", "phoneNumbers": [CALLED], "room": {"id": room}}
    tried = await asyncio.gather(*(rest("POST", "/v2/sip/routing-rule", body) for rest in (first, second) * 3))
    assert sorted(status for status, _ in tried) == [201, 409, 409, 409, 409, 409]
    twilio, guest = await stage.twilio(), await stage.guest(room)
    made = await first.connector()
    reaches(twilio, two[1])
    twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await guest.event("participant_connected")


async def test_a_webhook_that_reaches_both_at_once_is_one_call(stage: Stage, two: list[Connector], room: str) -> None:
    http = await stage.http()
    made = await RestClient(http, two[0]).connector(defaultRoomId=room)
    path = made["webhookUrl"].removeprefix(PUBLIC)

    async def post(connector: Connector, sid: str) -> str:
        form = {"CallSid": sid, "From": CALLER, "To": CALLED}
        signed = RequestValidator(TWILIO_TOKEN).compute_signature(PUBLIC + path, form)
        url = f"http://127.0.0.1:{connector.port}{path}"
        async with http.post(url, data=form, headers={"X-Twilio-Signature": signed}) as response:
            assert response.status == 200
            return await response.text()

    for number in range(10):
        sid = f"CA{number:032}"
        answers = await asyncio.gather(*(post(connector, sid) for connector in two * 2))
        assert len(set(answers)) == 1
        assert "<Stream" in answers[0]
    records = await two[0].store.list_calls()
    assert [record.end_reason for record in records] == [None] * 10
    assert sum(len(connector.calls.live()) for connector in two) == 10
