"""Signatures are made here by hand, and compared with what Plivo's own package makes of the same request."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from plivo.utils.signature_v3 import validate_v3_signature

from connector.carriers.plivo.signatures import plivo_signature_valid

TOKEN = "plivo-auth-token"
NONCE = "12345678901234567890"
URL = "https://calls.example.com/v2/hooks/plivo/whk_1"
FORM = {"To": "15551234567", "From": "15557654321", "CallUUID": "e2b1a2d4-0001", "Direction": "inbound", "Event": ""}
SIGNED_FORM = "CallUUIDe2b1a2d4-0001DirectioninboundEventFrom15557654321To15551234567"


def sign(text: str, nonce: str = NONCE, token: str = TOKEN) -> str:
    return b64encode(hmac.new(token.encode(), f"{text}.{nonce}".encode(), hashlib.sha256).digest()).decode()


def valid(method: str, url: str, form: dict[str, str], signatures: str | None, nonce: str | None = NONCE) -> bool:
    return plivo_signature_valid(TOKEN, method, url, form, nonce, signatures)


WHAT_PLIVO_SIGNS = [
    ("POST", URL, FORM, f"{URL}?{SIGNED_FORM}"),
    ("POST", f"{URL}?roomId=my+room&a=1", FORM, f"{URL}?a=1&roomId=my room.{SIGNED_FORM}"),
    ("POST", URL, {}, URL),
    ("GET", URL, {}, URL),
    ("GET", f"{URL}?To=%2B1555&From=2", {}, f"{URL}?From=2&To=+1555"),
    ("GET", f"{URL}?b=2&a=&b=1", {}, f"{URL}?a=&b=1&b=2"),
    ("GET", f"{URL}?name=Gr%C3%BC%C3%9Fe", {}, f"{URL}?name=Grüße"),
]


@pytest.mark.parametrize(("method", "url", "form", "signed"), WHAT_PLIVO_SIGNS)
def test_what_plivo_signs(method: str, url: str, form: dict[str, str], signed: str) -> None:
    assert valid(method, url, form, sign(signed))
    assert not valid(method, url, form, sign(signed + "x"))


@pytest.mark.parametrize(("method", "url", "form", "signed"), [case for case in WHAT_PLIVO_SIGNS if "ü" not in case[3]])
def test_plivos_own_package_says_the_same(method: str, url: str, form: dict[str, str], signed: str) -> None:
    assert validate_v3_signature(method, url, NONCE, TOKEN, sign(signed), dict(form))


@given(
    form=st.dictionaries(st.text("abcXYZ019_", min_size=1, max_size=5), st.text("ab +&=%é", max_size=6), max_size=5),
    query=st.dictionaries(
        st.text("abcXYZ", min_size=1, max_size=3), st.text("ab019", min_size=1, max_size=3), max_size=3
    ),
    method=st.sampled_from(["GET", "POST"]),
)
def test_so_it_does_of_any_form_and_query(form: dict[str, str], query: dict[str, str], method: str) -> None:
    url = URL + ("?" + "&".join(f"{name}={value}" for name, value in query.items()) if query else "")
    fields = form if method == "POST" else {}
    asked = "&".join(f"{name}={value}" for name, value in sorted(query.items()))
    if fields:
        said = "".join(f"{name}{value}" for name, value in sorted(fields.items()))
        signed = f"{URL}?{asked}.{said}" if asked else f"{URL}?{said}"
    else:
        signed = f"{URL}?{asked}" if asked else URL
    assert valid(method, url, fields, sign(signed))
    assert validate_v3_signature(method, url, NONCE, TOKEN, sign(signed), dict(fields))


@pytest.mark.parametrize("header", ["bad,{}", "{},bad", " {} ", "bad, {}", "a,b,{},c"])
def test_one_of_several_signatures_is_enough(header: str) -> None:
    assert valid("POST", URL, FORM, header.format(sign(f"{URL}?{SIGNED_FORM}")))


@pytest.mark.parametrize(
    "signed",
    [
        "wss://calls.example.com/plivo/AQ-_x",
        "wss://calls.example.com:443/plivo/AQ-_x",
        "wss://calls.example.com/plivo/AQ-_x/",
        "https://calls.example.com/plivo/AQ-_x",
        "https://calls.example.com:443/plivo/AQ-_x",
    ],
)
def test_a_handshake_may_be_signed_in_several_ways(signed: str) -> None:
    assert valid("GET", "wss://calls.example.com/plivo/AQ-_x", {}, sign(signed))


def test_a_request_is_not_taken_for_a_handshake() -> None:
    assert not valid("POST", URL, FORM, sign(f"wss{URL.removeprefix('https')}?{SIGNED_FORM}"))


@pytest.mark.parametrize(
    "signatures", [None, "", ",", "x", "é", "\ud800", sign(URL, token="another"), sign(URL, "another")]
)
def test_what_is_no_signature_of_it_is_refused(signatures: str | None) -> None:
    assert not valid("GET", URL, {}, signatures)


@pytest.mark.parametrize("nonce", [None, ""])
def test_without_a_nonce_nothing_is_valid(nonce: str | None) -> None:
    assert not valid("GET", URL, {}, sign(URL, ""), nonce)


@pytest.mark.parametrize(
    ("url", "form"),
    [
        ("https://calls.example.com/other", FORM),
        (URL, FORM | {"To": "1"}),
        (URL, {}),
        (URL.replace("https", "http"), FORM),
    ],
)
def test_a_signature_of_something_else_is_refused(url: str, form: dict[str, str]) -> None:
    assert not valid("POST", url, form, sign(f"{URL}?{SIGNED_FORM}"))


def test_fields_that_cannot_have_been_sent_are_refused() -> None:
    assert not valid("POST", URL, {"a": "\ud800"}, sign(URL))


def test_an_empty_token_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="empty auth token"):
        plivo_signature_valid("", "GET", URL, {}, NONCE, sign(URL, token=""))
