from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
import pytest
from twilio.base.exceptions import TwilioRestException

from carrier_simulator import Answer, Outcome, TwilioSimulator
from carrier_simulator.twilio.client import place_call, twilio_client
from tests.unit.simulator.application import Application

TO, FROM = "+15550001111", "+15552223333"


async def call_over(client: Any, sid: str) -> Any:
    return await asyncio.to_thread(client.calls(sid).fetch)


async def test_the_official_client_places_reads_and_ends_a_call(
    carrier: TwilioSimulator, application: Application
) -> None:
    client = twilio_client(carrier.base_url, carrier.account_sid, carrier.auth_token)
    url = application.page("/voice", '<Pause length="60"/>')
    placed = await asyncio.to_thread(client.calls.create, to=TO, from_=FROM, url=url)
    assert (placed.status, placed.direction, placed.to, placed._from) == ("queued", "outbound-api", TO, FROM)
    call = await carrier.next_call()
    assert call.sid == placed.sid
    await call.fetched.wait()
    assert (await asyncio.to_thread(client.calls(call.sid).fetch)).status == "in-progress"
    await asyncio.to_thread(client.calls(call.sid).update, status="completed")
    await call.ended.wait()
    over = await asyncio.to_thread(client.calls(call.sid).fetch)
    assert (over.status, over.duration) == ("completed", "1")


async def test_the_document_may_come_with_the_request(carrier: TwilioSimulator) -> None:
    client = twilio_client(carrier.base_url, carrier.account_sid, carrier.auth_token)
    twiml = "<Response><Say>Hi</Say></Response>"
    await asyncio.to_thread(client.calls.create, to=TO, from_=FROM, twiml=twiml)
    call = await carrier.next_call()
    await call.ended.wait()
    assert (call.spoken, call.status, call.errors) == (["Hi"], "completed", [])


async def test_a_running_call_is_redirected(carrier: TwilioSimulator, application: Application) -> None:
    client = twilio_client(carrier.base_url, carrier.account_sid, carrier.auth_token)
    sid = await place_call(
        carrier.base_url,
        carrier.account_sid,
        carrier.auth_token,
        to=TO,
        from_=FROM,
        url=application.page("/voice", '<Pause length="60"/>'),
    )
    call = await carrier.next_call()
    await call.fetched.wait()
    await asyncio.to_thread(client.calls(sid).update, url=application.page("/other", "<Say>Moved</Say>"))
    await call.ended.wait()
    assert call.spoken == ["Moved"]


@pytest.mark.parametrize("word", ["canceled", "completed"])
async def test_a_ringing_call_is_canceled(carrier: TwilioSimulator, word: str) -> None:
    carrier.script(TO, Outcome(after=60))
    client = twilio_client(carrier.base_url, carrier.account_sid, carrier.auth_token)
    placed = await asyncio.to_thread(client.calls.create, to=TO, from_=FROM, twiml="<Response/>")
    call = await carrier.next_call()
    await call.ringing.wait()
    await asyncio.to_thread(client.calls(placed.sid).update, status=word)
    await call.ended.wait()
    assert (call.status, call.duration, call.answered.has_come()) == ("canceled", 0, False)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome(Answer.BUSY, 0.01), "busy"),
        (Outcome(Answer.FAILED, 0.01), "failed"),
        (Outcome(Answer.NO_ANSWER, 0.01), "no-answer"),
    ],
)
async def test_called_people_do_as_scripted(carrier: TwilioSimulator, outcome: Outcome, status: str) -> None:
    carrier.script(TO, outcome)
    await place_call(
        carrier.base_url, carrier.account_sid, carrier.auth_token, to=TO, from_=FROM, url="http://127.0.0.1:9"
    )
    call = await carrier.next_call()
    await call.ended.wait()
    assert (call.status, call.answered.has_come()) == (status, False)


async def test_status_callbacks_are_signed_and_in_order(carrier: TwilioSimulator, application: Application) -> None:
    application.page("/status", "")
    await place_call(
        carrier.base_url,
        carrier.account_sid,
        carrier.auth_token,
        to=TO,
        from_=FROM,
        url=application.page("/voice", "<Hangup/>"),
        status_callback=application.url + "/status",
        status_callback_event=["initiated", "ringing", "answered", "completed"],
    )
    call = await carrier.next_call()
    await call.finished()
    hits = [application.hits.get_nowait() for _ in range(application.hits.qsize())]
    told = [hit for hit in hits if hit.path == "/status"]
    assert [hit.form["CallStatus"] for hit in told] == ["initiated", "ringing", "in-progress", "completed"]
    assert [hit.form["SequenceNumber"] for hit in told] == ["0", "1", "2", "3"]
    assert all(hit.valid and hit.form["CallSid"] == call.sid for hit in told)
    assert told[-1].form["CallDuration"] == "1"
    assert "CallDuration" not in told[0].form


@pytest.mark.parametrize(
    ("options", "status", "code"),
    [
        ({"to": ""}, 400, 21201),
        ({"to": "5550001111"}, 400, 21211),
        ({"from_": ""}, 400, 21213),
        ({"from_": "me"}, 400, 21212),
        ({"url": ""}, 400, 21205),
        ({"url": "ftp://host/voice"}, 400, 21205),
        ({"url": "wss://host/voice"}, 400, 21205),
        ({"timeout": 601}, 400, 20001),
        ({"method": "PUT"}, 400, 20001),
        ({"status_callback_event": ["eaten"], "status_callback": "http://host/"}, 400, 21626),
        ({"status_callback": "nowhere"}, 400, 21205),
    ],
)
async def test_wrong_requests_get_twilios_errors(
    carrier: TwilioSimulator, options: dict[str, Any], status: int, code: int
) -> None:
    client = twilio_client(carrier.base_url, carrier.account_sid, carrier.auth_token)
    wanted = {"to": TO, "from_": FROM, "url": "http://127.0.0.1:9/voice", **options}
    with pytest.raises(TwilioRestException) as error:
        await asyncio.to_thread(lambda: client.calls.create(**wanted))
    assert (error.value.status, error.value.code) == (status, code)
    assert not carrier.calls


@pytest.mark.parametrize("wrong", ["sid", "token"])
async def test_wrong_credentials_are_refused(carrier: TwilioSimulator, wrong: str) -> None:
    sid = "AC0" if wrong == "sid" else carrier.account_sid
    token = "no" if wrong == "token" else carrier.auth_token
    client = twilio_client(carrier.base_url, sid, token)
    with pytest.raises(TwilioRestException) as error:
        await asyncio.to_thread(client.calls.create, to=TO, from_=FROM, url="http://127.0.0.1:9/voice")
    assert (error.value.status, error.value.code) == (401, 20003)


async def test_without_credentials_there_is_no_answer_but_401(carrier: TwilioSimulator) -> None:
    path = f"/2010-04-01/Accounts/{carrier.account_sid}/Calls.json"
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {"Authorization": "Bearer x"}, {"Authorization": "Basic %%"}):
            async with session.post(carrier.base_url + path, headers=headers) as response:
                assert response.status == 401
                assert (await response.json())["code"] == 20003


async def test_a_call_that_does_not_exist_is_not_found(carrier: TwilioSimulator) -> None:
    client = twilio_client(carrier.base_url, carrier.account_sid, carrier.auth_token)
    with pytest.raises(TwilioRestException) as error:
        await call_over(client, "CA0")
    assert (error.value.status, error.value.code) == (404, 20404)


async def test_a_call_that_is_over_cannot_be_changed(carrier: TwilioSimulator) -> None:
    client = twilio_client(carrier.base_url, carrier.account_sid, carrier.auth_token)
    placed = await asyncio.to_thread(client.calls.create, to=TO, from_=FROM, twiml="<Response/>")
    await (await carrier.next_call()).ended.wait()
    with pytest.raises(TwilioRestException) as error:
        await asyncio.to_thread(client.calls(placed.sid).update, status="completed")
    assert (error.value.status, error.value.code) == (400, 21220)
