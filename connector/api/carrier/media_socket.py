"""The carrier's media WebSocket in aiohttp: handles bytes and timeouts; the codec interprets the messages."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import WebSocketError, WSMsgType, web

from connector.errors import CarrierProtocolError

MAX_MESSAGE = 512 * 1024
"""Bytes. Carriers send at most half a second of audio in one message, as far as we know: 64,000 bytes in base64 at the
highest rate that we decode. Custom parameters and metadata come in one message too; not all carriers limit them."""
CLOSE_TIMEOUT = 2.0
SEND_BUFFER = 16 * 1024
"""Kernel send buffer in bytes. Audio in this buffer can no longer be dropped, so it is only as large as a slow network
path needs: one second of G.711 in JSON is about 12 KB."""
HIGH_WATER = 1024
NOT_SENT = 2048
"""Limit in bytes of unsent data in the kernel. The rest stays in this process, where old audio can be dropped."""

_CLOSE_UNSUPPORTED = 1003
_CLOSE_ABNORMAL = 1006
_OVER = (WSMsgType.CLOSE, WSMsgType.CLOSING, WSMsgType.CLOSED)


class _WebSocketResponse(web.WebSocketResponse):
    def _close_transport(self) -> None:
        """After a message that violates RFC 6455 or is too long, aiohttp sends a close frame and closes the TCP
        connection at once. The peer may still be sending that message: the kernel would answer with a reset, and the
        peer could lose the close frame. `MediaSocket.close` closes the connection instead."""
        if not isinstance(self.exception(), WebSocketError):
            super()._close_transport()


def new_websocket() -> web.WebSocketResponse:
    return _WebSocketResponse(
        timeout=CLOSE_TIMEOUT, autoping=False, compress=False, max_msg_size=MAX_MESSAGE, writer_limit=1
    )


class MediaSocket:
    """See `connector.call.ports.CarrierSocket`."""

    def __init__(self, websocket: web.WebSocketResponse, request: web.Request) -> None:
        self._websocket = websocket
        self._transport = request.transport
        self._broken = False
        self._peer_said_so = False
        """The peer has sent a close frame. aiohttp's close code is 1006 all the same if the answer to it cannot be sent
        any more, because the peer did not wait for it."""
        self.close_code: int | None = None
        self.last_pong: float | None = None
        if self._transport is not None:
            self._transport.set_write_buffer_limits(high=HIGH_WATER)
            raw: socket.socket | None = self._transport.get_extra_info("socket")
            if raw is not None:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
                if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)

    async def messages(self) -> AsyncIterator[str]:
        while True:
            message = await self._websocket.receive()
            if message.type is WSMsgType.TEXT:
                yield message.data
            elif message.type in _OVER:
                self._peer_said_so = message.type is WSMsgType.CLOSE
                if self._peer_said_so:
                    self.close_code = message.data
                return
            elif message.type is WSMsgType.PONG:
                self.last_pong = asyncio.get_running_loop().time()
            elif message.type is WSMsgType.PING:
                with contextlib.suppress(OSError):
                    await self._websocket.pong(message.data)
            elif message.type is WSMsgType.BINARY:
                raise CarrierProtocolError("received a binary message; carriers send text only", _CLOSE_UNSUPPORTED)
            elif message.type is WSMsgType.ERROR:
                self._broken = True
                # aiohttp reports the close code 1006 even if the peer's message violated RFC 6455.
                error = self._websocket.exception()
                if isinstance(error, WebSocketError):
                    raise CarrierProtocolError(f"the WebSocket message is not acceptable: {error}", int(error.code))

    @property
    def ended_cleanly(self) -> bool:
        has_code = self._websocket.close_code not in (None, _CLOSE_ABNORMAL)
        return not self._broken and (has_code or self._peer_said_so)

    async def send(self, text: str) -> None:
        await self._websocket.send_str(text)

    async def ping(self) -> None:
        await self._websocket.ping()

    async def close(self, code: int, reason: str) -> None:
        # If the peer is gone or does not read, only the abort below closes the connection.
        with contextlib.suppress(TimeoutError, OSError, RuntimeError):
            await asyncio.wait_for(self._websocket.close(code=code, message=reason.encode()), CLOSE_TIMEOUT + 1)
        if self._transport is not None and not self._transport.is_closing():
            if isinstance(self._websocket.exception(), WebSocketError):
                await _discard_input(self._transport)
            self._transport.abort()


async def _discard_input(transport: asyncio.Transport) -> None:
    """Read until the peer closes the connection, at most CLOSE_TIMEOUT."""
    discarding = _Discarding(transport.get_protocol())
    transport.set_protocol(discarding)
    transport.resume_reading()
    await asyncio.wait([discarding.lost], timeout=CLOSE_TIMEOUT)


class _Discarding(asyncio.Protocol):
    """Takes the place of aiohttp's protocol, which has stopped to interpret the input."""

    def __init__(self, before: Any) -> None:
        self._before = before
        self.lost = asyncio.get_running_loop().create_future()

    def connection_lost(self, error: Exception | None) -> None:
        self._before.connection_lost(error)
        if not self.lost.done():
            self.lost.set_result(None)

    def pause_writing(self) -> None:
        self._before.pause_writing()

    def resume_writing(self) -> None:
        self._before.resume_writing()
