"""Reads the forms that carriers post."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from aiohttp import web

from connector.api.bodies import bounded_body
from connector.carriers.carrier import Carrier
from connector.errors import Malformed

MAX_FORM = 64 * 1024
MAX_FIELDS = 1000


@dataclass(frozen=True, slots=True)
class Posted:
    """The unchanged body of a request and its form fields. Other content types have no fields; a GET has neither."""

    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()


async def posted(request: web.Request) -> Posted:
    """Reads a form in the only encoding that carriers use. Raises Malformed, or aiohttp's HTTPRequestEntityTooLarge."""
    if request.method != "POST":
        return Posted()
    body = await bounded_body(request, MAX_FORM)
    if request.content_type != "application/x-www-form-urlencoded":
        return Posted(body)
    try:
        return Posted(body, tuple(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)))
    except ValueError:
        raise Malformed("the form cannot be read") from None


def require_no_event(carrier: Carrier, form: Posted) -> None:
    """Refuses events of an API that expects commands and ignores our document. Raises Malformed. Call it after the
    signature check."""
    if reason := carrier.wrong_event(form.body):
        raise Malformed(reason)
