"""The carrier as a client of the application's web server: documents, callbacks and sockets, all signed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode, urlsplit

import aiohttp
from yarl import URL

from carrier_simulator.faults import Fault, Refused

FETCH_TIMEOUT = 15.0
MOST_KEPT = 8
"""Connections kept from earlier requests that may be dead, before one that fails is a fault."""
Form = Sequence[tuple[str, str]]
_FORM_TYPE = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class Page:
    body: bytes
    content_type: str


class Signer(Protocol):
    """The headers that prove where a request comes from."""

    def request(self, secret: str, method: str, url: str, form: Form, body: bytes) -> Mapping[str, str]:
        """`url` has the form in its query when the method is GET, and `form` and `body` are empty then."""
        ...

    def handshake(self, secret: str, url: str) -> Mapping[str, str]:
        """Of a WebSocket."""
        ...


@dataclass(frozen=True, slots=True)
class Manner:
    """How a carrier introduces itself."""

    signer: Signer
    user_agent: str
    stream_user_agent: str
    queries: bool = True
    """Whether a stream's URL may have a query string."""
    longest_url: int = 4096
    """Of a stream."""


class Web:
    """`routes` maps a public origin to the one really connected to, as a reverse proxy would: what is signed,
    and the Host header, are the public URL's.
    """

    def __init__(
        self, session: aiohttp.ClientSession, manner: Manner, signing_token: str, tls: ssl.SSLContext | None = None
    ) -> None:
        self.signing_token: str | None = signing_token
        """Set another one to sign wrongly, None to leave the signature out."""
        self.allow_insecure = True
        """Carriers open `wss` only; `ws` is for a server on the same machine."""
        self.routes: MutableMapping[str, str] = {}
        self._session = session
        self._manner = manner
        self._tls: ssl.SSLContext | bool = tls or True

    async def fetch(self, url: str, method: str, form: Form) -> Page:
        """Request a document; raise Refused (11200) unless it answers 200 within 15 s."""
        status, page = await self._request(url, method, form)
        if status != 200:
            raise Refused(Fault.HTTP_RETRIEVAL, f"{method} {url}: HTTP {status}")
        return page

    async def notify(self, url: str, method: str, form: Form) -> None:
        """Send a status callback; raise Refused (11200) unless it is taken with a 2xx within 15 s."""
        status, _ = await self._request(url, method, form)
        if not 200 <= status < 300:
            raise Refused(Fault.HTTP_RETRIEVAL, f"{method} {url}: HTTP {status}")

    async def _request(self, url: str, method: str, form: Form) -> tuple[int, Page]:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                for _ in range(MOST_KEPT):
                    try:
                        return await self._send(url, method, form)
                    except aiohttp.ClientConnectorError:
                        raise
                    except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
                        # The connection was kept from an earlier request, and its server has died since.
                        continue
                return await self._send(url, method, form)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Refused(Fault.HTTP_RETRIEVAL, f"{method} {url}: {error or type(error).__name__}") from error

    async def _send(self, url: str, method: str, form: Form) -> tuple[int, Page]:
        body = b""
        if method == "GET":
            url = url + ("&" if "?" in url else "?") + urlencode(form)
            form = ()
        else:
            body = urlencode(form).encode()
        signed: Mapping[str, str] = {}
        if self.signing_token is not None:
            signed = self._manner.signer.request(self.signing_token, method, url, form, body)
        target, forwarded = self._route(url)
        headers = {"User-Agent": self._manner.user_agent, **signed, **forwarded}
        if method != "GET":
            headers["Content-Type"] = _FORM_TYPE
        async with self._session.request(
            method,
            URL(target, encoded=True),
            data=body or None,
            headers=headers,
            ssl=self._tls,
            allow_redirects=False,
        ) as response:
            return response.status, Page(await response.read(), response.headers.get("Content-Type", ""))

    async def open_stream(self, url: str, autoping: bool = True) -> aiohttp.ClientWebSocketResponse:
        """Open a media socket; raise Refused (31920) when that fails. `autoping`: pings are answered unseen."""
        self.check_stream_url(url)
        target, forwarded = self._route(url)
        signed: Mapping[str, str] = {}
        if self.signing_token is not None:
            signed = self._manner.signer.handshake(self.signing_token, url)
        headers = {"User-Agent": self._manner.stream_user_agent, **signed, **forwarded}
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                return await self._session.ws_connect(
                    URL(target, encoded=True),
                    headers=headers,
                    ssl=self._tls,
                    max_msg_size=0,
                    autoping=autoping,
                    timeout=aiohttp.ClientWSTimeout(ws_close=1.0),
                )
        except aiohttp.WSServerHandshakeError as error:
            raise Refused(Fault.STREAM_HANDSHAKE, f"{url}: HTTP {error.status}") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Refused(Fault.STREAM_HANDSHAKE, f"{url}: {error or type(error).__name__}") from error

    def check_stream_url(self, url: str) -> None:
        """Raise Refused (31920) for a URL that the carrier does not even try."""
        parts = urlsplit(url)
        schemes = ("wss", "ws") if self.allow_insecure else ("wss",)
        if parts.scheme not in schemes or not parts.hostname:
            raise Refused(Fault.STREAM_HANDSHAKE, f"Stream url {url!r} is not a {' or '.join(schemes)} URL")
        if "?" in url and not self._manner.queries:
            raise Refused(Fault.STREAM_HANDSHAKE, f"Stream url {url!r} has a query string")
        if parts.fragment:
            raise Refused(Fault.STREAM_HANDSHAKE, f"Stream url {url!r} has a fragment")
        if len(url) > self._manner.longest_url:
            raise Refused(Fault.STREAM_HANDSHAKE, f"the Stream url has more than {self._manner.longest_url} characters")

    def _route(self, url: str) -> tuple[str, Mapping[str, str]]:
        parts = urlsplit(url)
        is_socket = parts.scheme in ("ws", "wss")
        secure = parts.scheme in ("https", "wss")
        target = self.routes.get(f"{'https' if secure else 'http'}://{parts.netloc}")
        if target is None:
            return url, {}
        if is_socket:
            target = "ws" + target.removeprefix("http")
        rest = url[len(f"{parts.scheme}://{parts.netloc}") :]
        return target + rest, {"Host": parts.netloc, "X-Forwarded-Proto": "https" if secure else "http"}
