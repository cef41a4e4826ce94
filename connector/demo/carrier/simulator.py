"""A strict Twilio on the loopback: its REST API in front, phones and media streams behind."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import aiohttp
from aiohttp import web

from connector.demo.carrier.call import PhoneCall
from connector.demo.carrier.directions import InboundCall, OutboundCall
from connector.demo.carrier.rest import RestApi
from connector.demo.carrier.terms import Callback, CallOptions, Document, Outcome
from connector.demo.carrier.web import Web


class TwilioSimulator:
    """Use as `async with TwilioSimulator() as twilio`.

    `outcome` is what called people do, unless `script` says otherwise for a number. `tls` is used to reach
    https and wss servers. `receive_buffer` bounds the kernel's receive buffer of each connection to a server,
    in bytes, so that a peer's writes back up soon after `stop_reading`.
    """

    def __init__(
        self,
        *,
        account_sid: str = "",
        auth_token: str = "",
        host: str = "127.0.0.1",
        port: int = 0,
        outcome: Outcome | None = None,
        options: CallOptions | None = None,
        tls: ssl.SSLContext | None = None,
        receive_buffer: int | None = None,
    ) -> None:
        self.account_sid = account_sid or "AC" + secrets.token_hex(16)
        self.auth_token = auth_token or secrets.token_hex(16)
        self.outcome = outcome or Outcome()
        self.options = options or CallOptions()
        self._host = host
        self._port = port
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._outcomes: dict[str, Outcome] = {}
        self._calls: dict[str, PhoneCall] = {}
        self._placed: asyncio.Queue[OutboundCall] = asyncio.Queue()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._web: Web | None = None

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, socket_factory=self._socket)
        self._session = aiohttp.ClientSession(connector=connector)
        self._web = Web(self._session, self.auth_token, self._tls)
        app = web.Application()
        app.add_routes(RestApi(self).routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """End every call at once and let go of all sockets."""
        await asyncio.gather(*(call.cancel() for call in self._calls.values()))
        if self._runner:
            await self._runner.cleanup()
        if self._session:
            await self._session.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def base_url(self) -> str:
        """Stands for https://api.twilio.com."""
        return f"http://{self._host}:{self._port}"

    @property
    def web(self) -> Web:
        """How it reaches the application: signing, routes through a proxy."""
        if self._web is None:
            raise RuntimeError("the simulator has not been started")
        return self._web

    @property
    def calls(self) -> Mapping[str, PhoneCall]:
        """Every call so far, by its sid."""
        return self._calls

    def script(self, to: str, outcome: Outcome) -> None:
        """What happens when this number is called."""
        self._outcomes[to] = outcome

    def dial(
        self,
        to: str,
        from_: str,
        document: Document,
        ring_timeout: float = 60.0,
        callback: Callback | None = None,
    ) -> OutboundCall:
        """Place a call, as the REST API does."""
        outcome = self._outcomes.get(to, self.outcome)
        call = OutboundCall(
            self.web, self.account_sid, to, from_, self.options, document, outcome, ring_timeout, callback
        )
        self._placed.put_nowait(call)
        self._begin(call)
        return call

    def inbound_call(
        self, webhook_url: str, *, to: str = "+15550001111", from_: str = "+15552223333", method: str = "POST"
    ) -> InboundCall:
        """Somebody calls a number whose voice webhook is `webhook_url`."""
        webhook = Document(webhook_url, method)
        call = InboundCall(self.web, self.account_sid, to, from_, self.options, webhook)
        self._begin(call)
        return call

    async def next_call(self, timeout: float = 10.0) -> OutboundCall:  # noqa: ASYNC109 - a test's patience
        """The next call that somebody places (over REST or with `dial`), in order."""
        async with asyncio.timeout(timeout):
            return await self._placed.get()

    def forget(self, call: PhoneCall) -> None:
        """Drop an ended call, so that a run of many calls does not keep them all."""
        if not call.is_over:
            raise RuntimeError("the call is not over")
        del self._calls[call.sid]

    def _begin(self, call: PhoneCall) -> None:
        self._calls[call.sid] = call
        call.start()

    def _socket(self, address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        family, kind, protocol, _, _ = address
        sock = socket.socket(family, kind, protocol)
        if self._receive_buffer:
            # Before connecting: the window a connection may grow to is settled in its handshake.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        return sock
