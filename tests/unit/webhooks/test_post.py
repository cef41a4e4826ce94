"""One delivery over real sockets of 127.0.0.1."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
import trustme
from aiohttp import web

from connector.webhooks.post import Outcome, Poster

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
REFUSED = "the host's address is not public; CONNECTOR_WEBHOOK_ALLOW_PRIVATE allows that"


class Receiver:
    """An HTTP server that keeps what it was sent."""

    def __init__(self, handler: Handler | None = None) -> None:
        self.requests: list[tuple[str, bytes, dict[str, str]]] = []
        self._handler = handler
        self.port = 0

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        self.requests.append((request.path_qs, await request.read(), dict(request.headers)))
        return await self._handler(request) if self._handler else web.Response()

    @asynccontextmanager
    async def running(self, tls: ssl.SSLContext | None = None) -> AsyncIterator[Receiver]:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.port = runner.addresses[0][1]
        try:
            yield self
        finally:
            await runner.cleanup()


@asynccontextmanager
async def poster(*, allow_private: bool = True, time_out: float = 10.0) -> AsyncIterator[Poster]:
    made = Poster(allow_private=allow_private, time_out=time_out)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


async def post(
    port: int, *, host: str = "127.0.0.1", scheme: str = "http", allow_private: bool = True, time_out: float = 10.0
) -> Outcome:
    async with poster(allow_private=allow_private, time_out=time_out) as sender:
        return await sender.post(f"{scheme}://{host}:{port}/hook?secret=s3cret", b'{"a":1}', {"x-mine": "yes"})


async def test_the_body_and_headers_arrive_as_they_are() -> None:
    async with Receiver().running() as receiver:
        assert await post(receiver.port) == Outcome(200)
    ((path, body, headers),) = receiver.requests
    assert (path, body) == ("/hook?secret=s3cret", b'{"a":1}')
    assert headers["Content-Type"] == "application/json"
    assert headers["x-mine"] == "yes"
    assert headers["User-Agent"].startswith("livekit-telephony-connector/")


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (200, ""),
        (202, ""),
        (204, ""),
        (304, "HTTP 304: redirects are not followed"),
        (400, "HTTP 400"),
        (404, "HTTP 404"),
        (410, "HTTP 410"),
        (500, "HTTP 500"),
    ],
)
async def test_two_hundreds_are_delivered_and_nothing_else_is(status: int, error: str) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status)

    async with Receiver(answer).running() as receiver:
        assert await post(receiver.port) == Outcome(status, error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    async with Receiver().running() as goal:

        async def redirect(_: web.Request) -> web.Response:
            return web.Response(status=status, headers={"Location": f"http://127.0.0.1:{goal.port}/"})

        async with Receiver(redirect).running() as receiver:
            assert await post(receiver.port) == Outcome(status, f"HTTP {status}: redirects are not followed")
    assert len(receiver.requests) == 1
    assert goal.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "0x7f.1", "localhost", "[::ffff:127.0.0.1]"])
async def test_loopback_is_not_connected_to_in_any_spelling(host: str) -> None:
    async with Receiver().running() as receiver:
        assert await post(receiver.port, host=host, allow_private=False) == Outcome(0, REFUSED)
    assert receiver.requests == []


@pytest.mark.parametrize("host", ["127.1", "2130706433", "0"])
async def test_outdated_spellings_are_no_hosts(host: str) -> None:
    async with Receiver().running() as receiver:
        assert await post(receiver.port, host=host, allow_private=False) == Outcome(
            0, "the connection to the URL failed"
        )
    assert receiver.requests == []


async def test_a_name_is_judged_by_the_address_that_is_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that had a public address a moment ago, and now another: what rebinding does."""
    async with Receiver().running() as receiver:
        port = receiver.port
        here = (socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("127.0.0.1", port))
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: [here])
        assert await post(port, host="rebound.example.com", allow_private=False) == Outcome(0, REFUSED)
        assert receiver.requests == []
        assert (await post(port, host="rebound.example.com")).delivered


async def test_a_server_that_says_nothing_is_left_after_the_time_out() -> None:
    silent = asyncio.Event()

    async def wait(_: web.Request) -> web.Response:
        await silent.wait()
        return web.Response()

    async with Receiver(wait).running() as receiver:
        assert await post(receiver.port, time_out=0.2) == Outcome(0, "no answer within 0.2 s")
        silent.set()


async def test_an_answer_without_end_is_not_read() -> None:
    async def pour(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            stopped.set()
        return response

    stopped = asyncio.Event()
    async with Receiver(pour).running() as receiver:
        assert await post(receiver.port) == Outcome(200)
        async with asyncio.timeout(5):
            await stopped.wait()


@pytest.mark.parametrize(
    ("raw", "error"),
    [
        (b"", "the server closed the connection without an answer"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "the answer is not HTTP"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", "the answer is not HTTP"),
    ],
    ids=["nothing", "another protocol", "a header without end"],
)
async def test_what_is_not_an_answer(raw: bytes, error: str) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(raw)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        outcome = await post(server.sockets[0].getsockname()[1])
    assert outcome == Outcome(0, error)


async def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert await post(taken.getsockname()[1]) == Outcome(0, "connection refused")


async def test_a_certificate_that_nobody_signed_is_not_good() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with Receiver().running(context) as receiver:
        outcome = await post(receiver.port, scheme="https")
    assert outcome.error.startswith("the certificate is invalid: ")
    assert receiver.requests == []


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert await post(80, host="nowhere.example.com") == Outcome(0, "the host's name does not resolve")
