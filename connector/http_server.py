"""The service's HTTP server: APIs, carriers' requests and media sockets on one port."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from aiohttp import web

MAX_BODY = 256 * 1024
KEEP_ALIVE = 75
"""Seconds, for API clients; a media socket is never idle on purpose."""
SHUTDOWN_PATIENCE = 5


class Routes(Protocol):
    def add_to(self, router: web.UrlDispatcher) -> None: ...


class HttpServer:
    """Serves these routes; a request is handled by the first route that matches."""

    def __init__(self, routes: Iterable[Routes], *, shares_port: bool = False) -> None:
        """`shares_port`: other processes may listen on the same port."""
        self._routes = tuple(routes)
        self._shares_port = shares_port
        self._runner: web.AppRunner | None = None
        self._leaving = False

    async def start(self, host: str, port: int) -> int:
        """Returns the port, which the system chooses if `port` is 0. Raises OSError; call `stop` also then."""
        application = web.Application(client_max_size=MAX_BODY)
        for routes in self._routes:
            routes.add_to(application.router)
        application.on_response_prepare.append(self._close_if_leaving)
        # If a client disconnects, its request is cancelled, as in gRPC: no call remains that nobody waits for.
        self._runner = web.AppRunner(
            application,
            access_log=None,
            keepalive_timeout=KEEP_ALIVE,
            shutdown_timeout=SHUTDOWN_PATIENCE,
            handler_cancellation=True,
        )
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port, reuse_port=self._shares_port or None).start()
        except OSError as error:
            raise OSError(_cannot_listen(host, port, error)) from error
        return int(self._runner.addresses[0][1])

    async def _close_if_leaving(self, _: web.Request, response: web.StreamResponse) -> None:
        if self._leaving and not isinstance(response, web.WebSocketResponse):
            response.force_close()
            response.headers["Connection"] = "close"

    async def adopt(self, connection: socket.socket, received: bytes) -> None:
        """Serve a connection that another process has accepted; `received`: the bytes that it has read."""
        if self._runner is None or self._runner.server is None:
            raise OSError("the HTTP server is stopped")
        loop = asyncio.get_running_loop()
        _, protocol = await loop.connect_accepted_socket(self._runner.server, connection)
        protocol.data_received(received)

    @property
    def is_listening(self) -> bool:
        return self._runner is not None and bool(self._runner.sites)

    async def stop_listening(self) -> None:
        """Accept no new connection. Open requests and WebSockets go on; idle connections are closed, so that the next
        request of a client or proxy reaches another process."""
        await self.leave_port()
        if self._runner is not None and self._runner.server is not None:
            self._runner.server.pre_shutdown()

    async def leave_port(self) -> None:
        """Accept no new connection, and close each open one after its next response."""
        runner, self._leaving = self._runner, True
        if runner is None or runner.server is None:
            return
        listening = []
        for site in list(runner.sites):
            server: Any = site._server
            listening += [socket.socket(fileno=os.dup(each.fileno())) for each in server.sockets]
            await site.stop()
        # The system has accepted connections that we have not got yet. With the last descriptor it would reset them.
        accepted = [connection for each in listening for connection in _accepted(each)]
        for connection in accepted:
            await asyncio.get_running_loop().connect_accepted_socket(runner.server, connection)

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


def _accepted(listening: socket.socket) -> Iterator[socket.socket]:
    """The connections that wait in this socket's queue; then it is closed."""
    with listening:
        listening.setblocking(False)
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            connection.setblocking(False)
            yield connection


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    # The event loops repeat the address in their messages, each in a different form, so the text is made from the
    # errno. A host name that does not resolve has no errno.
    why = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error.strerror).lower()
    return f"cannot listen on {host} port {port}: {why}; see CONNECTOR_HOST and CONNECTOR_PORT"
