"""The one HTTP client of LiveKit's server API: session, time limits, and errors translated to ours."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
from livekit import api

from connector.config import Settings
from connector.errors import ConnectorError, FailedPrecondition, Internal, NotFound, Unavailable

REQUEST_TIMEOUT = 3.0
"""Seconds for one request to LiveKit; a ConnectTwilioCall must be answered within 5 even if LiveKit is down."""
SIP_WITHOUT_REDIS = (
    "livekit-server runs without Redis, which its SIP API needs: set `redis: address:` in "
    "livekit-server's config, give livekit-sip the same, and start both again"
)


class LiveKitApi:
    """The server API of the livekit-server at `url`, with one API key. `start` before use, `close` at the end."""

    def __init__(self, url: str, api_key: str, api_secret: str) -> None:
        self._url = url
        self._key = api_key
        self._secret = api_secret
        self._sdk: api.LiveKitAPI | None = None

    async def start(self) -> None:
        self._sdk = api.LiveKitAPI(self._url, self._key, self._secret, failover=False)

    async def close(self) -> None:
        sdk, self._sdk = self._sdk, None
        if sdk is not None:
            await sdk.aclose()

    @property
    def sdk(self) -> api.LiveKitAPI:
        """LiveKit's client, for use inside `request`."""
        if self._sdk is None:
            raise RuntimeError("LiveKitApi.start() has not run")
        return self._sdk

    @asynccontextmanager
    async def request(self, patience: float = REQUEST_TIMEOUT) -> AsyncIterator[api.LiveKitAPI]:
        """Limits the requests of the block to `patience` seconds together. Raises only ConnectorError, with the cause
        kept."""
        async with _translated(self._url, patience):
            yield self.sdk


def livekit_of(settings: Settings) -> LiveKitApi:
    """The API of the livekit-server in the settings."""
    return LiveKitApi(
        settings.livekit_http_url, settings.livekit_api_key, settings.livekit_api_secret.get_secret_value()
    )


@asynccontextmanager
async def opened_livekit(settings: Settings) -> AsyncIterator[LiveKitApi]:
    livekit = livekit_of(settings)
    await livekit.start()
    try:
        yield livekit
    finally:
        await livekit.close()


@asynccontextmanager
async def _translated(url: str, patience: float) -> AsyncIterator[None]:
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
            return "TLS failed: its certificate is not trusted here, or the port does not use TLS"
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
            f"{url} answered HTTP {error.status}, which is not from livekit-server; check LIVEKIT_URL and the proxy in "
            "front of it"
        )
    if error.code == "not_found" and error.status == 404 and error.message:
        return NotFound(error.message)
    if "redis required" in error.message:
        return FailedPrecondition(SIP_WITHOUT_REDIS)
    if error.status >= 500 or error.code in ("unavailable", "deadline_exceeded"):
        return Unavailable(f"livekit-server at {url} answered {error.status}: {error.message}")
    return Internal(f"livekit-server at {url} answered {error.code}: {error.message}")
