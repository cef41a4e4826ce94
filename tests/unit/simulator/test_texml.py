from __future__ import annotations

import pytest

from carrier_simulator.faults import Fault, Refused
from carrier_simulator.sounds import ALAW, LINEAR_8_BIG, LINEAR_16_BIG, MULAW
from carrier_simulator.telnyx.texml import parse_texml
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


def parse(inside: str, content_type: str = "text/xml") -> tuple[Verb, ...]:
    return parse_texml(f"<Response>{inside}</Response>".encode(), content_type)


def stream(attributes: str) -> Stream:
    (start,) = parse(f'<Start><Stream url="wss://a/b?ref=c" {attributes}/></Start>')
    assert isinstance(start, Start)
    return start.stream


def test_the_documented_answer_is_read() -> None:
    verbs = parse_texml(
        b'<?xml version="1.0" encoding="UTF-8"?>\n<Response>\n<Start>\n<Stream url="wss://a/telnyx?ref=b" '
        b'track="both_tracks" bidirectionalMode="rtp" bidirectionalCodec="PCMU" />\n</Start>\n'
        b'<Pause length="86400" />\n</Response>',
        "application/xml; charset=utf-8",
    )
    assert verbs == (Start(Stream("wss://a/telnyx?ref=b", echoes=True)), Pause(86400))


@pytest.mark.parametrize(
    ("attributes", "speaks", "plays"),
    [
        ("", MULAW, MULAW),
        ('codec="PCMA"', ALAW, MULAW),
        ('bidirectionalCodec="PCMA"', MULAW, ALAW),
        ('codec="L16" bidirectionalCodec="L16" bidirectionalSamplingRate="16000"', LINEAR_16_BIG, LINEAR_16_BIG),
        ('bidirectionalCodec="L16"', MULAW, LINEAR_8_BIG),
        ('codec="L16"', LINEAR_16_BIG, MULAW),
    ],
)
def test_each_direction_has_a_coding_of_its_own(attributes: str, speaks: object, plays: object) -> None:
    found = stream(f'bidirectionalMode="rtp" {attributes}')
    assert (found.speaks, found.plays) == (speaks, plays)


def test_without_a_mode_files_are_expected() -> None:
    assert stream("").takes is Takes.FILES
    assert stream('bidirectionalMode="rtp"').takes is Takes.SAMPLES


def test_a_stream_without_both_tracks_echoes_nothing() -> None:
    assert not stream('track="inbound_track"').echoes


def test_parameters_and_callbacks_of_a_stream_are_read() -> None:
    (verb,) = parse(
        '<Connect><Stream url="wss://a" bidirectionalMode="rtp" statusCallback="http://c" statusCallbackMethod="GET">'
        '<Parameter name="k" value="v"/></Stream></Connect>'
    )
    assert verb == Connect(Stream("wss://a", {"k": "v"}, callback="http://c", callback_method="GET"))


def test_the_other_verbs_are_read() -> None:
    verbs = parse(
        '<Say voice="alice">Hi</Say><Play>http://a</Play><Redirect method="GET">http://b</Redirect>'
        '<Reject reason="busy"/><Hangup/><Gather numDigits="4" action="/p" timeout="9"><Say>PIN?</Say></Gather>'
        '<Gather maxDigits="3" finishOnKey="*"/>'
        '<Dial callerId="+1"><Number>+1555</Number></Dial><Dial><Sip username="u" password="p">sip:a@b</Sip></Dial>'
    )
    assert verbs == (
        Say("Hi"),
        Play("http://a"),
        Redirect("http://b", "GET"),
        Reject("busy"),
        Hangup(),
        Gather((Say("PIN?"),), "/p", "POST", 4, "#", 9, 9),
        Gather((), "", "POST", 3, "*", 5, 5),
        Dial((Target("+1555"),), "", "POST", 30, "+1"),
        Dial((Target("sip:a@b", "u", "p"),), "", "POST", 30, ""),
    )


@pytest.mark.parametrize(
    "inside",
    [
        "<Start/>",
        "<Start><Stream/></Start>",
        "<Start><Siprec/></Start>",
        '<Stream url="wss://a"/>',
        '<Start><Stream url="wss://a" track="both"/></Start>',
        '<Start><Stream url="wss://a" track="outbound_track"/></Start>',
        '<Start><Stream url="wss://a" bidirectional="true"/></Start>',
        '<Start><Stream url="wss://a" bidirectionalMode="RTP"/></Start>',
        '<Start><Stream url="wss://a" bidirectionalCodec="mulaw"/></Start>',
        '<Start><Stream url="wss://a" bidirectionalCodec="L16" bidirectionalSamplingRate="24000"/></Start>',
        '<Start><Stream url="wss://a" bidirectionalSamplingRate="44100"/></Start>',
        '<Start><Stream url="wss://a">text</Stream></Start>',
        '<Start><Stream url="wss://a"><Parameter name="k"/></Stream></Start>',
        '<Start action="http://a"><Stream url="wss://a"/></Start>',
        '<Pause length="long"/>',
        '<Pause length="86401"/>',
        "<Pause>1</Pause>",
        "<Say/>",
        "<Speak>Hi</Speak>",
        "<Hangup reason='x'/>",
        "<Redirect/>",
        "<Reject reason='no'/>",
        "<Gather input='speech'/>",
        "<Gather timeout='121'/>",
        "<Gather numDigits='x'/>",
        "<Gather finishOnKey='##'/>",
        "<Gather><Dial>+1</Dial></Gather>",
        "<Dial/>",
        "<Dial><Number/></Dial>",
        "<Dial><User>sip:a@b</User></Dial>",
        "<Dial><Sip>a@b</Sip></Dial>",
        "<Dial timeout='200'>+1</Dial>",
        "text",
    ],
)
def test_what_telnyx_does_not_know_is_refused(inside: str) -> None:
    with pytest.raises(Refused) as refused:
        parse(inside)
    assert refused.value.error.code is Fault.SCHEMA


@pytest.mark.parametrize(
    ("body", "content_type", "code"),
    [
        (b"<Response>", "text/xml", Fault.DOCUMENT_PARSE),
        (b"<TeXML/>", "text/xml", Fault.DOCUMENT_PARSE),
        (b"<Response/>", "text/html", Fault.CONTENT_TYPE),
        (b"<Response/>", "", Fault.CONTENT_TYPE),
    ],
)
def test_what_is_no_document_is_refused(body: bytes, content_type: str, code: Fault) -> None:
    with pytest.raises(Refused) as refused:
        parse_texml(body, content_type)
    assert refused.value.error.code is code
