"""A process that leaves a port which others share: no connection and no request is lost."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
import uvloop
from aiohttp import web

from connector.http_server import HttpServer

PATIENCE = 20.0


class Hello:
    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/", self.hello)

    async def hello(self, _: web.Request) -> web.Response:
        return web.Response(text="hello")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_what_was_connected_before_is_still_served(run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scene() -> None:
        server = HttpServer([Hello()])
        port = await server.start("127.0.0.1", 0)
        async with asyncio.timeout(PATIENCE), aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/") as kept:
                assert kept.headers.get("Connection") != "close"
                await kept.read()
            # Connections in the system's queue: the loop has no turn to accept them.
            waiting = [connected(port) for _ in range(5)]
            await server.leave_port()
            async with session.get(f"http://127.0.0.1:{port}/") as last:
                assert (await last.text(), last.headers["Connection"]) == ("hello", "close")
            for connection in waiting:
                reader, writer = await asyncio.open_connection(sock=connection)
                writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert (await reader.readline()).split()[1] == b"200"
                writer.close()
            with pytest.raises(aiohttp.ClientConnectionError):
                await session.get(f"http://127.0.0.1:{port}/")
        await server.stop()

    run(scene())


def connected(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    connection.setblocking(False)
    return connection
