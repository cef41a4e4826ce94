from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.carriers.plivo import Plivo
from connector.carriers.telnyx import Telnyx
from connector.model.provider import Provider
from tests.carriers import CARRIERS

URL = "wss://calls.example.com/twilio/AQ-_x"
REF = "wss://calls.example.com/telnyx?ref=AQ-_x&more=1"
HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
DOCS = Path(__file__).resolve().parents[3] / "docs"
ALL = pytest.mark.parametrize("provider", CARRIERS)
SAYS = {Provider.TWILIO: "Say", Provider.TELNYX: "Say", Provider.PLIVO: "Speak"}


def tags(document: str) -> list[str]:
    root = ElementTree.fromstring(document)
    assert root.tag == "Response"
    return [child.tag for child in root]


class TestStreams:
    @ALL
    def test_the_document_is_the_one_that_the_carriers_page_shows(self, provider: Provider) -> None:
        ref = "/…" if provider is Provider.TWILIO else "?ref=…"
        page = (DOCS / f"{provider.value}.md").read_text()
        answer = CARRIERS[provider].stream_answer(f"wss://voice.example.com/{provider.value}{ref}")
        assert f"```xml\n{answer}```\n" in page

    def test_twilios_whole_document(self) -> None:
        assert CARRIERS[Provider.TWILIO].stream_answer(URL, "This is LiveKit Twilio Connector") == HEAD + (
            "<Response>\n"
            "  <Say>This is LiveKit Twilio Connector</Say>\n"
            "  <Connect>\n"
            '    <Stream url="wss://calls.example.com/twilio/AQ-_x" />\n'
            "  </Connect>\n"
            '  <Redirect method="POST">https://calls.example.com/twilio/AQ-_x/resume</Redirect>\n'
            "</Response>\n"
        )

    def test_telnyxs_whole_document(self) -> None:
        assert CARRIERS[Provider.TELNYX].stream_answer(REF) == HEAD + (
            "<Response>\n"
            "  <Start>\n"
            '    <Stream url="wss://calls.example.com/telnyx?ref=AQ-_x&amp;more=1" track="both_tracks" '
            'bidirectionalMode="rtp" bidirectionalCodec="PCMU" codec="PCMU" />\n'
            "  </Start>\n"
            '  <Pause length="10" />\n'
            '  <Redirect method="POST">https://calls.example.com/telnyx/AQ-_x/resume</Redirect>\n'
            "</Response>\n"
        )

    def test_plivos_whole_document(self) -> None:
        answer = CARRIERS[Provider.PLIVO].stream_answer(REF)
        assert answer == HEAD + (
            "<Response>\n"
            '  <Stream bidirectional="true" keepCallAlive="true" contentType="audio/x-mulaw;rate=8000">'
            "wss://calls.example.com/telnyx?ref=AQ-_x&amp;more=1</Stream>\n"
            '  <Redirect method="POST">https://calls.example.com/telnyx/AQ-_x/resume</Redirect>\n'
            "</Response>\n"
        )

    def test_telnyxs_document_with_a_connect_waits_for_the_end_of_the_stream(self) -> None:
        carrier = Telnyx(in_connect=True)
        root = ElementTree.fromstring(carrier.stream_answer(REF))
        assert [child.tag for child in root] == ["Connect", "Redirect"]
        assert root[0][0].attrib["bidirectionalMode"] == "rtp"
        assert not carrier.stream_outlives_document
        assert Telnyx().stream_outlives_document

    @pytest.mark.parametrize(
        ("carrier", "wanted"),
        [
            (Telnyx("PCMA"), {"bidirectionalCodec": "PCMA", "codec": "PCMA"}),
            (
                Telnyx("L16"),
                {"bidirectionalCodec": "L16", "codec": "L16", "bidirectionalSamplingRate": "16000"},
            ),
        ],
    )
    def test_telnyx_is_asked_for_another_codec_both_ways(self, carrier: Telnyx, wanted: dict[str, str]) -> None:
        stream = ElementTree.fromstring(carrier.stream_answer(REF))[0][0]
        assert wanted.items() <= stream.attrib.items()

    @pytest.mark.parametrize("content", ["audio/x-l16;rate=8000", "audio/x-l16;rate=16000"])
    def test_plivo_is_asked_for_another_content(self, content: str) -> None:
        stream = ElementTree.fromstring(Plivo(content).stream_answer(REF))[0]  # type: ignore[arg-type]
        assert stream.attrib["contentType"] == content

    @ALL
    @pytest.mark.parametrize("say", ["", " ", "\n\t", "\x00"])
    def test_nothing_to_say_says_nothing(self, provider: Provider, say: str) -> None:
        assert SAYS[provider] not in tags(CARRIERS[provider].stream_answer(URL, say))

    @ALL
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
    def test_what_is_said_stays_what_it_is(self, provider: Provider, say: str, spoken: str) -> None:
        root = ElementTree.fromstring(CARRIERS[provider].stream_answer(URL, say))
        assert (root[0].tag, root[0].text) == (SAYS[provider], spoken)

    @given(
        provider=st.sampled_from(sorted(CARRIERS)),
        say=st.text(st.characters(), max_size=60),
        path=st.text(st.characters(), max_size=60),
    )
    def test_no_text_changes_the_document(self, provider: Provider, say: str, path: str) -> None:
        bare = tags(CARRIERS[provider].stream_answer(URL))
        assert tags(CARRIERS[provider].stream_answer(f"wss://host/{path}", say))[-len(bare) :] == bare


class TestOtherAnswers:
    @ALL
    def test_hanging_up(self, provider: Provider) -> None:
        assert CARRIERS[provider].hang_up() == f"{HEAD}<Response>\n  <Hangup />\n</Response>\n"

    @ALL
    def test_a_phone_is_held_and_comes_back(self, provider: Provider) -> None:
        root = ElementTree.fromstring(CARRIERS[provider].hold("https://x/y/resume?tried=2", 7))
        pause, back = root
        assert (pause.tag, pause.attrib) == ("Wait" if provider is Provider.PLIVO else "Pause", {"length": "7"})
        assert (back.tag, back.text, back.attrib) == ("Redirect", "https://x/y/resume?tried=2", {"method": "POST"})

    @ALL
    def test_a_refusal_is_polite(self, provider: Provider) -> None:
        root = ElementTree.fromstring(CARRIERS[provider].refusal("Sorry & goodbye."))
        assert [child.tag for child in root] == [SAYS[provider], "Hangup"]
        assert root[0].text == "Sorry & goodbye."

    @ALL
    def test_a_pin_is_asked_for_and_sent_to_us(self, provider: Provider) -> None:
        url = "https://calls.example.com/v2/hooks/x/whk_1?step=pin&try=2"
        root = ElementTree.fromstring(CARRIERS[provider].ask_pin(url, "Please enter the PIN.", 4))
        gather = root[0]
        assert gather.tag == ("GetInput" if provider is Provider.PLIVO else "Gather")
        assert (gather.attrib["action"], gather.attrib["method"]) == (url, "POST")
        assert (gather.attrib["numDigits"], gather.attrib["finishOnKey"]) == ("4", "#")
        assert [(child.tag, child.text) for child in gather] == [(SAYS[provider], "Please enter the PIN.")]

    @ALL
    def test_who_presses_nothing_comes_back_to_us_too(self, provider: Provider) -> None:
        root = ElementTree.fromstring(CARRIERS[provider].ask_pin("https://x/y", "PIN?", 4))
        if provider is Provider.TWILIO:
            assert root[0].attrib["actionOnEmptyResult"] == "true"
        else:
            assert (root[1].tag, root[1].text) == ("Redirect", "https://x/y")

    def test_plivo_does_not_log_a_pin(self) -> None:
        assert (
            ElementTree.fromstring(CARRIERS[Provider.PLIVO].ask_pin("https://x", "PIN?", 4))[0].attrib["log"] == "false"
        )
