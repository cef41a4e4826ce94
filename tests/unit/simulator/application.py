"""An application as a carrier sees one: documents, callbacks, and a media socket that tests drive by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from aiohttp import WSMsgType, web
from twilio.request_validator import RequestValidator

Verifier = Callable[[web.Request, str, dict[str, str], bytes], bool]
"""Whether a request is signed, from it, its public URL, its form and its body."""


def signed_by_twilio(auth_token: str) -> Verifier:
    validator = RequestValidator(auth_token)

    def verify(request: web.Request, url: str, form: dict[str, str], _: bytes) -> bool:
        signature: str = validator.compute_signature(url, form)
        return signature == request.headers.get("X-Twilio-Signature")

    return verify


@dataclass
class Hit:
    method: str
    path: str
    form: dict[str, str]
    headers: dict[str, str]
    valid: bool


@dataclass
class Socket:
    """The server's end of one media stream."""

    ws: web.WebSocketResponse
    request: web.Request
    inbox: asyncio.Queue[dict[str, Any]] = field(default_factory=asyncio.Queue)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    seen: list[dict[str, Any]] = field(default_factory=list)

    @property
    def sid(self) -> str:
        start = next(m for m in self.seen if m["event"] == "start")
        return str(start.get("streamSid") or start.get("stream_id") or start["start"]["streamId"])

    async def expect(self, event: str) -> dict[str, Any]:
        """The next message of this kind; others are passed over (they stay in `seen`)."""
        async with asyncio.timeout(20):
            while (message := await self.inbox.get())["event"] != event:
                pass
        return message

    async def write(self, **message: object) -> None:
        await self.ws.send_str(json.dumps(message))

    async def send(self, **message: object) -> None:
        await self.write(streamSid=self.sid, **message)

    async def media(self, ulaw: bytes) -> None:
        await self.send(event="media", media={"payload": base64.b64encode(ulaw).decode()})


class Application:
    """`pages` maps a path to (body, content type, status); `/stream…` is the media socket."""

    def __init__(self, verifier: Verifier, tls: ssl.SSLContext | None = None) -> None:
        self.pages: dict[str, tuple[str, str, int]] = {}
        self.hits: asyncio.Queue[Hit] = asyncio.Queue()
        self.sockets: asyncio.Queue[Socket] = asyncio.Queue()
        self.refuse_stream = 0
        self._tls = tls
        self._verifier = verifier
        self._runner: web.AppRunner | None = None
        self.port = 0

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._tls).start()
        self.port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}"

    @property
    def stream_url(self) -> str:
        return self.url.replace("http", "ws") + "/stream/token"

    def page(self, path: str, body: str, content_type: str = "text/xml", status: int = 200) -> str:
        self.pages[path] = (f"<Response>{body}</Response>", content_type, status)
        return self.url + path

    def stream_page(self, after: str = "", inside: str = "", **connect: str) -> str:
        attributes = "".join(f' {name}="{value}"' for name, value in connect.items())
        return self.page(
            "/voice",
            f'<Connect{attributes}><Stream url="{self.stream_url}">{inside}</Stream></Connect>{after}',
        )

    async def hit(self, where: Callable[[Hit], bool] = lambda _: True) -> Hit:
        async with asyncio.timeout(20):
            while not where(hit := await self.hits.get()):
                pass
        return hit

    async def socket(self) -> Socket:
        """The next media socket, after its start message."""
        async with asyncio.timeout(20):
            socket = await self.sockets.get()
        await socket.expect("start")
        return socket

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        form = {k: str(v) for k, v in (await request.post()).items()}
        # As an application computes it: from its own idea of its public URL.
        scheme = request.headers.get("X-Forwarded-Proto", request.scheme)
        if request.path.startswith("/stream"):
            scheme = scheme.replace("http", "ws")
        url = f"{scheme}://{request.host}{request.raw_path}"
        valid = self._verifier(request, url, form, body)
        self.hits.put_nowait(Hit(request.method, request.path, form, dict(request.headers), valid))
        if request.path.startswith("/stream"):
            return await self._stream(request)
        page, content_type, status = self.pages.get(request.path, ("nothing here", "text/plain", 404))
        return web.Response(text=page, content_type=content_type, status=status)

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        if self.refuse_stream:
            return web.Response(status=self.refuse_stream)
        ws = web.WebSocketResponse(timeout=0.5)
        await ws.prepare(request)
        socket = Socket(ws, request)
        self.sockets.put_nowait(socket)
        async for message in ws:
            assert message.type is WSMsgType.TEXT
            decoded = json.loads(message.data)
            socket.seen.append(decoded)
            socket.inbox.put_nowait(decoded)
        socket.done.set()
        return ws
