from __future__ import annotations

import pytest

from carrier_simulator.faults import Fault, Refused
from carrier_simulator.twilio.twiml import parse_twiml
from carrier_simulator.verbs import (
    Connect,
    Dial,
    Gather,
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Stream,
    Target,
)


def parse(inside: str, content_type: str = "text/xml") -> tuple[object, ...]:
    return parse_twiml(f"<Response>{inside}</Response>".encode(), content_type)


def test_every_verb_is_read() -> None:
    verbs = parse(
        '<Say voice="alice"> Hello </Say><Pause length="2"/><Pause/><Play>http://a/b.wav</Play>'
        '<Redirect method="GET">http://a/b?c=d&amp;e</Redirect><Reject reason="busy"/><Hangup/>'
    )
    assert verbs == (
        Say("Hello"),
        Pause(2),
        Pause(1),
        Play("http://a/b.wav"),
        Redirect("http://a/b?c=d&e", "GET"),
        Reject("busy"),
        Hangup(),
    )


def test_a_stream_with_parameters_and_an_action_is_read() -> None:
    verbs = parse(
        '<Connect action="http://a/done" method="GET"><Stream url="wss://a/b" name="x">'
        '<Parameter name="color" value="blue"/><Parameter name="empty" value=""/></Stream></Connect>'
    )
    assert verbs == (Connect(Stream("wss://a/b", {"color": "blue", "empty": ""}), "http://a/done", "GET"),)


def test_a_question_for_digits_is_read() -> None:
    verbs = parse('<Gather action="/pin" numDigits="4" finishOnKey="*" timeout="7"><Say>PIN?</Say></Gather><Gather/>')
    assert verbs == (
        Gather((Say("PIN?"),), "/pin", "POST", 4, "*", 7, 7),
        Gather((), "", "POST", None, "#", 5, 5),
    )


def test_whom_to_dial_is_read() -> None:
    verbs = parse(
        '<Dial callerId="+1" timeout="9" action="/after"><Number>+15551112222</Number></Dial><Dial>+1555</Dial>'
        '<Dial><Sip username="u" password="p">sip:a@b</Sip></Dial>'
    )
    assert verbs == (
        Dial((Target("+15551112222"),), "/after", "POST", 9, "+1"),
        Dial((Target("+1555"),), "", "POST", 30, ""),
        Dial((Target("sip:a@b", "u", "p"),), "", "POST", 30, ""),
    )


def test_where_a_stream_reports_is_read() -> None:
    (verb,) = parse('<Connect><Stream url="wss://a" statusCallback="http://b" statusCallbackMethod="GET"/></Connect>')
    assert verb == Connect(Stream("wss://a", callback="http://b", callback_method="GET"))


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"<Response>", "text/xml", Fault.DOCUMENT_PARSE),
        (b"", "text/xml", Fault.DOCUMENT_PARSE),
        (b"not xml", "text/xml", Fault.DOCUMENT_PARSE),
        (b'\n<?xml version="1.0"?><Response/>', "text/xml", Fault.DOCUMENT_PARSE),
        (b"<response/>", "text/xml", Fault.DOCUMENT_PARSE),
        (b"<Response/>", "application/json", Fault.CONTENT_TYPE),
        (b"<Response/>", "", Fault.CONTENT_TYPE),
        (b"<Response><Fax>+1555</Fax></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Pause>1</Pause></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Dial/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Dial><Number/></Dial></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Dial><User>x</User></Dial></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Dial><Sip>+1555</Sip></Dial></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Dial timeout='1'>+1555</Dial></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Gather input='speech'/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Gather finishOnKey='A'/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Gather numDigits='0'/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Gather timeout='soon'/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Gather><Hangup/></Gather></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Gather>digits, please</Gather></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><say>hello</say></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response>hello</Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Say/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Say tone='x'>a</Say></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Say><Pause/></Say></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Pause length='long'/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Redirect method='PUT'>http://a</Redirect></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Reject reason='no'/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Connect/></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Connect><Room>a</Room></Connect></Response>", "text/xml", Fault.SCHEMA),
        (b"<Response><Connect><Stream/></Connect></Response>", "text/xml", Fault.SCHEMA),
        (
            b"<Response><Connect><Stream url='wss://a'>wss://a<b/></Stream></Connect></Response>",
            "text/xml",
            Fault.SCHEMA,
        ),
        (
            b"<Response><Connect><Stream url='wss://a' track='both_tracks'/></Connect></Response>",
            "text/xml",
            Fault.SCHEMA,
        ),
        (
            b"<Response><Connect><Stream url='wss://a'><Parameter name='n'/></Stream></Connect></Response>",
            "text/xml",
            Fault.SCHEMA,
        ),
    ],
)
def test_what_twilio_would_complain_about_is_refused(body: bytes, content_type: str, code: Fault) -> None:
    with pytest.raises(Refused) as refused:
        parse_twiml(body, content_type)
    assert refused.value.error.code is code


@pytest.mark.parametrize("content_type", ["text/xml", "application/xml; charset=utf-8", "TEXT/HTML"])
def test_the_content_types_of_xml_are_taken(content_type: str) -> None:
    assert parse("<Hangup/>", content_type) == (Hangup(),)
