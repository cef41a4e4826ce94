"""What a call does when its document asks for digits, or connects the caller with somebody else."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from carrier_simulator import Answer, CallOptions, InboundCall, Outcome, TwilioSimulator
from carrier_simulator.verbs import Target
from tests.unit.simulator.application import Application, Hit

FRIEND = "+15559990000"


@pytest.fixture
async def carrier() -> AsyncIterator[TwilioSimulator]:
    async with TwilioSimulator(options=CallOptions(gather_seconds=0.2)) as simulator:
        yield simulator


async def to(application: Application, path: str) -> Hit:
    return await application.hit(lambda hit: hit.path == path)


def ask(carrier: TwilioSimulator, application: Application, gather: str) -> InboundCall:
    application.page("/pin", "<Say>Thank you</Say>")
    return carrier.call_in(application.page("/hook", f"{gather}<Say>No digits</Say>"))


@pytest.mark.parametrize(
    ("attributes", "pressed", "digits"),
    [
        ('numDigits="4"', "12345", "1234"),
        ('numDigits="4"', "12#34", "12"),
        ("", "12345#", "12345"),
        ('finishOnKey="*"', "1#2*", "1#2"),
        ('finishOnKey=""', "1#", "1#"),
        ('numDigits="4"', "12", "12"),
    ],
    ids=["as many as wanted", "ended by #", "any number", "another last key", "no last key", "too slow"],
)
async def test_digits_are_sent_to_the_action(
    carrier: TwilioSimulator, application: Application, attributes: str, pressed: str, digits: str
) -> None:
    call = ask(carrier, application, f'<Gather action="{application.url}/pin" {attributes}><Say>PIN?</Say></Gather>')
    await call.enter(pressed)
    await call.ended.wait()
    hit = await to(application, "/pin")
    assert (hit.form["Digits"], hit.form["CallSid"], hit.valid) == (digits, call.sid, True)
    assert call.spoken == ["PIN?", "Thank you"]


async def test_without_digits_the_document_goes_on(carrier: TwilioSimulator, application: Application) -> None:
    call = ask(carrier, application, f'<Gather action="{application.url}/pin"/>')
    await call.ended.wait()
    assert call.spoken == ["No digits"]


async def test_the_action_may_be_asked_without_digits(carrier: TwilioSimulator, application: Application) -> None:
    call = ask(carrier, application, f'<Gather action="{application.url}/pin" actionOnEmptyResult="true"/>')
    await call.ended.wait()
    assert (await to(application, "/pin")).form["Digits"] == ""
    assert call.spoken == ["Thank you"]


async def test_without_an_action_the_document_itself_gets_the_digits(
    carrier: TwilioSimulator, application: Application
) -> None:
    call = carrier.call_in(application.page("/hook", '<Gather numDigits="1"/>'))
    await to(application, "/hook")
    for digit in "12":
        await call.enter(digit)
        assert (await to(application, "/hook")).form["Digits"] == digit
    await call.ended.wait()


async def test_hanging_up_ends_a_question(carrier: TwilioSimulator, application: Application) -> None:
    call = ask(carrier, application, f'<Gather action="{application.url}/pin"/>')
    await call.keypad.asked()
    await call.hangup()
    assert (call.status, call.spoken) == ("completed", [])


async def test_the_caller_is_connected_until_the_other_hangs_up(
    carrier: TwilioSimulator, application: Application
) -> None:
    carrier.script(FRIEND, Outcome(talks=0.05))
    after = application.page("/after", "<Say>Welcome back</Say>")
    document = f'<Dial action="{after}"><Number>{FRIEND}</Number></Dial><Say>Never</Say>'
    call = carrier.call_in(application.page("/hook", document))
    await call.ended.wait()
    form = (await to(application, "/after")).form
    assert (form["DialCallStatus"], form["DialCallDuration"], form["CallStatus"]) == ("completed", "1", "in-progress")
    assert form["DialCallSid"] != call.sid
    assert (call.dialled, call.transferred.has_come()) == ([Target(FRIEND)], True)
    assert call.spoken == ["Welcome back"]


@pytest.mark.parametrize(
    ("outcome", "status"),
    [
        (Outcome(Answer.BUSY, 0.01), "busy"),
        (Outcome(Answer.FAILED, 0.01), "failed"),
        (Outcome(Answer.NO_ANSWER, 0.01), "no-answer"),
    ],
)
async def test_whoever_does_not_answer_is_told(
    carrier: TwilioSimulator, application: Application, outcome: Outcome, status: str
) -> None:
    carrier.script(FRIEND, outcome)
    after = application.page("/after", "")
    call = carrier.call_in(application.page("/hook", f'<Dial action="{after}">{FRIEND}</Dial>'))
    await call.ended.wait()
    assert (await to(application, "/after")).form["DialCallStatus"] == status
    assert not call.transferred.has_come()


async def test_without_an_action_the_document_goes_on_after_the_dialled_call(
    carrier: TwilioSimulator, application: Application
) -> None:
    carrier.script(FRIEND, Outcome(talks=0.0))
    call = carrier.call_in(application.page("/hook", f"<Dial>{FRIEND}</Dial><Say>Alone again</Say>"))
    await call.ended.wait()
    assert call.spoken == ["Alone again"]


async def test_the_caller_ends_the_connection(carrier: TwilioSimulator, application: Application) -> None:
    call = carrier.call_in(application.page("/hook", f"<Dial>{FRIEND}</Dial><Say>Never</Say>"))
    await call.transferred.wait()
    await call.hangup()
    assert (call.status, call.spoken) == ("completed", [])


async def test_a_stream_reports_its_start_and_its_stop(carrier: TwilioSimulator, application: Application) -> None:
    report = application.page("/report", "")
    stream = f'<Connect><Stream url="{application.stream_url}" statusCallback="{report}"/></Connect>'
    call = carrier.call_in(application.page("/hook", stream))
    socket = await application.socket()
    assert (await to(application, "/report")).form["StreamEvent"] == "stream-started"
    await socket.ws.close()
    stopped = await to(application, "/report")
    assert (stopped.form["StreamEvent"], stopped.form["StreamSid"]) == ("stream-stopped", socket.sid)
    await call.ended.wait()


async def test_a_stream_that_cannot_open_reports_an_error(carrier: TwilioSimulator, application: Application) -> None:
    application.refuse_stream = 410
    report = application.page("/report", "")
    stream = f'<Connect><Stream url="{application.stream_url}" statusCallback="{report}"/></Connect>'
    call = carrier.call_in(application.page("/hook", stream))
    assert (await to(application, "/report")).form["StreamEvent"] == "stream-error"
    await call.ended.wait()
