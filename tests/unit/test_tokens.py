from __future__ import annotations

import hashlib
import hmac
import re
import struct
from base64 import urlsafe_b64decode, urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.errors import TokenExpired, TokenInvalid
from connector.model.call import new_call_id
from connector.tokens import TRANSFER_PURPOSE, TokenSigner

SECRET = "a secret of the deployment"
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
CALL = "call_0123456789abcdef01234567"
call_ids = st.text(min_size=1, max_size=32).filter(lambda text: text.isprintable())
times = st.floats(allow_nan=False, allow_infinity=False)


@pytest.fixture
def signer() -> TokenSigner:
    return TokenSigner(SECRET)


def bytes_of(token: str) -> bytes:
    return urlsafe_b64decode(token + "=" * (-len(token) % 4))


def token_of(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()


class TestGenuine:
    @given(call_id=call_ids, expires=times)
    def test_says_what_it_was_minted_with(self, call_id: str, expires: float) -> None:
        token = TokenSigner(SECRET).mint(call_id, expires)
        assert TokenSigner(SECRET).peek(token) == (call_id, expires)
        assert re.fullmatch(r"[A-Za-z0-9_-]+", token)

    def test_is_short_enough_for_a_url(self, signer: TokenSigner) -> None:
        assert len(signer.mint(new_call_id(), 1.8e9)) < 100

    def test_is_foreign_to_every_other_purpose(self, signer: TokenSigner) -> None:
        transferring = TokenSigner(SECRET, TRANSFER_PURPOSE)
        for minted, asked in ((signer, transferring), (transferring, signer)):
            with pytest.raises(TokenInvalid):
                asked.peek(minted.mint(CALL, 1000.0))

    def test_does_not_show_the_secret_or_its_digest(self, signer: TokenSigner) -> None:
        data = bytes_of(signer.mint(CALL, 1000.0))
        plain = hmac.digest(SECRET.encode(), data[:-32], "sha256")
        assert SECRET.encode() not in data
        assert plain != data[-32:]

    @pytest.mark.parametrize(
        ("now", "extended", "good"),
        [
            (0.0, None, True),
            (999.999, None, True),
            (1000.0, None, False),
            (1000.001, None, False),
            (1000.0, 1000.001, True),
            (1029.9, 1030.0, True),
            (1030.0, 1030.0, False),
            (999.0, 10.0, True),
            (1000.0, 10.0, False),
            (-5.0, None, True),
        ],
    )
    def test_lives_until_its_time_or_longer_when_extended(
        self, signer: TokenSigner, now: float, extended: float | None, good: bool
    ) -> None:
        token = signer.mint(CALL, 1000.0)
        if good:
            assert signer.verify(token, now, extended) == CALL
        else:
            with pytest.raises(TokenExpired):
                signer.verify(token, now, extended)
            assert signer.peek(token) == (CALL, 1000.0)


class TestForged:
    @pytest.mark.parametrize("call_id", [CALL, "c", "ca", "cal"])
    def test_every_change_of_one_character(self, signer: TokenSigner, call_id: str) -> None:
        token = signer.mint(call_id, 1000.0)
        for n, character in enumerate(token):
            for other in ALPHABET:
                if other != character:
                    refused(signer, token[:n] + other + token[n + 1 :])

    def test_every_change_of_one_byte(self, signer: TokenSigner) -> None:
        data = bytes_of(signer.mint(CALL, 1000.0))
        for n in range(len(data)):
            for change in range(1, 256):
                altered = bytearray(data)
                altered[n] ^= change
                refused(signer, token_of(bytes(altered)))

    def test_every_character_removed_doubled_or_cut_off(self, signer: TokenSigner) -> None:
        token = signer.mint(CALL, 1000.0)
        for n in range(len(token)):
            refused(signer, token[:n])
            refused(signer, token[n + 1 :])
            refused(signer, token[:n] + token[n + 1 :])
            refused(signer, token[:n] + token[n] * 2 + token[n + 1 :])

    @pytest.mark.parametrize("call_id", ["call_1", "call_12", "call_123"])
    @pytest.mark.parametrize("more", ["=", "==", "A", "\n", " ", "/", "%3D", "\x00", "?a", "é"])
    def test_anything_added(self, signer: TokenSigner, call_id: str, more: str) -> None:
        token = signer.mint(call_id, 1000.0)
        refused(signer, token + more)
        refused(signer, more + token)

    def test_of_another_secret(self, signer: TokenSigner) -> None:
        refused(signer, TokenSigner(SECRET + "x").mint(CALL, 1000.0))

    def test_signed_with_the_secret_itself(self, signer: TokenSigner) -> None:
        body = bytes_of(signer.mint(CALL, 1000.0))[:-32]
        refused(signer, token_of(body + hmac.digest(SECRET.encode(), body, hashlib.sha256)))

    def test_the_halves_of_two_tokens(self, signer: TokenSigner) -> None:
        one, other = (bytes_of(signer.mint(CALL, at)) for at in (1000.0, 2000.0))
        refused(signer, token_of(other[:-32] + one[-32:]))

    @pytest.mark.parametrize("version", [0, 2, 255])
    def test_genuine_but_of_a_version_to_come(self, signer: TokenSigner, version: int) -> None:
        body = struct.pack(">Bd", version, 1000.0) + CALL.encode()
        refused(signer, token_of(body + signer._digest(body)))

    @pytest.mark.parametrize("body", [b"", b"\x01", b"\x01" + bytes(7), b"\x01" + bytes(8), b"\x01" + bytes(8 + 132)])
    def test_genuine_but_without_a_call_or_too_long(self, signer: TokenSigner, body: bytes) -> None:
        refused(signer, token_of(body + signer._digest(body)))

    @pytest.mark.parametrize("token", ["", "A", "AA", "AAA", "AAAA", "A" * 226, "A" * 100_000, "é", "\ud800", "\u0661"])
    def test_what_is_no_token(self, signer: TokenSigner, token: str) -> None:
        refused(signer, token)

    @given(st.one_of(st.text(), st.text(ALPHABET, min_size=50, max_size=120), st.binary(max_size=150).map(token_of)))
    def test_any_text(self, token: str) -> None:
        refused(TokenSigner(SECRET), token)

    def test_the_error_does_not_repeat_the_token(self, signer: TokenSigner) -> None:
        token = signer.mint(CALL, 1000.0)
        with pytest.raises(TokenExpired) as expired:
            signer.verify(token, 2000.0)
        with pytest.raises(TokenInvalid) as invalid:
            signer.verify(token + "A", 0.0)
        for error in (expired.value, invalid.value):
            assert token not in str(error)
            assert CALL not in str(error)
        assert (expired.value.http_status, invalid.value.http_status) == (410, 404)


def refused(signer: TokenSigner, token: str) -> None:
    # Expired as well: that must not be what is told of a forgery.
    for check in (lambda: signer.peek(token), lambda: signer.verify(token, 1e12), lambda: signer.verify(token, 0.0)):
        with pytest.raises(TokenInvalid):
            check()


class TestMistakes:
    def test_no_secret(self) -> None:
        with pytest.raises(ValueError, match="secret"):
            TokenSigner("")

    @pytest.mark.parametrize("call_id", ["", "c" * 129, "ü" * 65])
    def test_a_call_id_of_no_use(self, signer: TokenSigner, call_id: str) -> None:
        with pytest.raises(ValueError, match="1 to 128 bytes"):
            signer.mint(call_id, 1000.0)

    @pytest.mark.parametrize("call_id", ["c" * 128, "ü" * 64])
    def test_the_longest_call_id(self, signer: TokenSigner, call_id: str) -> None:
        assert signer.verify(signer.mint(call_id, 1000.0), 0.0) == call_id

    @pytest.mark.parametrize("expires", [float("inf"), float("-inf"), float("nan")])
    def test_no_expiry(self, signer: TokenSigner, expires: float) -> None:
        with pytest.raises(ValueError, match="expire"):
            signer.mint(CALL, expires)


def test_a_secret_is_rotated_without_a_token_lost() -> None:
    old, both, new = TokenSigner("old"), TokenSigner(("new", "old")), TokenSigner("new")
    assert both.verify(old.mint(CALL, 1000.0), 1.0) == CALL
    assert new.verify(both.mint(CALL, 1000.0), 1.0) == CALL
    refused(old, both.mint(CALL, 1000.0))
    refused(TokenSigner(("new", "another")), old.mint(CALL, 1000.0))
    assert both.fingerprint("x") == new.fingerprint("x") != old.fingerprint("x")
    for none in ("", (), ("new", "")):
        with pytest.raises(ValueError, match="secret"):
            TokenSigner(none)
