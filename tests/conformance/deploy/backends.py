"""Stand-ins for what is behind a proxy: each says who it is and what has reached it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Any, Self

import grpc
from aiohttp import WSMsgType, web

WATCH = "/grpc.health.v1.Health/Watch"


class Backends:
    """`livekit` and `connector` over HTTP, and the connector's gRPC."""

    def __init__(self, livekit: int, connector: int, grpc_port: int) -> None:
        self._ports = {"livekit": livekit, "connector": connector}
        self._grpc_port = grpc_port
        self._runners: dict[str, web.AppRunner] = {}
        self._grpc = grpc.aio.server()
        self.news = asyncio.Event()

    async def __aenter__(self) -> Self:
        for name, port in self._ports.items():
            application = web.Application(client_max_size=8 * 2**20)
            application.router.add_route("*", "/{anything:.*}", _Standin(name).answer)
            # As generous with the length of a request line as livekit-server's Go.
            runner = web.AppRunner(application, shutdown_timeout=0.2, max_line_size=2**20, max_field_size=2**20)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", port).start()
            self._runners[name] = runner
        self._grpc.add_generic_rpc_handlers((_Everything(self.news),))
        self._grpc.add_insecure_port(f"127.0.0.1:{self._grpc_port}")
        await self._grpc.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for name in list(self._runners):
            await self.stop(name)
        await self._grpc.stop(None)

    async def stop(self, name: str) -> None:
        """As if it had crashed: nothing listens there any more."""
        await self._runners.pop(name).cleanup()


class _Standin:
    def __init__(self, name: str) -> None:
        self._name = name

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return await self._echo(request)
        return web.json_response(
            {
                "who": self._name,
                "target": request.raw_path,
                "headers": dict(request.headers),
                "body": len(await request.read()),
            }
        )

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        """Says nothing until it is spoken to."""
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            if message.type is WSMsgType.TEXT:
                await socket.send_str(f"{self._name} heard {message.data}")
        return socket


class _Everything(grpc.GenericRpcHandler):
    """Answers every method with its own name; WATCH once more when `news` comes."""

    def __init__(self, news: asyncio.Event) -> None:
        self._news = news

    def service(self, handler_call_details: Any) -> Any:
        method: str = handler_call_details.method

        async def name_itself(body: bytes, context: Any) -> bytes:
            return method.encode()

        async def watch(body: bytes, context: Any) -> AsyncIterator[bytes]:
            yield method.encode()
            await self._news.wait()
            yield b"news"

        if method == WATCH:
            return grpc.unary_stream_rpc_method_handler(watch)
        return grpc.unary_unary_rpc_method_handler(name_itself)
