"""`<Dial><Sip>` of a simulated call: the phone, the document and a real SIP far end together."""

from __future__ import annotations

import asyncio

import pytest

from carrier_simulator import CallStatus, TwilioSimulator
from carrier_simulator.faults import Fault
from tests.sip_endpoint import SipEndpoint
from tests.unit.simulator.application import Application, Hit

NUMBER = "+15550001111"
KNOWN = {NUMBER: ("connector", "a&b<c>'d")}


def page(app: Application, host: str, password: str = "a&amp;b&lt;c&gt;'d", **dial: str) -> str:
    more = "".join(f' {name}="{value}"' for name, value in dial.items())
    app.page("/done", "<Hangup/>")
    app.page("/progress", "")
    return app.page(
        "/voice",
        f'<Dial action="{app.url}/done"{more}><Sip username="connector" password="{password}" '
        f'statusCallback="{app.url}/progress" statusCallbackEvent="answered">sip:{NUMBER}@{host}</Sip></Dial>',
    )


async def done(application: Application) -> Hit:
    hit = await application.hit(lambda hit: hit.path == "/done")
    assert hit.valid
    return hit


async def test_a_caller_talks_until_the_far_end_hangs_up(carrier: TwilioSimulator, application: Application) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        phone = carrier.inbound_call(page(application, endpoint.host))
        progress = await application.hit(lambda hit: hit.path == "/progress")
        assert progress.valid
        assert (progress.form["CallStatus"], progress.form["ParentCallSid"]) == ("in-progress", phone.sid)
        assert phone.transferred.has_come()
        assert f"<sip:{phone.from_}@" in (endpoint.calls[0].invite.get_header("from") or "")
        endpoint.hang_up()
        hit = await done(application)
        assert hit.form["DialCallStatus"] == "completed"
        assert hit.form["DialSipResponseCode"] == "200"
        assert int(hit.form["DialCallDuration"]) >= 1
        assert hit.form["DialCallSid"] == progress.form["CallSid"]
        await phone.finished()
        assert (phone.status, phone.errors) == (CallStatus.COMPLETED, [])


async def test_the_caller_hangs_up_and_the_application_is_told(
    carrier: TwilioSimulator, application: Application
) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        phone = carrier.inbound_call(page(application, endpoint.host))
        await application.hit(lambda hit: hit.path == "/progress")
        await phone.hangup()
        await asyncio.wait_for(endpoint.hung_up.wait(), 5)
        assert (await done(application)).form["DialCallStatus"] == "completed"


async def test_the_caller_gives_up_while_it_rings(carrier: TwilioSimulator, application: Application) -> None:
    async with SipEndpoint(KNOWN, rings_for=float("inf")) as endpoint:
        phone = carrier.inbound_call(page(application, endpoint.host))
        await asyncio.wait_for(endpoint.ringing.wait(), 5)
        await phone.hangup()
        await asyncio.wait_for(endpoint.canceled.wait(), 5)
        assert (await done(application)).form["DialCallStatus"] == "canceled"


@pytest.mark.parametrize(
    ("status", "said"), [(486, "busy"), (480, "no-answer"), (503, "failed"), (404, "failed")], ids=str
)
async def test_the_far_end_refuses(carrier: TwilioSimulator, application: Application, status: int, said: str) -> None:
    async with SipEndpoint(KNOWN, status=status) as endpoint:
        phone = carrier.inbound_call(page(application, endpoint.host))
        hit = await done(application)
        assert (hit.form["DialCallStatus"], hit.form["DialSipResponseCode"]) == (said, str(status))
        await phone.finished()
        assert not phone.transferred.has_come()


async def test_wrong_credentials_fail_the_dial(carrier: TwilioSimulator, application: Application) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        carrier.inbound_call(page(application, endpoint.host, password="a&amp;b"))
        hit = await done(application)
        assert (hit.form["DialCallStatus"], hit.form["DialSipResponseCode"]) == ("failed", "401")
        assert endpoint.calls == []


async def test_a_caller_id_goes_before_the_number(carrier: TwilioSimulator, application: Application) -> None:
    async with SipEndpoint(KNOWN) as endpoint:
        phone = carrier.inbound_call(page(application, endpoint.host, callerId="call_1"))
        await application.hit(lambda hit: hit.path == "/progress")
        assert "<sip:call_1@" in (endpoint.calls[0].invite.get_header("from") or "")
        assert phone.from_ not in str(bytes(endpoint.calls[0].invite))
        await phone.hangup()


async def test_a_host_that_does_not_exist(carrier: TwilioSimulator, application: Application) -> None:
    phone = carrier.inbound_call(page(application, "no-such-host.invalid"))
    assert (await done(application)).form["DialCallStatus"] == "failed"
    await phone.finished()
    assert [error.code for error in phone.errors] == [Fault.SIP_UNREACHABLE]


@pytest.mark.parametrize(
    "sip",
    [
        '<Sip statusCallbackEvent="answered busy">sip:a@b</Sip>',
        f"<Sip>sip:{'a' * 255}@b</Sip>",
        '<Sip user="u">sip:a@b</Sip>',
        "<Sip>tel:+15550001111</Sip>",
        "<Sip/>",
    ],
)
async def test_what_twilio_would_refuse(carrier: TwilioSimulator, application: Application, sip: str) -> None:
    phone = carrier.inbound_call(application.page("/voice", f"<Dial>{sip}</Dial>"))
    await phone.ended.wait()
    await phone.finished()
    assert [error.code for error in phone.errors] == [Fault.SCHEMA]
