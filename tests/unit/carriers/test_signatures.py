"""Signatures are made here by hand, as Twilio's documentation says, and not with what verifies them."""

from __future__ import annotations

import hashlib
import hmac
from base64 import b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twilio.request_validator import RequestValidator

from connector.carriers.twilio.signatures import twilio_signature_valid

TOKEN = "12345"
FORM = {
    "CallSid": "CA1234567890ABCDE",
    "Caller": "+14158675310",
    "Digits": "1234",
    "From": "+14158675310",
    "To": "+18005551212",
}
HTTPS = "https://calls.example.com/twilio/AQ-_x"
WSS = "wss://calls.example.com/twilio/AQ-_x"


def sign(url: str, params: list[tuple[str, str]] | None = None, token: str = TOKEN) -> str:
    text = url + "".join(name + value for name, value in sorted(set(params or [])))
    return b64encode(hmac.new(token.encode(), text.encode(), hashlib.sha1).digest()).decode()


def test_the_documented_example() -> None:
    # https://www.twilio.com/docs/usage/security#test-the-validity-of-your-webhook-signature
    url = "https://example.com/myapp.php?foo=1&bar=2"
    signature = "L/OH5YylLD5NRKLltdqwSvS0BnU="
    assert sign(url, list(FORM.items())) == signature
    assert twilio_signature_valid(TOKEN, url, FORM, signature)


WHAT_TWILIO_MAY_SIGN = [
    # what we were configured with, what was signed
    (HTTPS, HTTPS),
    (HTTPS, "https://calls.example.com:443/twilio/AQ-_x"),
    (HTTPS, HTTPS + "/"),
    (HTTPS, "https://calls.example.com:443/twilio/AQ-_x/"),
    (HTTPS + "/", HTTPS),
    ("https://calls.example.com:443/x", "https://calls.example.com/x"),
    ("https://calls.example.com:443/x", "https://calls.example.com:443/x"),
    ("https://calls.example.com:8443/x", "https://calls.example.com:8443/x"),
    ("https://calls.example.com:8443/x", "https://calls.example.com/x/"),
    ("HTTPS://Calls.Example.com/x", "HTTPS://Calls.Example.com:443/x"),
    (WSS, WSS),
    (WSS, "wss://calls.example.com:443/twilio/AQ-_x"),
    (WSS, "wss://calls.example.com:443/twilio/AQ-_x/"),
    ("wss://calls.example.com:443/x", "wss://calls.example.com/x"),
    ("http://127.0.0.1/x", "http://127.0.0.1:80/x"),
    ("ws://127.0.0.1/x", "ws://127.0.0.1:80/x/"),
    ("ws://ws/ws", "ws://ws:80/ws/"),
    ("https://calls.example.com", "https://calls.example.com/"),
    ("https://calls.example.com/", "https://calls.example.com:443"),
    ("https://calls.example.com/x?a=1&b=/", "https://calls.example.com:443/x/?a=1&b=/"),
    ("https://calls.example.com/x/?a=1", "https://calls.example.com/x?a=1"),
    ("https://calls.example.com?a=b:1", "https://calls.example.com:443?a=b:1"),
    ("https://calls.example.com/x?", "https://calls.example.com/x?"),
    ("wss://[2001:db8::1]/x", "wss://[2001:db8::1]/x"),
    ("wss://[2001:db8::1]/x", "wss://[2001:db8::1]:443/x"),
    ("wss://[2001:db8::1]:8443/x", "wss://[2001:db8::1]/x"),
    ("https://user:pass@calls.example.com/x", "https://user:pass@calls.example.com:443/x"),
    ("https://user:pass@calls.example.com:8443/x", "https://user:pass@calls.example.com/x"),
    ("not a url", "not a url"),
    ("", ""),
]


@pytest.mark.parametrize(("configured", "signed"), WHAT_TWILIO_MAY_SIGN)
def test_what_twilio_may_sign(configured: str, signed: str) -> None:
    assert twilio_signature_valid(TOKEN, configured, {}, sign(signed))
    assert twilio_signature_valid(TOKEN, configured, FORM, sign(signed, list(FORM.items())))


@pytest.mark.parametrize(
    ("configured", "signed"),
    [
        (HTTPS, WSS),
        (WSS, HTTPS),
        (WSS, "wss://calls.example.com:80/twilio/AQ-_x"),
        (HTTPS, "https://calls.example.com:8443/twilio/AQ-_x"),
        (HTTPS, "https://calls.example.org/twilio/AQ-_x"),
        (HTTPS, HTTPS + "//"),
        (HTTPS, HTTPS + "?"),
        (HTTPS, HTTPS + "?a=1"),
        (HTTPS + "?a=1", HTTPS),
        (HTTPS, HTTPS.lower()),
        (HTTPS, "https://calls.example.com/twilio/"),
        ("https://calls.example.com/x?a=1", "https://calls.example.com/x?a=1/"),
        ("wss://[2001:db8::1]/x", "wss://[2001:db8/x"),
        ("wss://[2001:db8::1]/x", "wss://[2001:db8::2]/x"),
        ("https://user:pass@calls.example.com/x", "https://calls.example.com/x"),
    ],
)
def test_what_is_another_url(configured: str, signed: str) -> None:
    assert not twilio_signature_valid(TOKEN, configured, {}, sign(signed))


@pytest.mark.parametrize("signature", [None, "", " ", "=", "x" * 28, "ü" * 28, "\udcff" * 28, "\ud800", "a" * 10_000])
def test_what_is_no_signature(signature: str | None) -> None:
    assert not twilio_signature_valid(TOKEN, HTTPS, {}, signature)


def test_every_changed_character_counts() -> None:
    good = sign(HTTPS)
    for n, character in enumerate(good):
        for other in ("A" if character != "A" else "B", "", character * 2):
            assert not twilio_signature_valid(TOKEN, HTTPS, {}, good[:n] + other + good[n + 1 :])
    assert twilio_signature_valid(TOKEN, HTTPS, {}, good)


class TestParameters:
    @pytest.mark.parametrize(
        "pairs",
        [
            [],
            [("b", "2"), ("a", "1")],
            [("a", "2"), ("a", "1"), ("b", "0")],
            [("a", "1"), ("a", "1")],
            [("Körper", "ß😀"), ("", "x"), ("x", "")],
        ],
    )
    def test_pairs_in_any_order_and_number(self, pairs: list[tuple[str, str]]) -> None:
        signature = sign(HTTPS, pairs)
        assert twilio_signature_valid(TOKEN, HTTPS, pairs, signature)
        assert twilio_signature_valid(TOKEN, HTTPS, tuple(reversed(pairs)), signature)

    @pytest.mark.parametrize(
        "changed",
        [FORM | {"Digits": "9"}, FORM | {"More": ""}, {k: v for k, v in FORM.items() if k != "To"}, {}],
    )
    def test_a_form_that_was_changed(self, changed: dict[str, str]) -> None:
        valid = sign(HTTPS, list(FORM.items()))
        assert not twilio_signature_valid(TOKEN, HTTPS, changed, valid)

    def test_half_a_surrogate_pair_was_never_signed(self) -> None:
        assert not twilio_signature_valid(TOKEN, HTTPS, {"a": "\ud800"}, sign(HTTPS))
        assert not twilio_signature_valid(TOKEN, HTTPS + "\ud800", {}, sign(HTTPS))


def test_another_token() -> None:
    assert not twilio_signature_valid(TOKEN, HTTPS, {}, sign(HTTPS, token="54321"))


def test_an_empty_token_is_refused_and_verifies_nothing() -> None:
    with pytest.raises(ValueError, match="empty"):
        twilio_signature_valid("", HTTPS, {}, b64encode(bytes(20)).decode())


@given(url=st.text(max_size=60), signature=st.one_of(st.none(), st.text(max_size=40)))
def test_nothing_from_outside_raises_or_passes(url: str, signature: str | None) -> None:
    assert not twilio_signature_valid(TOKEN, url, {}, signature)


class TestWhereTheTwilioPackageIsWrong:
    """Why its `validate` is not used. When one of these fails, it has been mended there."""

    @pytest.mark.parametrize(
        ("configured", "signed"),
        [
            (WSS, "wss://calls.example.com:443/twilio/AQ-_x"),
            (HTTPS, HTTPS + "/"),
            ("https://[2001:db8::1]:8443/x", "https://[2001:db8::1]/x"),
            ("https://user:pass@calls.example.com:8443/x", "https://user:pass@calls.example.com/x"),
        ],
    )
    def test_it_refuses_what_twilio_signed(self, configured: str, signed: str) -> None:
        assert not RequestValidator(TOKEN).validate(configured, {}, sign(signed))
        assert twilio_signature_valid(TOKEN, configured, {}, sign(signed))

    def test_it_accepts_what_twilio_did_not_sign(self) -> None:
        signed = sign("wss://calls.example.com:80/twilio/AQ-_x")
        assert RequestValidator(TOKEN).validate(WSS, {}, signed)
        assert not twilio_signature_valid(TOKEN, WSS, {}, signed)

    def test_it_raises_when_there_is_no_signature(self) -> None:
        with pytest.raises(TypeError):
            RequestValidator(TOKEN).validate(HTTPS, {}, None)
        assert not twilio_signature_valid(TOKEN, HTTPS, {}, None)

    def test_it_cannot_read_pairs(self) -> None:
        pairs = [("a", "1"), ("a", "2")]
        with pytest.raises(TypeError):
            RequestValidator(TOKEN).validate(HTTPS, pairs, sign(HTTPS, pairs))
        assert twilio_signature_valid(TOKEN, HTTPS, pairs, sign(HTTPS, pairs))
