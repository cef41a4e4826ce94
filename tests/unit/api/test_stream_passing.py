"""A media stream that reaches the wrong worker: its TCP connection goes to the right one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import structlog.testing
import uvloop
from aiohttp import web

from connector.api.carrier.stream_passing import MAX_REQUEST, StreamPassing
from connector.http_server import HttpServer

PATIENCE = 20.0


class Process:
    """A worker whose WebSockets say its name, the path of their request and the client's port, and then echo."""

    def __init__(self, folder: Path | None, name: str) -> None:
        self.passing = StreamPassing(folder, name)
        self.http = HttpServer([self])
        self.name = name
        self.holder = ""
        self.port = 0

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_get("/ws/{token}", self.handle)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        if self.passing.pass_on(request, self.holder):
            return web.Response()
        websocket = web.WebSocketResponse()
        await websocket.prepare(request)
        assert request.transport is not None
        port = request.transport.get_extra_info("peername")[1]
        await websocket.send_str(f"{self.name} {request.raw_path} {port}")
        async for message in websocket:
            await websocket.send_str(message.data)
        return websocket


@asynccontextmanager
async def process(folder: Path | None, name: str) -> AsyncIterator[Process]:
    one = Process(folder, name)
    one.port = await one.http.start("127.0.0.1", 0)
    one.passing.start(one.http.adopt)
    try:
        yield one
    finally:
        await one.passing.stop()
        await one.http.stop()


async def answering(one: Process, **headers: str) -> str:
    """Who answers a stream that reaches this process."""
    url = f"http://127.0.0.1:{one.port}/ws/token"
    async with (
        asyncio.timeout(PATIENCE),
        aiohttp.ClientSession() as session,
        session.ws_connect(url, headers=headers) as stream,
    ):
        greeting: str = await stream.receive_str()
        for text in ("one", "two" * 50_000):
            await stream.send_str(text)
            assert await stream.receive_str() == text
        await stream.close()
        assert stream.close_code == 1000
        return greeting.partition(" ")[0]


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])
def test_the_stream_goes_on_at_the_holder(tmp_path: Path, run: Callable[[Coroutine[Any, Any, None]], None]) -> None:
    async def scene() -> None:
        async with process(tmp_path, "holder"), process(tmp_path, "other") as other:
            other.holder = "holder"
            url = f"ws://127.0.0.1:{other.port}/ws/a%2Fb?ref=x%20y"
            async with (
                asyncio.timeout(PATIENCE),
                aiohttp.ClientSession() as session,
                session.ws_connect(url) as stream,
            ):
                name, path, port = (await stream.receive_str()).split()
                assert (name, path) == ("holder", "/ws/a%2Fb?ref=x%20y")
                assert stream.get_extra_info("sockname")[1] == int(port), "it is the same connection"
                await stream.send_str("hello")
                assert await stream.receive_str() == "hello"
                # The process that has passed it on can stop.
                await other.passing.stop()
                await other.http.stop()
                await stream.send_str("still there")
                assert await stream.receive_str() == "still there"

    run(scene())


async def test_of_many_streams_at_once_none_is_lost(tmp_path: Path) -> None:
    async with process(tmp_path, "holder"), process(tmp_path, "other") as other:
        other.holder = "holder"
        # More than the queue of a Unix socket holds may stay where they are.
        names = await asyncio.gather(*(answering(other) for _ in range(20)))
        assert set(names) <= {"holder", "other"}
        assert await answering(other) == "holder"


@pytest.mark.parametrize("why", ["no folder", "not known", "itself", "none", "gone", "killed", "drains", "passed"])
async def test_a_stream_that_cannot_be_passed_on_stays(tmp_path: Path, why: str) -> None:
    folder = None if why == "no folder" else tmp_path
    async with process(folder, "holder") as holder, process(folder, "other") as other:
        other.holder = {"not known": "another", "itself": "other", "none": ""}.get(why, "holder")
        match why:
            case "gone":
                await holder.passing.stop()
            case "drains":
                holder.passing.stop_listening()
            case "killed":
                kill(holder)
        assert await answering(other, **({"Connector-Passed": "1"} if why == "passed" else {})) == "other"


def kill(holder: Process) -> None:
    """Its socket stays in the folder."""
    unix, holder.passing._socket = holder.passing._socket, None
    assert unix is not None
    asyncio.get_running_loop().remove_reader(unix)
    unix.close()


async def test_the_successor_of_a_worker_that_was_killed_gets_its_streams(tmp_path: Path) -> None:
    async with process(tmp_path, "holder") as holder, process(tmp_path, "other") as other:
        other.holder = "holder"
        kill(holder)
        async with process(tmp_path, "holder"):
            assert await answering(other) == "holder"


async def test_a_holder_that_does_not_read_gets_no_more_streams(tmp_path: Path) -> None:
    async with process(tmp_path, "holder") as holder, process(tmp_path, "other") as other:
        other.holder = "holder"
        assert holder.passing._socket is not None
        asyncio.get_running_loop().remove_reader(holder.passing._socket)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler, suppress(BlockingIOError):
            filler.setblocking(False)
            filler.connect(str(holder.passing._path("holder")))
            while True:
                filler.send(b"x")
        assert await answering(other) == "other"


async def test_data_that_is_no_stream_is_reported_and_does_no_harm(tmp_path: Path) -> None:
    async with process(tmp_path, "holder") as holder, process(tmp_path, "other") as other:
        other.holder = "holder"
        with (
            structlog.testing.capture_logs() as logs,
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix,
            socket.socket() as stranger,
        ):
            unix.connect(str(holder.passing._path("holder")))
            unix.send(b"no connection")
            socket.send_fds(unix, [b"x" * (MAX_REQUEST + 1)], [stranger.fileno()])
            # This one is not connected.
            socket.send_fds(unix, [b"GET /ws/a HTTP/1.1"], [stranger.fileno()])
            assert await answering(other) == "holder"
        assert [line["event"] for line in logs].count("a passed stream is incomplete") == 2
