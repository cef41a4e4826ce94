"""A query that arrives is spelled otherwise than the one that was signed: the same names and values all the same."""

from __future__ import annotations

import hmac
from base64 import b64encode
from urllib.parse import parse_qsl, quote, quote_plus

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.carriers.plivo.signatures import plivo_signature_valid
from connector.carriers.twilio.signatures import twilio_signature_valid
from connector.carriers.url_spelling import LONGEST, MOST, spellings

TOKEN, ADDRESS = "12345", "https://calls.example.com/twilio/AQ-_x"


def signed(query: str, form: str = "") -> str:
    return b64encode(hmac.digest(TOKEN.encode(), f"{ADDRESS}?{query}{form}".encode(), "sha1")).decode()


SPELLED = [
    # as it was sent, as it was signed
    ("From=sip%3Abob%40example.com", "From=sip:bob@example.com"),  # twilio-node 621
    ("From=sip:bob@example.com", "From=sip%3Abob%40example.com"),
    ("From=sip%3abob%40example.com", "From=sip%3Abob%40example.com"),
    ("From=%2B15551234567&From2=sip%3Abob%40x", "From=%2B15551234567&From2=sip:bob@x"),
    ("From=%2b1555", "From=%2B1555"),
    ("City=Trezzo+Sull%27Adda", "City=Trezzo+Sull'Adda"),  # twilio-node 1059, 1183
    ("City=Trezzo+Sull'Adda", "City=Trezzo%20Sull%27Adda"),
    ("name=William+O'hara", "name=William%20O'hara"),
    ("City=a%20b", "City=a+b"),
    ("City=a+b", "City=a%20b"),
    ("City=Frankfurt+%28Main%29%2C+DE", "City=Frankfurt%20(Main),%20DE"),
    ("x=a~b", "x=a%7Eb"),
    ("x=a%7Eb%2a", "x=a~b*"),
    ("x=a%2Fb%3Fc%3Bd%21e%24f", "x=a/b?c;d!e$f"),
    ("token=YQ%3D%3D", "token=YQ=="),
    ("City=M%C3%BCnchen", "City=M%c3%bcnchen"),
    ("bare&empty=&x=%3A", "bare&empty=&x=:"),
    ("x=%FF%3A", "x=%ff:"),
]


@pytest.mark.parametrize(("sent", "was_signed"), SPELLED)
def test_another_spelling_of_the_same_is_accepted(sent: str, was_signed: str) -> None:
    assert twilio_signature_valid(TOKEN, f"{ADDRESS}?{sent}", {}, signed(was_signed))
    form = {"CallSid": "CA1", "Digits": "1"}
    assert twilio_signature_valid(TOKEN, f"{ADDRESS}?{sent}", form, signed(was_signed, "CallSidCA1Digits1"))


@pytest.mark.parametrize(
    ("sent", "was_signed"),
    [
        ("a=1%26b%3D2", "a=1&b=2"),
        ("a=1&b=2", "a=1%26b=2"),
        ("a%3Db=1", "a=b=1"),
        ("a=%2B1", "a=+1"),
        ("a=+1", "a=%2B1"),
        ("a=%2541", "a=%41"),
        ("a=%23x", "a=#x"),
        ("a=1&b=2", "b=2&a=1"),
        ("a=1&a=1", "a=1"),
        ("a=", "a"),
        ("a=1&", "a=1"),
    ],
)
def test_another_meaning_is_not(sent: str, was_signed: str) -> None:
    assert not twilio_signature_valid(TOKEN, f"{ADDRESS}?{sent}", {}, signed(was_signed))


@given(st.text(st.sampled_from("ab =&+%:@'(),~*!/?;$ü#2f7E"), max_size=40))
def test_every_spelling_means_the_same_and_there_are_not_many(query: str) -> None:
    found = spellings(query)
    assert found[0] == query
    assert len(found) == len(set(found)) <= MOST
    meaning = parse_qsl(query, keep_blank_values=True, errors="surrogateescape")
    for each in found:
        assert parse_qsl(each, keep_blank_values=True, errors="surrogateescape") == meaning, each


@given(st.lists(st.tuples(st.text(max_size=6), st.text(max_size=12)), min_size=1, max_size=4))
def test_the_usual_encoders_understand_each_other(pairs: list[tuple[str, str]]) -> None:
    def written(encode: object) -> str:
        return "&".join(f"{encode(name)}={encode(value)}" for name, value in pairs)  # type: ignore[operator]

    encoders = [
        lambda text: quote_plus(text, errors="replace"),  # Python's forms
        lambda text: quote(text, safe="", errors="replace"),  # RFC 3986
        lambda text: quote(text, safe="!'()*", errors="replace"),  # encodeURIComponent
        lambda text: quote_plus(text, safe="*", errors="replace").replace("~", "%7E"),  # Java, browsers' forms
        lambda text: quote(text, safe=":@", errors="replace"),  # Twilio
    ]
    spelled = {written(encode) for encode in encoders}
    for each in spelled:
        assert spelled <= set(spellings(each))


def test_a_query_that_is_too_long_counts_as_it_came() -> None:
    query = "a=" + "%3A" * LONGEST
    assert spellings(query) == [query]


@pytest.mark.parametrize("raw", ["x=sip%3Abob%40y&b=1", "x=sip:bob@y&b=1", "b=1&x=sip%3abob%40y"])
@pytest.mark.parametrize("signed_query", ["b=1&x=sip:bob@y", "b=1&x=sip%3Abob%40y"])
@pytest.mark.parametrize(("method", "form", "end"), [("GET", {}, ""), ("POST", {}, ""), ("POST", {"d": "1"}, ".d1")])
def test_plivo_may_sign_the_query_decoded_or_as_it_was_written(
    raw: str, signed_query: str, method: str, form: dict[str, str], end: str
) -> None:
    text = f"{ADDRESS}?{signed_query}{end}.nonce"
    signature = b64encode(hmac.digest(TOKEN.encode(), text.encode(), "sha256")).decode()
    assert plivo_signature_valid(TOKEN, method, f"{ADDRESS}?{raw}", form, "nonce", signature)
    assert not plivo_signature_valid(TOKEN, method, f"{ADDRESS}?{raw}&c=2", form, "nonce", signature)
