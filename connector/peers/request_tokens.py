"""Processes of the service trust each other because they have the same secret.

A request carries a token: valid for a short time, for one receiver and for one body. The answer carries a proof that
its sender could check the token. Both checks are needed because an address in the store may be old, and another program
may have its port now: no program without the secret gets a command carried out, or can forge an answer.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence
from dataclasses import dataclass

from connector.errors import TokenInvalid
from connector.seal import several
from connector.tokens import TokenSigner

PURPOSE = "connector peer request token v1"
_PROOF_PURPOSE = b"connector peer answer proof v1"
_DIGEST = 64


@dataclass(frozen=True, slots=True)
class CheckedToken:
    """A genuine token. `is_for_us`: it names this process as the receiver."""

    text: str
    is_for_us: bool
    expires_at: float
    body_digest: str
    key: bytes

    def covers(self, body: bytes) -> bool:
        return hmac.compare_digest(self.body_digest, _digest(body))

    def proof(self, answer: bytes) -> str:
        return _proof(self.key, self.text, answer)


@dataclass(frozen=True, slots=True)
class RequestToken:
    """The token of one request, and the check of its answer."""

    text: str
    key: bytes

    def is_proven(self, answer: bytes, proof: str) -> bool:
        return hmac.compare_digest(_proof(self.key, self.text, answer).encode(), proof.encode("utf-8", "replace"))


class PeerSignatures:
    """Signs requests to other processes, and checks theirs. During a rotation of the secret, some processes know only
    the former one: their requests are accepted, and they are asked with it."""

    def __init__(self, secret: str | Sequence[str]) -> None:
        """`secret`: one or several, newest first."""
        self._keys = [
            (TokenSigner(each, PURPOSE), hmac.digest(each.encode(), _PROOF_PURPOSE, "sha256"))
            for each in several(secret)
        ]

    def tokens(self, owner: str, body: bytes, expires_at: float) -> list[RequestToken]:
        """Tokens for a request to this process, one for each secret, newest first. `expires_at`: Unix time."""
        name = _digest(owner.encode()) + _digest(body)
        return [RequestToken(signer.mint(name, expires_at), key) for signer, key in self._keys]

    def check(self, token: str, owner: str) -> CheckedToken:
        """Checks the token of a request that this process, `owner`, received. Raises TokenInvalid if it is not genuine.
        The expiry is not checked, nor is the body."""
        for signer, key in self._keys:
            try:
                name, expires_at = signer.peek(token)
            except TokenInvalid:
                continue
            receiver, body_digest = name[:_DIGEST], name[_DIGEST:]
            is_for_us = hmac.compare_digest(receiver, _digest(owner.encode()))
            return CheckedToken(token, is_for_us, expires_at, body_digest, key)
        raise TokenInvalid("the token was not issued by another process of the service")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _proof(key: bytes, token: str, answer: bytes) -> str:
    return hmac.digest(key, token.encode("utf-8", "replace") + b"\n" + answer, "sha256").hex()
