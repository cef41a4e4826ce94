from __future__ import annotations

import pytest

from carrier_simulator.faults import Fault, Refused
from carrier_simulator.plivo.documents import parse_plivo_xml
from carrier_simulator.sounds import LINEAR_8_LITTLE, LINEAR_16_LITTLE, MULAW
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
    Start,
    Stream,
    Takes,
    Target,
    Verb,
)

BOTH_WAYS = 'bidirectional="true" keepCallAlive="true"'


def parse(inside: str, content_type: str = "text/xml") -> tuple[Verb, ...]:
    return parse_plivo_xml(f"<Response>{inside}</Response>".encode(), content_type)


def test_the_documented_answer_is_read() -> None:
    verbs = parse(
        f'<Stream {BOTH_WAYS} contentType="audio/x-mulaw;rate=8000" extraHeaders="k=v;k2=v2">\n'
        "wss://a/plivo?ref=b&amp;c=d\n</Stream>",
        "application/xml; charset=utf-8",
    )
    assert verbs == (Connect(Stream("wss://a/plivo?ref=b&c=d", {"k": "v", "k2": "v2"}, reconnects=2)),)


@pytest.mark.parametrize(
    ("attributes", "sound"),
    [
        ("", LINEAR_8_LITTLE),
        ('contentType="audio/x-l16;rate=8000"', LINEAR_8_LITTLE),
        ('contentType="audio/x-l16;rate=16000"', LINEAR_16_LITTLE),
        ('contentType="audio/x-mulaw;rate=8000"', MULAW),
    ],
)
def test_both_directions_have_the_documents_coding(attributes: str, sound: object) -> None:
    (verb,) = parse(f"<Stream {BOTH_WAYS} {attributes}>wss://a</Stream>")
    assert isinstance(verb, Connect)
    assert (verb.stream.speaks, verb.stream.plays) == (sound, sound)


def test_a_stream_that_does_not_keep_the_call_alive_lets_the_document_go_on() -> None:
    (verb,) = parse('<Stream bidirectional="true">wss://a</Stream>')
    assert isinstance(verb, Start)
    assert verb.stream.takes is Takes.SAMPLES


def test_without_a_word_a_stream_has_one_direction() -> None:
    (verb,) = parse('<Stream keepCallAlive="true">wss://a</Stream>')
    assert isinstance(verb, Start)
    assert verb.stream.takes is Takes.NOTHING


def test_where_a_stream_reports_is_read() -> None:
    (verb,) = parse(f'<Stream {BOTH_WAYS} statusCallbackUrl="http://c" statusCallbackMethod="GET">wss://a</Stream>')
    assert isinstance(verb, Connect)
    assert (verb.stream.callback, verb.stream.callback_method) == ("http://c", "GET")


def test_the_other_verbs_are_read() -> None:
    verbs = parse(
        '<Speak voice="WOMAN">Hi</Speak><Play>http://a</Play><Wait length="3"/><Redirect>http://b</Redirect>'
        '<Hangup/><Hangup reason="busy"/>'
        '<GetInput action="http://p" inputType="dtmf" numDigits="4" executionTimeout="9" digitEndTimeout="3">'
        "<Speak>PIN?</Speak></GetInput>"
        '<GetDigits action="http://p" method="GET" timeout="7" finishOnKey="*"><Wait/></GetDigits>'
        '<Dial callerId="1555"><Number>15551112222</Number></Dial><Dial><User>sip:a@b</User></Dial>'
    )
    assert verbs == (
        Say("Hi"),
        Play("http://a"),
        Pause(3),
        Redirect("http://b", "POST"),
        Hangup(),
        Reject("busy"),
        Gather((Say("PIN?"),), "http://p", "POST", 4, "#", 9, 3),
        Gather((Pause(1),), "http://p", "GET", 99, "*", 7, 2),
        Dial((Target("15551112222"),), "", "POST", 120, "1555"),
        Dial((Target("sip:a@b"),), "", "POST", 120, ""),
    )


@pytest.mark.parametrize(
    "inside",
    [
        "<Stream/>",
        '<Stream url="wss://a"/>',
        f"<Stream {BOTH_WAYS}><Parameter name='a' value='b'/></Stream>",
        '<Stream bidirectional="yes">wss://a</Stream>',
        '<Stream contentType="audio/x-mulaw">wss://a</Stream>',
        '<Stream contentType="audio/x-mulaw;rate=16000">wss://a</Stream>',
        '<Stream bidirectional="true" audioTrack="both">wss://a</Stream>',
        '<Stream streamTimeout="0">wss://a</Stream>',
        '<Stream extraHeaders="novalue">wss://a</Stream>',
        '<Stream extraHeaders="a=b c">wss://a</Stream>',
        '<Stream extraHeaders="a={}">wss://a</Stream>',
        f'<Stream extraHeaders="a={"b" * 512}">wss://a</Stream>',
        '<Stream track="inbound">wss://a</Stream>',
        "<Say>Hi</Say>",
        "<Speak/>",
        "<Pause/>",
        "<Wait length='x'/>",
        "<Reject/>",
        "<Hangup reason='tired'/>",
        "<Redirect/>",
        "<GetInput action='http://p'/>",
        "<GetInput inputType='dtmf'/>",
        "<GetInput action='http://p' inputType='speech'/>",
        "<GetInput action='http://p' inputType='dtmf' executionTimeout='3'/>",
        "<GetInput action='http://p' inputType='dtmf' digitEndTimeout='20'/>",
        "<GetInput action='http://p' inputType='dtmf' numDigits='33'/>",
        "<GetInput action='http://p' inputType='dtmf' finishOnKey='A'/>",
        "<GetInput action='http://p' inputType='dtmf'><Hangup/></GetInput>",
        "<GetDigits/>",
        "<GetDigits action='http://p' retries='3'/>",
        "<Gather/>",
        "<Dial/>",
        "<Dial>15551112222</Dial>",
        "<Dial><Number/></Dial>",
        "<Dial><User>a@b</User></Dial>",
        "<Dial><Sip>sip:a@b</Sip></Dial>",
    ],
)
def test_what_plivo_does_not_know_is_refused(inside: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(inside)
    assert refused.value.error.code is Fault.SCHEMA


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"<Response>", "text/xml", Fault.DOCUMENT_PARSE),
        (b"<response/>", "text/xml", Fault.DOCUMENT_PARSE),
        (b"<Response/>", "text/html", Fault.CONTENT_TYPE),
        (b"<Response>" + b" " * 100_000 + b"</Response>", "text/xml", Fault.DOCUMENT_PARSE),
    ],
)
def test_what_is_no_document_is_refused(body: bytes, content_type: str, code: Fault) -> None:
    with pytest.raises(Refused) as refused:
        parse_plivo_xml(body, content_type)
    assert refused.value.error.code is code
