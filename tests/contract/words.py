"""The words of the contract suite: the one call that every dialect speaks of, and what it reads of ours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

CALL = "CA0123456789abcdef0123456789abcdef"
STREAM = "MZ0123456789abcdef0123456789abcdef"
ACCOUNT = "AC0123456789abcdef0123456789abcdef"


@dataclass(frozen=True)
class Sent:
    """A message of ours as the carrier reads it."""

    kind: Literal["audio", "mark", "clear"]
    payload: bytes = b""
    name: str = ""
