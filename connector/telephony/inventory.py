"""What a carrier's account has, as its REST API tells it: whether the credentials are good, and where each number's
calls go. For `connector doctor`; nothing is changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from connector.telephony.http import CarrierApi

MOST = 20
"""Numbers that are looked at; the first ones of an account."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number, and the URL that its calls are announced at; "" where the carrier does not say one."""

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
