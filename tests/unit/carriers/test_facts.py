from __future__ import annotations

import pytest

from connector.carriers.facts import MAX_LEARNED, CallFacts
from connector.model.provider import Provider
from connector.numbers import WITHHELD, is_withheld
from tests.carriers import CARRIERS

TWILIO = {
    "CallSid": "CA1",
    "AccountSid": "AC1",
    "From": "+15557654321",
    "To": "+15551234567",
    "CallStatus": "in-progress",
    "FromCountry": "US",
    "Digits": "4711",
}
FACTS = CallFacts("CA1", "AC1", "+15557654321", "+15551234567", "in-progress", "US", "4711")


WITHHELD_FORMS = [
    *("+266696687", "+7378742833", "+86282452253", "+8656696", "+2562533"),
    *("266696687", "sip:+266696687@carrier.example"),
    *("anonymous", "Anonymous", "+anonymous", "Restricted", "unavailable", "unknown", "UNKNOWN", "Private Number", ""),
    *(" ", "no caller-id", "withheld", '"Anonymous"', "Unknown Caller", "number withheld"),
    *("anonymous@anonymous.invalid", "sip:anonymous@anonymous.invalid", "sips:anonymous@anonymous.invalid;user=phone"),
    *('"Anonymous" <sip:anonymous@anonymous.invalid>;tag=1', "sip:alice@anonymous.invalid:5060", "sip:restricted@x"),
    *("anonymous.invalid", "sip:anonymous.invalid"),
]


@pytest.mark.parametrize("provider", [Provider.TWILIO, Provider.TELNYX])
def test_twilio_and_texml_use_the_same_names(provider: Provider) -> None:
    assert CARRIERS[provider].call_facts(TWILIO) == FACTS


def test_plivo_has_its_own_and_leaves_the_plus_out() -> None:
    fields = {"CallUUID": "u1", "From": "15557654321", "To": "15551234567", "CallStatus": "ringing", "Digits": "1"}
    assert CARRIERS[Provider.PLIVO].call_facts(fields) == CallFacts(
        "u1", "", "+15557654321", "+15551234567", "ringing", "", "1"
    )


@pytest.mark.parametrize(("theirs", "ours"), [("timeout", "no-answer"), ("cancel", "canceled"), ("busy", "busy")])
def test_plivos_words_for_a_status_become_the_common_ones(theirs: str, ours: str) -> None:
    assert CARRIERS[Provider.PLIVO].call_facts({"CallStatus": theirs}).status == ours


@pytest.mark.parametrize("text", ["100", "0123456789", "sip:a@b", "client:jenny", "1234567890123456"])
def test_what_is_no_number_of_the_world_stays_as_it_is(text: str) -> None:
    assert CARRIERS[Provider.PLIVO].call_facts({"From": text}).from_number == text


@pytest.mark.parametrize("provider", CARRIERS)
@pytest.mark.parametrize("text", WITHHELD_FORMS)
def test_a_withheld_number_is_one_word_of_every_carrier(provider: Provider, text: str) -> None:
    assert is_withheld(text)
    assert CARRIERS[provider].call_facts({"From": text, "To": "+15550001111"}).from_number == WITHHELD


@pytest.mark.parametrize(
    "text", ["+15551234567", "+2666966871", "client:anonymous", "sip:bob@example.com", "911", "anna"]
)
def test_a_number_or_a_name_is_none(text: str) -> None:
    assert not is_withheld(text)


@pytest.mark.parametrize("provider", CARRIERS)
def test_nothing_said_is_nothing_learned(provider: Provider) -> None:
    assert CARRIERS[provider].call_facts({}) == CallFacts()


def test_what_is_far_too_long_is_cut() -> None:
    assert len(CARRIERS[Provider.TWILIO].call_facts({"CallSid": "x" * 5000}).call_id) == MAX_LEARNED


EVENT = b'{"data": {"event_type": "call.initiated", "payload": {"call_control_id": "v3:x"}}, "meta": {"attempt": 1}}'


@pytest.mark.parametrize(
    ("provider", "body", "name"),
    [
        (Provider.TELNYX, EVENT, "call.initiated"),
        (Provider.TELNYX, b"  " + EVENT, "call.initiated"),
        (Provider.TWILIO, EVENT, ""),
        (Provider.TELNYX, b"CallSid=v3%3Ax", ""),
        (Provider.TELNYX, b"{", ""),
        (Provider.TELNYX, b"{}", ""),
        (Provider.TELNYX, b'{"data": []}', ""),
        (Provider.TELNYX, b'{"data": {"event_type": 5}}', ""),
        (Provider.TELNYX, b'{"data": {"event_type": "a\\nb"}}', ""),
        (Provider.TELNYX, b"\xff", ""),
    ],
)
def test_an_event_of_the_voice_api_is_known_by_its_name(provider: Provider, body: bytes, name: str) -> None:
    refused = CARRIERS[provider].wrong_event(body)
    assert (f"({name})" in refused) if name else refused == ""
