"""Reads the body of a request, for every API."""

from __future__ import annotations

from aiohttp import web


async def bounded_body(request: web.Request, limit: int) -> bytes:
    """Raises HTTPRequestEntityTooLarge for more than `limit` bytes, before it keeps them: `Content-Length` may be
    missing."""
    if (request.content_length or 0) > limit:
        raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=request.content_length or 0)
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > limit:
            raise web.HTTPRequestEntityTooLarge(max_size=limit, actual_size=len(body))
    return bytes(body)
