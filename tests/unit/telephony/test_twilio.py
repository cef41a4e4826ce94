"""Twilio's REST API by Twilio's own package: what is sent, and what each answer means."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any
from xml.etree import ElementTree

import pytest
from aiohttp import web

from connector.carriers.carrier import LONGEST_FAREWELL
from connector.carriers.transfers import TransferDial
from connector.errors import (
    ConnectorError,
    CredentialsRefused,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from connector.model.call import CarrierCall
from connector.telephony import twilio
from connector.telephony.twilio import TwilioCalls
from demo.ports import PortLease
from tests.integration.twilio_api import ACCOUNT, SID, TwilioApi, error, twilio_api

TOKEN = "auth-token-of-the-tests"


@pytest.fixture
async def carrier() -> AsyncIterator[TwilioApi]:
    async with twilio_api() as carrier:
        yield carrier


@pytest.fixture
async def calls(carrier: TwilioApi) -> AsyncIterator[TwilioCalls]:
    async for calls in started(carrier.url):
        yield calls


async def started(url: str) -> AsyncIterator[TwilioCalls]:
    calls = TwilioCalls(ACCOUNT, TOKEN, url)
    await calls.start()
    try:
        yield calls
    finally:
        await calls.close()


def place(calls: TwilioCalls) -> Any:
    url = "https://example.com/twilio/token"
    return calls.place("+15551234567", "+15557654321", url, f"{url}/status", 45)


async def test_placing_a_call_sends_what_twilio_wants(carrier: TwilioApi, calls: TwilioCalls) -> None:
    assert await place(calls) == (SID, "queued")
    ((path, form, headers),) = carrier.requests
    assert path == f"/2010-04-01/Accounts/{ACCOUNT}/Calls.json"
    assert headers["Authorization"] == "Basic " + base64.b64encode(f"{ACCOUNT}:{TOKEN}".encode()).decode()
    assert sorted(form.items()) == [
        ("From", "+15557654321"),
        ("Method", "POST"),
        ("StatusCallback", "https://example.com/twilio/token/status"),
        ("StatusCallbackEvent", "answered"),
        ("StatusCallbackEvent", "completed"),
        ("StatusCallbackEvent", "initiated"),
        ("StatusCallbackEvent", "ringing"),
        ("StatusCallbackMethod", "POST"),
        ("Timeout", "45"),
        ("To", "+15551234567"),
        ("Url", "https://example.com/twilio/token"),
    ]


async def test_hanging_up_completes_the_call(carrier: TwilioApi, calls: TwilioCalls) -> None:
    await calls.hang_up(CarrierCall(SID))
    ((path, form, _),) = carrier.requests
    assert (path, dict(form)) == (f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json", {"Status": "completed"})


async def test_a_sentence_before_the_hang_up_is_a_document(carrier: TwilioApi, calls: TwilioCalls) -> None:
    await calls.hang_up(CarrierCall(SID), "Bye & <thanks>." * 100)
    ((path, form, _),) = carrier.requests
    assert (path, list(form)) == (f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json", ["Twiml"])
    response = ElementTree.fromstring(form["Twiml"])
    assert [verb.tag for verb in response] == ["Say", "Hangup"]
    said = response.findtext("Say") or ""
    assert said.startswith("Bye & <thanks>.Bye")
    assert len(said) == LONGEST_FAREWELL


async def test_a_phone_that_cannot_hear_a_sentence_is_hung_up_without(carrier: TwilioApi, calls: TwilioCalls) -> None:
    async def refuse(_: Any) -> web.Response:
        return error(400, 21220, "Call is not in-progress. Cannot redirect.")

    carrier.hang_up_answer = refuse
    await calls.hang_up(CarrierCall(SID), "Goodbye.")
    assert [list(form) for _, form, _ in carrier.requests] == [["Twiml"], ["Status"]]


async def test_a_transfer_gives_the_call_another_document(carrier: TwilioApi, calls: TwilioCalls) -> None:
    await calls.transfer(CarrierCall(SID), TransferDial("+15551234567", 30, "+15550001111"), "")
    ((path, form, _),) = carrier.requests
    assert path == f"/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json"
    assert list(form) == ["Twiml"]
    assert ElementTree.fromstring(form["Twiml"]).findtext("Dial/Number") == "+15551234567"


async def test_a_transfer_under_no_number_asks_for_one_of_ours(carrier: TwilioApi, calls: TwilioCalls) -> None:
    """Without one Twilio refuses the Dial of a caller who has none (13214)."""
    await calls.transfer(CarrierCall(SID), TransferDial("+15551234567", 30), "")
    (asked, _, _), (_, form, _) = carrier.requests
    assert asked.endswith(f"/Calls/{SID}.json")
    dial = ElementTree.fromstring(form["Twiml"]).find("Dial")
    assert dial is not None
    assert dial.attrib["callerId"] == "+15550001111"


async def test_a_transfer_of_what_has_ended_is_an_error(carrier: TwilioApi, calls: TwilioCalls) -> None:
    carrier.will(error(400, 21220, "Call is not in-progress"))
    with pytest.raises(NotFound):
        await calls.transfer(CarrierCall(SID), TransferDial("+15551234567", 30, "+15550001111"), "")


async def test_hanging_up_what_has_ended_is_no_error(carrier: TwilioApi, calls: TwilioCalls) -> None:
    carrier.will(error(400, 21220, "Call is not in-progress"))
    await calls.hang_up(CarrierCall(SID))
    assert carrier.hung_up.is_set()


@pytest.mark.parametrize(("account", "named"), [("", ACCOUNT), ("AC2", "AC2")])
async def test_a_call_that_twilio_does_not_know_in_its_account_is_an_error(
    carrier: TwilioApi, calls: TwilioCalls, account: str, named: str
) -> None:
    carrier.will(error(404, 20404, "not found"))
    with pytest.raises(NotFound, match=f"account {named} has no call {SID}"):
        await calls.hang_up(CarrierCall(SID, account))
    assert carrier.requests[0][0] == f"/2010-04-01/Accounts/{named}/Calls/{SID}.json"


def problem(status: int, code: int) -> web.Response:
    """RFC 9457, as Twilio's newer services answer."""
    document = {"type": "https://www.twilio.com/x", "title": "Wrong", "status": status, "code": code, "detail": "why"}
    return web.json_response(document, status=status, content_type="application/problem+json")


@pytest.mark.parametrize(
    ("answer", "meaning", "says"),
    [
        (error(400, 21211, "no number"), InvalidArgument, "to: Twilio answered 400, error 21211: "),
        (error(400, 13224, "no number"), InvalidArgument, "to: "),
        (error(400, 21219, "not verified"), InvalidArgument, "to: "),
        (error(400, 21212, "no number"), InvalidArgument, "from: "),
        (error(400, 21606, "not yours"), InvalidArgument, "from: "),
        (error(400, 21205, "Url"), FailedPrecondition, "error 21205"),
        (error(401, 20003, "Authenticate"), CredentialsRefused, "check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"),
        (web.Response(status=401), CredentialsRefused, "check TWILIO_ACCOUNT_SID"),
        (error(403, 20403, "Forbidden"), Internal, "Forbidden"),
        (error(404, 20404, "No such account"), NotFound, "No such account"),
        (error(429, 20429, "Too Many Requests"), ResourceExhausted, "Too Many Requests"),
        (error(500, 20500, "Internal"), Unavailable, "answered 500"),
        (web.Response(status=502, text="<html>bad gateway"), Unavailable, "answered 502"),
        (web.Response(status=502, text="x" * 200_000), Unavailable, "answered 502"),
        (web.Response(status=201, text='{"sid": "' + "x" * 200_000), Unavailable, "is not from Twilio's API"),
        (web.Response(status=302, headers={"Location": "http://127.0.0.1:9/"}), FailedPrecondition, "answered 302"),
        (problem(400, 21211), InvalidArgument, "to: Twilio answered 400, error 21211: why"),
        (problem(503, 20503), Unavailable, "answered 503"),
        (web.Response(status=201, text="<html>"), Unavailable, "is not from Twilio's API; check TWILIO_API_URL"),
        (web.json_response({"hello": 1}, status=201), Unavailable, "is not from Twilio's API"),
        (web.json_response([1], status=201), Unavailable, "is not from Twilio's API"),
        (web.Response(status=201), Unavailable, "is not from Twilio's API"),
    ],
)
async def test_each_answer_has_its_meaning(
    carrier: TwilioApi, calls: TwilioCalls, answer: web.Response, meaning: type[ConnectorError], says: str
) -> None:
    carrier.will(answer)
    with pytest.raises(ConnectorError) as caught:
        await place(calls)
    assert type(caught.value) is meaning
    assert says in caught.value.message
    assert TOKEN not in caught.value.message


async def test_a_hang_up_that_fails_says_so(carrier: TwilioApi, calls: TwilioCalls) -> None:
    carrier.will(error(500, 20500, "Internal"))
    with pytest.raises(Unavailable):
        await calls.hang_up(CarrierCall(SID))


async def test_nobody_there() -> None:
    lease = PortLease()
    async for calls in started(f"http://127.0.0.1:{lease.port}"):
        with pytest.raises(Unavailable, match="cannot be reached"):
            await place(calls)
    lease.close()


async def test_an_answer_that_never_comes_is_waited_for_so_long(
    carrier: TwilioApi, calls: TwilioCalls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(twilio, "PLACE_TIMEOUT", 0.1)
    monkeypatch.setattr(twilio, "HANG_UP_TIMEOUT", 0.1)
    carrier.answer = carrier.hang_up_answer = carrier.hang
    for work in (place(calls), calls.hang_up(CarrierCall(SID))):
        with pytest.raises(Unavailable, match="TimeoutError"):
            await asyncio.wait_for(work, 5)


async def test_an_edge_and_region_of_twilio_do_not_lead_past_a_configured_address(
    carrier: TwilioApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TWILIO_EDGE", "sydney")
    monkeypatch.setenv("TWILIO_REGION", "au1")
    async for calls in started(carrier.url):
        assert await place(calls) == (SID, "queued")
    assert carrier.asked.is_set()


async def test_an_edge_and_region_hold_for_twilios_own_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWILIO_EDGE", "sydney")
    monkeypatch.setenv("TWILIO_REGION", "au1")
    asked: list[str] = []

    def request(_: Any, __: str, url: str, **___: Any) -> Any:
        asked.append(url)
        raise TimeoutError

    monkeypatch.setattr("aiohttp.ClientSession.request", request)
    async for calls in started(twilio.API):
        with pytest.raises(Unavailable):
            await calls.hang_up(CarrierCall(SID))
    assert asked == [f"https://api.sydney.au1.twilio.com/2010-04-01/Accounts/{ACCOUNT}/Calls/{SID}.json"]


async def test_it_must_be_started_first() -> None:
    with pytest.raises(RuntimeError):
        await place(TwilioCalls(ACCOUNT, TOKEN))
