"""The service's HTTP server: APIs, carriers' requests and media sockets on one port."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterable
from typing import Protocol

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

    async def start(self, host: str, port: int) -> int:
        """Returns the port, which the system chooses if `port` is 0. Raises OSError; call `stop` also then."""
        application = web.Application(client_max_size=MAX_BODY)
        for routes in self._routes:
            routes.add_to(application.router)
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
        if self._runner is not None:
            for site in list(self._runner.sites):
                await site.stop()
            if self._runner.server is not None:
                self._runner.server.pre_shutdown()

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()


def _cannot_listen(host: str, port: int, error: OSError) -> str:
    # The event loops repeat the address in their messages, each in a different form, so the text is made from the
    # errno. A host name that does not resolve has no errno.
    why = os.strerror(error.errno).lower() if error.errno and error.errno > 0 else str(error.strerror).lower()
    return f"cannot listen on {host} port {port}: {why}; see CONNECTOR_HOST and CONNECTOR_PORT"
