"""The resume URL, which a carrier requests when the media stream of a call has ended. Pure."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit


def resume_url(stream_url: str) -> str:
    """Returns `https://<origin>/<carrier>/<token>/resume` for a stream URL, `wss://<origin>/<carrier>?ref=<token>` or
    `wss://<origin>/<carrier>/<token>`; `http` if the stream URL is `ws`.

    Applications with documents of their own derive the URL from the connect_url in the same way: the rule is part of
    the API.
    """
    parts = urlsplit(stream_url)
    scheme = {"wss": "https", "ws": "http"}.get(parts.scheme, parts.scheme)
    path, tokens = parts.path.rstrip("/"), parse_qs(parts.query).get("ref", [])
    if tokens:
        path += f"/{tokens[0]}"
    return f"{scheme}://{parts.netloc}{path}/resume"
