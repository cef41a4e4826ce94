"""TwiML that dials SIP, read back as XML; what cannot be carried is refused, not mended."""

from __future__ import annotations

from collections.abc import Callable
from xml.etree import ElementTree

import pytest

from connector.carriers.twilio.dial import (
    SipDial,
    check_password,
    check_username,
    sip_uri,
    twilio_dial,
    valid_caller_id,
)

URI = "sip:+15550001111@sip.example.com"


def test_the_form_of_livekits_page() -> None:
    assert twilio_dial(SipDial(URI, "user", "secret")) == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        "<Response>\n"
        "  <Dial>\n"
        f'    <Sip username="user" password="secret">{URI}</Sip>\n'
        "  </Dial>\n"
        "</Response>\n"
    )


@pytest.mark.parametrize("awkward", ["<&>'", "a&amp;b", "]]>", "%26", "{x}", "~!#$*()[]"])
def test_whatever_stands_in_a_credential_comes_out_again(awkward: str) -> None:
    uri = "sip:+15550001111@sip.example.com;a=1?x-b=<1>&x-c=2"
    dial = SipDial(uri, awkward, awkward, action="https://h/a?b=1&c=<2>", progress="https://h/p?a=1&b=2")
    root = ElementTree.fromstring(twilio_dial(dial))
    (verb,) = root
    (sip,) = verb
    assert (sip.attrib["username"], sip.attrib["password"], sip.text) == (awkward, awkward, uri)
    assert (verb.attrib["action"], verb.attrib["method"]) == ("https://h/a?b=1&c=<2>", "POST")
    assert (sip.attrib["statusCallback"], sip.attrib["statusCallbackEvent"]) == ("https://h/p?a=1&b=2", "answered")


def test_what_is_not_given_is_not_written() -> None:
    (verb,) = ElementTree.fromstring(twilio_dial(SipDial(URI, "u", "p")))
    assert verb.attrib == {}
    assert verb[0].attrib == {"username": "u", "password": "p"}
    (verb,) = ElementTree.fromstring(twilio_dial(SipDial(URI, "u", "p", caller_id="call_1", time_limit=60)))
    assert verb.attrib == {"callerId": "call_1", "timeLimit": "60"}


def test_the_password_is_in_no_repr() -> None:
    assert "hunter2" not in repr(SipDial(URI, "u", "hunter2"))


@pytest.mark.parametrize(
    "number", ["", "15550001111", "+05550001111", "+1555", "+1 555 000 1111", "bob", "+1555000111x"]
)
def test_an_address_needs_a_number(number: str) -> None:
    with pytest.raises(ValueError, match=r"E\.164"):
        sip_uri(number, "sip.example.com")


def test_an_address_is_bounded() -> None:
    assert sip_uri("+15550001111", "sip.example.com:5070;transport=tcp") == (
        "sip:+15550001111@sip.example.com:5070;transport=tcp"
    )
    with pytest.raises(ValueError, match="longer"):
        sip_uri("+15550001111", "a" * 250)


@pytest.mark.parametrize("check", [check_username, check_password])
@pytest.mark.parametrize("value", ["", "a b", 'a"b', "a\\b", "a{{From}}", "pässword", "x" * 129, "\x00", "a\n"])
def test_a_credential_that_would_arrive_changed_is_refused(check: Callable[[str], None], value: str) -> None:
    with pytest.raises(ValueError, match="must"):
        check(value)


def test_a_colon_ends_the_user_name_in_a_digest_and_nothing_else() -> None:
    check_password("a:b{c}<&>'")
    with pytest.raises(ValueError, match=":"):
        check_username("a:b")


def test_caller_ids() -> None:
    assert valid_caller_id("+15550001111")
    assert valid_caller_id("call_0123456789abcdef01234567")
    assert not any(valid_caller_id(text) for text in ("", "a b", "<x>", "ä"))
