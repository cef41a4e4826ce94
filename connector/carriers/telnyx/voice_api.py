"""Events of Telnyx's Voice API (`call.initiated`, …). They come where a number is assigned to another kind of
application than a TeXML one; their sender waits for commands, and reads no TeXML."""

from __future__ import annotations

import orjson

MAX_EVENT = 64


def event_name(body: bytes) -> str:
    """The name of the event in a request's body; empty for everything else."""
    if not body.lstrip().startswith(b"{"):
        return ""
    try:
        event = orjson.loads(body)["data"]["event_type"]
    except (ValueError, KeyError, TypeError):
        return ""
    return event[:MAX_EVENT] if isinstance(event, str) and event.isascii() and event.isprintable() else ""
