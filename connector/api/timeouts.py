"""The deadline that a client of the HTTP APIs gives in a header. LiveKit's Go SDK sends it (its `xtwirp` package)."""

from __future__ import annotations

from aiohttp import web

HEADER = "X-Twirp-Timeout-Ms"
MAX = 86400.0


def client_timeout(request: web.Request) -> float | None:
    """Seconds; None without the header. A value that is no number above 0 is ignored, as in LiveKit's servers."""
    text = request.headers.get(HEADER, "")
    if not (text.isascii() and text.isdigit() and len(text) <= 12 and int(text)):
        return None
    return min(int(text) / 1000, MAX)
