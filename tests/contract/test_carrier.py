"""What every carrier must do beside its codec: documents, form facts, signatures, URLs; once for each."""

from __future__ import annotations

from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.carriers.carrier import LONGEST_FAREWELL, Carrier
from connector.carriers.facts import CallFacts
from connector.carriers.signatures import SignedRequest
from connector.carriers.transfers import MAX_TIMEOUT, MIN_TIMEOUT, TransferDial
from connector.errors import InvalidArgument
from tests.acme.carrier import Acme
from tests.carriers import CARRIERS

EVERY: list[Carrier] = [*CARRIERS.values(), Acme()]
SECRET = b64encode(bytes(32)).decode()
"""Of a form that each of them takes."""
ORIGIN, TOKEN, URL = "https://calls.example.com", "AQ-_x", "https://calls.example.com/v2/hooks/x/whk_1?step=pin"
SENTENCE = "Sorry, goodbye."
each = pytest.mark.parametrize("carrier", EVERY, ids=lambda carrier: carrier.provider.value)


@each
def test_it_names_itself_and_its_settings(carrier: Carrier) -> None:
    assert carrier.provider.value.isalnum()
    assert carrier.title == carrier.account_rules.title
    for setting in (carrier.signing_setting, carrier.rest_settings, carrier.account_rules.setting):
        assert setting.upper().startswith(f"{carrier.provider.value.upper()}_")


def test_no_two_have_one_name() -> None:
    assert len({carrier.provider for carrier in EVERY}) == len(EVERY)


@each
def test_a_streams_url_holds_the_token_where_the_carrier_leaves_it(carrier: Carrier) -> None:
    for origin, scheme in ((ORIGIN, "wss"), ("http://127.0.0.1:1", "ws")):
        url = carrier.stream_url(origin, TOKEN)
        assert url.startswith(f"{scheme}://{origin.partition('://')[2]}/{carrier.provider.value}")
        assert url.endswith(TOKEN)
        assert ("?" in url) is not carrier.cuts_queries


@each
def test_documents_say_and_name_what_they_are_told(carrier: Carrier) -> None:
    stream = carrier.stream_answer(carrier.stream_url(ORIGIN, TOKEN), SENTENCE)
    assert TOKEN in stream
    assert SENTENCE in stream
    assert f"{ORIGIN}/{carrier.provider.value}/{TOKEN}/resume" in stream
    assert "7" in carrier.hold(URL.partition("?")[0], 7)
    assert URL.partition("?")[0] in carrier.hold(URL.partition("?")[0], 7)
    assert SENTENCE in carrier.refusal(SENTENCE)
    assert "PIN?" in carrier.ask_pin(URL, "PIN?", 4)
    assert URL in carrier.ask_pin(URL, "PIN?", 4)
    dial = TransferDial("+15551234567", 30, "+15550001111", f"{ORIGIN}/over", f"{ORIGIN}/progress")
    for part in (dial.number, dial.caller_id, dial.action, dial.progress, "30"):
        assert part in carrier.transfer_document(dial)


@each
def test_a_hang_up_is_a_refusal_without_a_sentence(carrier: Carrier) -> None:
    assert carrier.hang_up() == carrier.refusal("") == carrier.refusal(" \n")
    assert carrier.hang_up() != carrier.reject()


@each
def test_a_farewell_is_cut(carrier: Carrier) -> None:
    assert carrier.farewell("x" * 5000) == carrier.refusal("x" * LONGEST_FAREWELL)


@each
def test_nothing_said_is_nothing_learned(carrier: Carrier) -> None:
    assert carrier.call_facts({}) == CallFacts()
    assert carrier.dial_over({}) is None
    assert carrier.dial_progress({}) is None
    assert carrier.wrong_event(b"") == ""


@pytest.mark.parametrize("carrier", EVERY, ids=lambda carrier: carrier.provider.value)
@given(fields=st.dictionaries(st.text(max_size=20), st.text(max_size=300), max_size=5), body=st.binary(max_size=50))
def test_whatever_comes_is_no_crash_and_stays_short(carrier: Carrier, fields: dict[str, str], body: bytes) -> None:
    facts = carrier.call_facts(fields)
    assert len(facts.call_id) <= 128
    carrier.dial_over(fields)
    carrier.dial_progress(fields)
    carrier.wrong_event(body)


@each
@pytest.mark.parametrize(
    "headers", [{}, {"X-Acme-Secret": "x", "X-Twilio-Signature": "x", "X-Plivo-Signature-V3": "x"}]
)
def test_what_it_has_not_signed_it_has_not_signed(carrier: Carrier, headers: dict[str, str]) -> None:
    request = SignedRequest("POST", [URL], headers, [("a", "b")], b"a=b", 1e9)
    assert not carrier.has_signed(SECRET, request)


@each
def test_a_time_of_ringing_has_bounds(carrier: Carrier) -> None:
    assert MIN_TIMEOUT < carrier.longest_ring <= MAX_TIMEOUT
    assert carrier.check_ring_time(carrier.longest_ring) == carrier.longest_ring
    for seconds in (MIN_TIMEOUT - 1, carrier.longest_ring + 1):
        with pytest.raises(InvalidArgument):
            carrier.check_ring_time(seconds)
