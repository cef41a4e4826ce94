"""What the carriers' REST APIs have in common: whom they steer, and how requests are read."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from carrier_simulator.call import PhoneCall
from carrier_simulator.directions import OutboundCall
from carrier_simulator.terms import Callback, Document

E164 = re.compile(r"\+[1-9]\d{6,14}")


class Exchange(Protocol):
    """What a REST API steers."""

    @property
    def numbers(self) -> Mapping[str, str]:
        """The account's numbers, in E.164 form, and the voice URL of each."""
        ...

    @property
    def calls(self) -> Mapping[str, PhoneCall]: ...

    def dial(
        self, to: str, from_: str, document: Document, ring_timeout: float, callback: Callback | None
    ) -> OutboundCall: ...


def basic_credentials(request: web.Request) -> tuple[str, str]:
    """User and password of the request; both empty without any."""
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    try:
        user, _, password = base64.b64decode(given, validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return "", ""
    return (user, password) if scheme.lower() == "basic" else ("", "")


def same(given: str, right: str) -> bool:
    return hmac.compare_digest(given.encode(), right.encode())


async def fields_of(request: web.Request) -> Mapping[str, str]:
    """The fields of a form or of a JSON object, all as text; ValueError for any other body."""
    if request.content_type == "application/json":
        return await json_fields_of(request)
    form = await request.post()
    return {name: value for name, value in form.items() if isinstance(value, str)}


async def json_fields_of(request: web.Request) -> Mapping[str, str]:
    """The fields of a JSON object, all as text; ValueError for any other body."""
    if request.content_type != "application/json":
        raise ValueError(f"{request.content_type} is not application/json")
    body = await request.json()
    if not isinstance(body, dict):
        raise ValueError("not a JSON object")
    return {str(name): value if isinstance(value, str) else str(value) for name, value in body.items()}
