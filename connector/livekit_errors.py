"""Translates errors of LiveKit's server API and of the connection to it; for all adapters that use the API."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from livekit import api

from connector.errors import ConnectorError, Internal, NotFound, Unavailable


@asynccontextmanager
async def translated(url: str, patience: float) -> AsyncIterator[None]:
    """Limits a request to LiveKit at `url` to `patience` seconds, and raises only ConnectorError."""
    try:
        # The SDK disables aiohttp's timeout for its requests, even if the session has one.
        async with asyncio.timeout(patience):
            yield
    except api.TwirpError as error:
        raise _translate(error, url) from error
    except TimeoutError as error:
        raise Unavailable(f"livekit-server at {url} did not answer in {patience:g} s") from error
    except (aiohttp.ClientError, OSError) as error:
        raise Unavailable(f"livekit-server at {url} cannot be reached: {unreachable(error)}") from error


def unreachable(error: Exception) -> str:
    """Returns the reason why an HTTP request got no answer, as text for the operator."""
    match error:
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorDNSError():
            return f"the name {error.host} does not resolve"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientSSLError():
            return "TLS failed: its certificate is not trusted here, or it speaks no TLS"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection without an answer"
        case aiohttp.ClientConnectorError() if error.os_error.errno:
            return os.strerror(error.os_error.errno).lower()
        case _:
            return type(error).__name__


def _translate(error: api.TwirpError, url: str) -> ConnectorError:
    if error.status in (401, 403) or error.code in ("unauthenticated", "permission_denied"):
        return Internal(
            f"livekit-server at {url} refused the connector's credentials; check LIVEKIT_API_KEY and LIVEKIT_API_SECRET"
        )
    if error.code == "unknown" and not error.message:
        return Unavailable(
            f"{url} answered HTTP {error.status}, but not as livekit-server does; check LIVEKIT_URL and what is in "
            "front of it"
        )
    if error.code == "not_found" and error.status == 404 and error.message:
        return NotFound(error.message)
    if error.status >= 500 or error.code in ("unavailable", "deadline_exceeded"):
        return Unavailable(f"livekit-server at {url} answered {error.status}: {error.message}")
    return Internal(f"livekit-server at {url} answered {error.code}: {error.message}")
