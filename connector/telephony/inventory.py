"""Reads a carrier account over its REST API: whether the credentials are valid, and the URL for each number's calls.
For `connector doctor`; read-only."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from connector.telephony.http import CarrierApi

MOST = 20
"""Only the first numbers of an account are read, up to this many."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number, and the URL that the carrier requests for its calls; "" if the carrier reports none."""

    number: str
    voice_url: str


@dataclass(frozen=True, slots=True)
class Account:
    name: str
    numbers: Sequence[Number]


@asynccontextmanager
async def started(api: CarrierApi) -> AsyncIterator[CarrierApi]:
    await api.start()
    try:
        yield api
    finally:
        await api.close()


def text_of(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    return str(value) if isinstance(value, str | int) else ""


def list_of(body: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    value = body.get(name)
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []
