"""The carrier's media WebSocket as an aiohttp shell: bytes and timeouts here, meaning in the codec."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

from aiohttp import WebSocketError, WSMsgType, web

from connector.errors import CarrierProtocolError

MAX_MESSAGE = 512 * 1024
"""Bytes. Half a second of audio, the most that carriers are known to send at once, has 64,000 in base64 at the highest
rate that we decode; and custom parameters and metadata, which carriers do not all bound, come in one message."""
CLOSE_TIMEOUT = 2.0
SEND_BUFFER = 16 * 1024
"""Kernel send buffer: audio that waits in it cannot be dropped any more. A second of G.711 in JSON is about
12 KB, so this is what a slow path may need, and no more."""
HIGH_WATER = 1024
NOT_SENT = 2048
"""Bytes that the kernel may hold beside what is already on its way: the rest waits here, where it can be
dropped when it grows old."""

_CLOSE_UNSUPPORTED = 1003
_CLOSE_ABNORMAL = 1006


def new_websocket() -> web.WebSocketResponse:
    return web.WebSocketResponse(
        timeout=CLOSE_TIMEOUT, autoping=False, compress=False, max_msg_size=MAX_MESSAGE, writer_limit=1
    )


class MediaSocket:
    """See `connector.call.ports.CarrierSocket`."""

    def __init__(self, websocket: web.WebSocketResponse, request: web.Request) -> None:
        self._websocket = websocket
        self._transport = request.transport
        self._broken = False
        self.last_pong: float | None = None
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=HIGH_WATER)
            raw: socket.socket | None = self._transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)

    async def messages(self) -> AsyncIterator[str]:
        async for message in self._websocket:
            if message.type is WSMsgType.TEXT:
                yield message.data
            elif message.type is WSMsgType.PONG:
                self.last_pong = asyncio.get_running_loop().time()
            elif message.type is WSMsgType.PING:
                with contextlib.suppress(OSError):
                    await self._websocket.pong(message.data)
            elif message.type is WSMsgType.BINARY:
                raise CarrierProtocolError("a binary message came; carriers send text", _CLOSE_UNSUPPORTED)
            elif message.type is WSMsgType.ERROR:
                self._broken = True
                # aiohttp reports 1006 as the close code even where the peer's message broke RFC 6455.
                error = self._websocket.exception()
                if isinstance(error, WebSocketError):
                    raise CarrierProtocolError(f"the WebSocket message is not acceptable: {error}", int(error.code))

    @property
    def ended_cleanly(self) -> bool:
        return not self._broken and self._websocket.close_code not in (None, _CLOSE_ABNORMAL)

    async def send(self, text: str) -> None:
        await self._websocket.send_str(text)

    async def ping(self) -> None:
        await self._websocket.ping()

    async def close(self, code: int, reason: str) -> None:
        # When the peer is gone or does not read, the abort below is all that is left.
        with contextlib.suppress(TimeoutError, OSError, RuntimeError):
            await asyncio.wait_for(self._websocket.close(code=code, message=reason.encode()), CLOSE_TIMEOUT + 1)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.abort()
