from __future__ import annotations

import pytest

from connector.demo.carrier.faults import Fault, Refused
from connector.demo.carrier.twiml import (
    Connect,
    Hangup,
    Pause,
    Play,
    Redirect,
    Reject,
    Say,
    Stream,
    parse_twiml,
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
        (b"<Response><Dial>+1555</Dial></Response>", "text/xml", Fault.SCHEMA),
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
