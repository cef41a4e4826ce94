"""A caller's tries at a PIN: counted in a token that goes to the carrier and back, sealed by us.

So the count holds on every process, over a restart, and when a carrier sends the same digits twice; and a caller, who
has nothing but a keypad, cannot touch it.
"""

from __future__ import annotations

import re
from hmac import compare_digest

from connector.errors import TokenInvalid
from connector.tokens import TokenSigner

TRIES = 3
TIME = 300.0
"""Seconds that a question may wait for its answer; the carrier gives up long before."""
_NAME = re.compile(r"pin:(\d):(.+)")


class PinTries:
    """`tried` below counts the answers that were wrong before this one."""

    def __init__(self, signer: TokenSigner) -> None:
        self._signer = signer

    def mint(self, call_id: str, tried: int, now: float) -> str:
        """A token that says how often this call has been wrong."""
        return self._signer.mint(f"pin:{tried}:{call_id}", now + TIME)

    def tried(self, token: str, call_id: str, now: float) -> int:
        """What `mint` was told. TokenInvalid when it is not ours or another call's, TokenExpired when it is too old."""
        match = _NAME.fullmatch(self._signer.verify(token, now))
        if match is None or match[2] != call_id:
            raise TokenInvalid("this is not a question that was asked of this call")
        return int(match[1])


def right(pin: str, digits: str) -> bool:
    """Whether these digits are the PIN."""
    return compare_digest(pin.encode(), digits.encode("utf-8", "surrogatepass"))
