"""Signatures are made here with a key of the test's own, as Telnyx's documentation says."""

from __future__ import annotations

from base64 import b64encode

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from connector.carriers.telnyx.signatures import TELNYX_TOLERANCE, telnyx_public_key, telnyx_signature_valid

NOW = 1_760_000_000.0
BODY = b"CallSid=v3%3Aabc&From=%2B15557654321&To=%2B15551234567"
PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
# Written out, in the form in which Telnyx's portal shows its key.
PUBLIC_TEXT = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg="
PUBLIC = telnyx_public_key(PUBLIC_TEXT)


def sign(body: bytes = BODY, timestamp: str = "1760000000", key: Ed25519PrivateKey = PRIVATE) -> str:
    return b64encode(key.sign(timestamp.encode() + b"|" + body)).decode()


def valid(signature: str | None, timestamp: str | None = "1760000000", body: bytes = BODY, now: float = NOW) -> bool:
    return telnyx_signature_valid(PUBLIC, timestamp, body, signature, now)


def test_the_public_key_is_the_private_ones() -> None:
    raw = PRIVATE.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
    assert b64encode(raw).decode() == PUBLIC_TEXT


def test_a_good_signature() -> None:
    assert valid(sign())


def test_a_get_has_an_empty_body() -> None:
    assert valid(sign(b""), body=b"")


@pytest.mark.parametrize("off", [-TELNYX_TOLERANCE, -1, 0, 1, TELNYX_TOLERANCE])
def test_clocks_may_differ_by_five_minutes(off: int) -> None:
    assert valid(sign(), now=NOW + off)


@pytest.mark.parametrize("off", [-TELNYX_TOLERANCE - 1, TELNYX_TOLERANCE + 1, 86400])
def test_what_is_older_or_newer_is_refused(off: int) -> None:
    assert not valid(sign(), now=NOW + off)


@pytest.mark.parametrize("body", [b"", BODY + b"&", BODY.replace(b"5551", b"5552"), BODY[:-1]])
def test_another_body_is_refused(body: bytes) -> None:
    assert not valid(sign(), body=body)


def test_another_timestamp_is_refused() -> None:
    assert not valid(sign(), timestamp="1760000001")


def test_another_key_is_refused() -> None:
    assert not valid(sign(key=Ed25519PrivateKey.generate()))


@pytest.mark.parametrize(
    "signature", [None, "", "x", "é", "AAAA", "=" * 88, sign() + "=", "\n" + sign(), sign()[:-4], "A" * 10_000]
)
def test_what_is_no_signature_is_refused(signature: str | None) -> None:
    assert not valid(signature)


@pytest.mark.parametrize(
    "timestamp",
    [None, "", "-1760000000", "+1760000000", " 1760000000", "1760000000.0", "1" * 5000, "١٧٦", "nan", "1e9"],
)
def test_what_is_no_timestamp_is_refused(timestamp: str | None) -> None:
    assert not valid(sign(timestamp=timestamp or "1760000000"), timestamp=timestamp)


@pytest.mark.parametrize("text", ["", "x", "AAAA", "é", b64encode(bytes(31)).decode(), b64encode(bytes(33)).decode()])
def test_what_is_no_key_is_a_clear_error(text: str) -> None:
    with pytest.raises(ValueError, match="base64 of a 32 byte"):
        telnyx_public_key(text)
