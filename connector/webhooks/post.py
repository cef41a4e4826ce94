"""One delivery over HTTP: the request, the test for success, and the check of the address."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp
from aiohappyeyeballs import AddrInfoType
from yarl import URL

from connector import __version__
from connector.webhooks.blocked_addresses import is_public

TIME_OUT = 10.0
"""Seconds in total: DNS, connection, TLS, request and response headers."""
MAX_ERROR = 200


class AddressRefused(OSError):
    """The host's address is not on the public Internet."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a delivery attempt. `status`: HTTP status, 0 without a response; `error`: empty when delivered."""

    status: int
    error: str = ""

    @property
    def delivered(self) -> bool:
        return not self.error


class Poster:
    """Sends each delivery over a new connection.

    The resolved address is checked when the socket is created. So neither an unusual spelling of an address nor a
    name whose DNS answer changes in between can bypass the check.
    """

    def __init__(self, *, allow_private: bool, time_out: float = TIME_OUT) -> None:
        self._allow_private = allow_private
        self._time_out = time_out
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,
                force_close=True,
                use_dns_cache=False,
                socket_factory=None if self._allow_private else _public_socket,
            ),
            timeout=aiohttp.ClientTimeout(total=self._time_out),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": f"livekit-telephony-connector/{__version__}", "Content-Type": "application/json"},
            auto_decompress=False,
        )

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Send one request. Raises nothing: the outcome holds the error. Only the status of the response is read."""
        assert self._session is not None, "not open"
        try:
            response = await self._session.post(
                URL(url), data=body, headers=headers, allow_redirects=False, raise_for_status=False
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Outcome(0, self._explain(error))
        response.close()
        if 200 <= response.status < 300:
            return Outcome(response.status)
        if 300 <= response.status < 400:
            return Outcome(response.status, f"HTTP {response.status}: redirects are not followed")
        return Outcome(response.status, f"HTTP {response.status}")

    def _explain(self, error: Exception) -> str:
        """Error text without the URL, because its query may contain a secret."""
        match error:
            case TimeoutError():
                return f"no answer within {self._time_out:g} s"
            case aiohttp.InvalidURL():
                return "the connection to the URL failed"
            case aiohttp.ClientConnectorDNSError():
                return "the host's name does not resolve"
            case aiohttp.ClientConnectorCertificateError():
                cause = error.certificate_error
                detail = cause.verify_message if isinstance(cause, ssl.SSLCertVerificationError) else str(cause)
                return f"the certificate is invalid: {detail}"[:MAX_ERROR]
            case aiohttp.ClientConnectorSSLError():
                return "no TLS connection"
            case aiohttp.ClientConnectorError():
                return _why_not_connected(error.os_error)
            case aiohttp.ServerDisconnectedError():
                return "the server closed the connection without an answer"
            case aiohttp.ClientResponseError():
                return "the answer is not HTTP"
            case OSError() if error.errno and error.errno > 0:
                return os.strerror(error.errno).lower()
            case _:
                return type(error).__name__


def _why_not_connected(error: OSError) -> str:
    if isinstance(error, AddressRefused):
        return str(error)
    return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else "no connection"


def _public_socket(info: AddrInfoType) -> socket.socket:
    family, kind, protocol, _, address = info
    if not is_public(str(address[0])):
        # The same text for every address, so that the delivery log does not reveal what a name resolves to internally.
        raise AddressRefused("the host's address is not public; CONNECTOR_WEBHOOK_ALLOW_PRIVATE allows that")
    return socket.socket(family, kind, protocol)
