"""Events of Telnyx's Voice API (`call.initiated`, …). Telnyx sends them if the number is
assigned to another kind of application than a TeXML one; it then expects commands and does not read TeXML."""

from __future__ import annotations

import orjson

MAX_EVENT = 64


def event_name(body: bytes) -> str:
    """Returns the event name in a request's body; empty if the body is not such an event."""
    if not body.lstrip().startswith(b"{"):
        return ""
    try:
        event = orjson.loads(body)["data"]["event_type"]
    except (ValueError, KeyError, TypeError):
        return ""
    return event[:MAX_EVENT] if isinstance(event, str) and event.isascii() and event.isprintable() else ""
