"""What a call does with the documents it is given."""

from __future__ import annotations

import pytest

from carrier_simulator import Callback, Document, Fault, TwilioSimulator
from tests.unit.simulator.application import Application, signed_by_twilio

TO, FROM = "+15550001111", "+15552223333"


async def test_a_document_is_fetched_with_twilios_form_and_signature(
    carrier: TwilioSimulator, application: Application
) -> None:
    call = carrier.dial(TO, FROM, Document(application.page("/voice", "<Hangup/>")))
    await call.ended.wait()
    hit = await application.hit()
    assert (hit.method, hit.valid) == ("POST", True)
    assert hit.form == {
        "CallSid": call.sid,
        "AccountSid": carrier.account_sid,
        "From": FROM,
        "To": TO,
        "Caller": FROM,
        "Called": TO,
        "CallStatus": "in-progress",
        "ApiVersion": "2010-04-01",
        "Direction": "outbound-api",
    }
    assert (call.status, call.errors) == ("completed", [])


async def test_a_get_carries_the_form_in_its_signed_query(carrier: TwilioSimulator, application: Application) -> None:
    call = carrier.dial(TO, FROM, Document(application.page("/voice", "<Hangup/>") + "?mine=a%2Fb", "GET"))
    await call.ended.wait()
    hit = await application.hit()
    assert (hit.method, hit.valid, hit.form, call.errors) == ("GET", True, {}, [])


async def test_an_inbound_call_rings_until_its_document_answers_it(
    carrier: TwilioSimulator, application: Application
) -> None:
    call = carrier.inbound_call(application.page("/hook", "<Say>Welcome</Say>"), to=TO, from_=FROM)
    await call.ended.wait()
    hit = await application.hit()
    assert (hit.valid, hit.form["CallStatus"], hit.form["Direction"]) == (True, "ringing", "inbound")
    assert (hit.form["FromCountry"], hit.form["ToCountry"]) == ("US", "US")
    assert (call.status, call.spoken) == ("completed", ["Welcome"])
    moments = [name for name, _ in call.timeline()]
    assert moments == ["ringing", "document fetched", "answered", "call ended"]


async def test_the_end_of_an_inbound_call_is_told(carrier: TwilioSimulator, application: Application) -> None:
    callback = Callback(application.page("/status", ""))
    call = carrier.call_in(application.page("/hook", "<Hangup/>"), callback=callback)
    await call.finished()
    hits = [application.hits.get_nowait() for _ in range(application.hits.qsize())]
    (told,) = [hit for hit in hits if hit.path == "/status"]
    assert (told.form["CallStatus"], told.form["CallSid"], told.valid) == ("completed", call.sid, True)


@pytest.mark.parametrize(("reason", "status"), [("busy", "busy"), ("rejected", "failed")])
async def test_an_inbound_call_is_rejected(
    carrier: TwilioSimulator, application: Application, reason: str, status: str
) -> None:
    call = carrier.inbound_call(application.page("/hook", f'<Reject reason="{reason}"/>'))
    await call.ended.wait()
    assert (call.status, call.answered.has_come()) == (status, False)


async def test_redirects_are_followed(carrier: TwilioSimulator, application: Application) -> None:
    there = application.page("/there", "<Say>There</Say>")
    here = application.page("/here", f"<Say>Here</Say><Redirect>{there}</Redirect><Say>Never</Say>")
    call = carrier.dial(TO, FROM, Document(here))
    await call.ended.wait()
    assert call.spoken == ["Here", "There"]


async def test_hanging_up_interrupts_whatever_runs(carrier: TwilioSimulator, application: Application) -> None:
    call = carrier.dial(TO, FROM, Document(application.page("/voice", '<Pause length="60"/><Say>No</Say>')))
    await call.fetched.wait()
    await call.hangup()
    assert (call.status, call.spoken) == ("completed", [])


@pytest.mark.parametrize(
    ("body", "content_type", "status", "fault"),
    [
        ("<Hangup/>", "text/xml", 500, Fault.HTTP_RETRIEVAL),
        ("<Hangup/>", "text/xml", 302, Fault.HTTP_RETRIEVAL),
        ("<Hangup", "text/xml", 200, Fault.DOCUMENT_PARSE),
        ("<Fax>+1</Fax>", "text/xml", 200, Fault.SCHEMA),
        ("<Hangup/>", "application/json", 200, Fault.CONTENT_TYPE),
    ],
)
async def test_a_bad_document_ends_the_call_with_its_error(
    carrier: TwilioSimulator,
    application: Application,
    body: str,
    content_type: str,
    status: int,
    fault: Fault,
) -> None:
    url = application.page("/voice", body, content_type, status)
    placed, rung = carrier.dial(TO, FROM, Document(url)), carrier.inbound_call(url)
    await placed.ended.wait()
    await rung.ended.wait()
    assert [error.code for error in placed.errors] == [fault]
    assert [error.code for error in rung.errors] == [fault]
    assert (placed.status, rung.status) == ("completed", "failed")


async def test_a_server_that_is_not_there_is_an_error(carrier: TwilioSimulator) -> None:
    async with Application(signed_by_twilio(carrier.auth_token)) as gone:
        url = gone.url
    call = carrier.dial(TO, FROM, Document(url + "/voice"))
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.HTTP_RETRIEVAL]


@pytest.mark.parametrize("token", ["another", None])
async def test_signatures_can_be_wrong_or_missing(
    carrier: TwilioSimulator, application: Application, token: str | None
) -> None:
    carrier.web.signing_token = token
    call = carrier.dial(TO, FROM, Document(application.page("/voice", "<Hangup/>")))
    await call.ended.wait()
    hit = await application.hit()
    assert not hit.valid
    assert ("X-Twilio-Signature" in hit.headers) == (token is not None)


async def test_a_public_origin_is_reached_as_through_a_proxy(
    carrier: TwilioSimulator, application: Application
) -> None:
    public = "https://voice.example"
    carrier.web.routes[public] = application.url
    application.page("/voice", '<Connect><Stream url="wss://voice.example/stream/t"/></Connect>')
    call = carrier.dial(TO, FROM, Document(public + "/voice"))
    socket = await application.socket()
    await socket.ws.close()
    await call.ended.wait()
    fetch, handshake = await application.hit(), await application.hit()
    assert (fetch.valid, fetch.headers["Host"]) == (True, "voice.example")
    assert (handshake.valid, handshake.path) == (True, "/stream/t")
    assert call.errors == []


async def test_a_moment_that_does_not_come_says_so(carrier: TwilioSimulator, application: Application) -> None:
    call = carrier.dial(TO, FROM, Document(application.page("/voice", '<Pause length="60"/>')))
    with pytest.raises(TimeoutError, match="call ended did not come"):
        await call.ended.wait(0.01)


async def test_a_run_of_many_calls_need_not_keep_them(carrier: TwilioSimulator) -> None:
    call = carrier.dial(TO, FROM, Document(inline="<Response/>"))
    with pytest.raises(RuntimeError):
        carrier.forget(call)
    await call.ended.wait()
    carrier.forget(call)
    assert not carrier.calls
