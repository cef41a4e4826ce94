"""The form that a carrier posts."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from aiohttp import web

from connector.carriers.carrier import Carrier
from connector.errors import Malformed

MAX_FORM = 64 * 1024
MAX_FIELDS = 1000


@dataclass(frozen=True, slots=True)
class Posted:
    """A request's body as it came, and the fields in it; a body of another kind has none, a GET has neither."""

    body: bytes = b""
    fields: tuple[tuple[str, str], ...] = ()


async def posted(request: web.Request) -> Posted:
    """Read the form in the one encoding that carriers use. Raises Malformed, or what aiohttp does for a large one."""
    if request.method != "POST":
        return Posted()
    if (request.content_length or 0) > MAX_FORM:
        raise web.HTTPRequestEntityTooLarge(max_size=MAX_FORM, actual_size=request.content_length or 0)
    body = await request.read()
    if request.content_type != "application/x-www-form-urlencoded":
        return Posted(body)
    try:
        return Posted(body, tuple(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)))
    except ValueError:
        raise Malformed("the form cannot be read") from None


def require_no_event(carrier: Carrier, form: Posted) -> None:
    """Refuse an event that waits for commands and reads no document. Raises Malformed. To be called when the signature
    has been checked."""
    if reason := carrier.wrong_event(form.body):
        raise Malformed(reason)
