"""The form that a carrier posts."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl

from aiohttp import web

from connector.carriers.facts import voice_api_event
from connector.errors import Malformed
from connector.model import Provider

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


def require_no_event(provider: Provider, form: Posted) -> None:
    """Refuse an event of Telnyx's Voice API, by its name: its sender waits for commands, and reads no TeXML. Raises
    Malformed. To be called when the signature has been checked."""
    if event := voice_api_event(provider, form.body):
        raise Malformed(
            f"this is a Voice API event ({event}), not a TeXML request: in Telnyx's portal, assign the number to a "
            "TeXML application with this URL, instead of a Voice API application"
        )
