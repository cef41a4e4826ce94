"""A strict carrier on the loopback: its REST API in front, phones and media streams behind."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, TypedDict

import aiohttp
from aiohttp import web

from carrier_simulator.call import PhoneCall
from carrier_simulator.dialect import Dialect, Office
from carrier_simulator.directions import InboundCall, OutboundCall
from carrier_simulator.jitter import Jitter
from carrier_simulator.sip import SipClient
from carrier_simulator.terms import Callback, CallOptions, Document, Outcome
from carrier_simulator.web import Manner, Web


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """Where a simulator stands, and how everything around it behaves."""

    host: str = "127.0.0.1"
    port: int = 0
    outcome: Outcome = field(default_factory=Outcome)
    """What called people do, unless the simulator's `script` says otherwise for a number."""
    options: CallOptions = field(default_factory=CallOptions)
    tls: ssl.SSLContext | None = None
    """To reach https and wss servers."""
    receive_buffer: int | None = None
    """Bounds the kernel's receive buffer of each connection to a server, in bytes, so that a peer's writes back up
    soon after `stop_reading`."""
    jitter: Jitter | None = field(default_factory=Jitter.from_environment)
    """Shuffles independent requests; None: they come in order."""


class WorldOptions(TypedDict, total=False):
    """The fields of a `World`, as keywords of a simulator."""

    host: str
    port: int
    outcome: Outcome
    options: CallOptions
    tls: ssl.SSLContext | None
    receive_buffer: int | None
    jitter: Jitter | None


class CarrierSimulator:
    """What the carriers share. Use as `async with TwilioSimulator() as twilio`."""

    def __init__(self, dialect: Dialect, manner: Manner, secret: str, world: World) -> None:
        """`secret` signs the requests."""
        self.dialect = dialect
        self.outcome = world.outcome
        self.options = world.options
        self.api_failures = 0
        """So many of the next requests to the REST API are answered 503."""
        self._manner = manner
        self._secret = secret
        self._world = world
        self._port = world.port
        self.jitter = world.jitter
        self._delays = self.jitter.delays("REST API") if self.jitter else None
        self.numbers: dict[str, str] = {}
        """The account's numbers, in E.164 form, and the voice URL of each, as the REST API tells them."""
        self._outcomes: dict[str, Outcome] = {}
        self._calls: dict[str, PhoneCall] = {}
        self._placed: asyncio.Queue[OutboundCall] = asyncio.Queue()
        self._runner: web.AppRunner | None = None
        self._session: aiohttp.ClientSession | None = None
        self._office: Office | None = None

    def routes(self) -> Sequence[web.RouteDef]:
        """The REST API."""
        raise NotImplementedError

    async def start(self) -> None:
        connector = aiohttp.TCPConnector(limit=0, socket_factory=self._socket)
        self._session = aiohttp.ClientSession(connector=connector)
        client = Web(self._session, self._manner, self._secret, self._world.tls)
        self._office = Office(self.dialect, client, self.options, self.outcome_of, jitter=self.jitter)
        app = web.Application(middlewares=[self._answer])
        app.add_routes(self.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._world.host, self._port)
        await site.start()
        self._port = self._runner.addresses[0][1]

    @web.middleware
    async def _answer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        if self.api_failures:
            self.api_failures -= 1
            return web.json_response({}, status=503)
        response = await handler(request)
        if self._delays:
            # What the request has caused may reach the application before the answer to it.
            await asyncio.sleep(self._delays.next("answer"))
        return response

    async def stop(self) -> None:
        """End every call at once and let go of all sockets."""
        if self._office:
            self._office.sip.hurry()
        await asyncio.gather(*(call.cancel() for call in self._calls.values()))
        if self._runner:
            await self._runner.cleanup()
            self._runner = None
        if self._session:
            await self._session.close()
        if self._office:
            await self._office.sip.close()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def is_running(self) -> bool:
        return self._runner is not None

    @property
    def base_url(self) -> str:
        """Stands for the origin of the carrier's API."""
        return f"http://{self._world.host}:{self._port}"

    @property
    def office(self) -> Office:
        if self._office is None:
            raise RuntimeError("the simulator has not been started")
        return self._office

    @property
    def web(self) -> Web:
        """How it reaches the application: signing, routes through a proxy."""
        return self.office.web

    @property
    def sip(self) -> SipClient:
        """How it calls SIP addresses: where hosts really are, how long it waits."""
        return self.office.sip

    @property
    def calls(self) -> Mapping[str, PhoneCall]:
        """Every call so far, by its id."""
        return self._calls

    def script(self, to: str, outcome: Outcome) -> None:
        """What happens when this number is called."""
        self._outcomes[to] = outcome

    def outcome_of(self, to: str) -> Outcome:
        return self._outcomes.get(to, self.outcome)

    def dial(
        self,
        to: str,
        from_: str,
        document: Document,
        ring_timeout: float = 60.0,
        callback: Callback | None = None,
    ) -> OutboundCall:
        """Place a call, as the REST API does."""
        call = OutboundCall(self.office, to, from_, document, ring_timeout, callback)
        self._placed.put_nowait(call)
        self._begin(call)
        return call

    def call_in(
        self,
        webhook_url: str,
        from_: str = "+15552223333",
        to: str = "+15550001111",
        method: str = "POST",
        callback: Callback | None = None,
    ) -> InboundCall:
        """An incoming call to a number with the voice webhook `webhook_url`; `callback` gets the reports on the
        call."""
        call = InboundCall(self.office, to, from_, Document(webhook_url, method), callback)
        self._begin(call)
        return call

    def inbound_call(
        self, webhook_url: str, *, to: str = "+15550001111", from_: str = "+15552223333", method: str = "POST"
    ) -> InboundCall:
        return self.call_in(webhook_url, from_, to, method)

    async def next_call(self, timeout: float = 20.0) -> OutboundCall:  # noqa: ASYNC109 - a test's patience
        """The next call that somebody places (over REST or with `dial`), in order."""
        async with asyncio.timeout(timeout):
            return await self._placed.get()

    def forget(self, call: PhoneCall) -> None:
        """Drop an ended call, so that a run of many calls does not keep them all."""
        if not call.is_over:
            raise RuntimeError("the call is not over")
        for stream in call.streams:
            stream.let_go()
        del self._calls[call.sid]

    def _begin(self, call: PhoneCall) -> None:
        self._calls[call.sid] = call
        call.start()

    def _socket(self, address: tuple[int, int, int, str, tuple[object, ...]]) -> socket.socket:
        family, kind, protocol, _, _ = address
        sock = socket.socket(family, kind, protocol)
        if self._world.receive_buffer:
            # Before connecting: the window a connection may grow to is settled in its handshake.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._world.receive_buffer)
        return sock
