from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.carriers.answers import twilio_hangup, twilio_stream

URL = "wss://calls.example.com/twilio/AQ-_x"


def test_the_whole_document() -> None:
    assert twilio_stream(URL, "This is LiveKit Twilio Connector") == (
        "<?xml version='1.0' encoding='utf-8'?>\n"
        "<Response><Say>This is LiveKit Twilio Connector</Say>"
        '<Connect><Stream url="wss://calls.example.com/twilio/AQ-_x" /></Connect></Response>'
    )


@pytest.mark.parametrize("say", ["", " ", "\n\t", "\x00"])
def test_nothing_to_say_says_nothing(say: str) -> None:
    root = ElementTree.fromstring(twilio_stream(URL, say))
    assert [child.tag for child in root] == ["Connect"]


def test_hanging_up() -> None:
    root = ElementTree.fromstring(twilio_hangup())
    assert (root.tag, [child.tag for child in root]) == ("Response", ["Hangup"])


@pytest.mark.parametrize(
    ("say", "spoken"),
    [
        ("</Say><Hangup/>", "</Say><Hangup/>"),
        ("a & b &amp; <c> ]]> \"d\" 'e'", "a & b &amp; <c> ]]> \"d\" 'e'"),
        ("Grüß Gott, 你好 😀", "Grüß Gott, 你好 😀"),
        ("  padded  ", "padded"),
        ("be\x07ll \ud800half \uffffno", "bell half no"),
    ],
)
def test_what_is_said_stays_what_it_is(say: str, spoken: str) -> None:
    root = ElementTree.fromstring(twilio_stream(URL, say))
    assert [child.tag for child in root] == ["Say", "Connect"]
    assert root[0].text == spoken


@given(say=st.text(st.characters(), max_size=60), path=st.text(st.characters(), max_size=60))
def test_no_text_changes_the_document(say: str, path: str) -> None:
    root = ElementTree.fromstring(twilio_stream(f"wss://host/{path}", say))
    assert [child.tag for child in root][-1] == "Connect"
    assert len(root) <= 2
    assert [(child.tag, set(child.attrib)) for child in root[-1]] == [("Stream", {"url"})]
