"""Passes the connection of a media stream to the worker that holds its call.

The system chooses a worker for each connection, but an outbound call waits with its hidden participant in one of them.
Another worker could take the call over, which means a second join of the room: the callee would be heard 100 ms later.
So the worker that gets the WebSocket handshake passes the open TCP connection on, with the request, over a Unix socket
(SCM_RIGHTS), and the holder answers the handshake. Only workers of one supervisor do this; everywhere else, and if the
holder cannot be reached, the call is taken over.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from aiohttp import web

from connector.tasks import BackgroundTasks

log = structlog.get_logger()

MAX_REQUEST = 32 * 1024
"""Bytes; aiohttp's limits for a request line and a header are 8 KiB each."""
_PASSED = "Connector-Passed"
"""Header of a request that was passed on once: it is not passed on again."""

Adopt = Callable[[socket.socket, bytes], Awaitable[None]]


class StreamPassing:
    """One worker's side; without a `folder` it does nothing."""

    def __init__(self, folder: Path | None, name: str) -> None:
        """`folder`: of the service's workers, readable by this user only. `name`: of this worker."""
        self._folder = folder
        self._name = name
        self._socket: socket.socket | None = None
        self._adopting = BackgroundTasks()

    def start(self, adopt: Adopt) -> None:
        """`adopt` serves a connection whose first request has been read. Raises OSError."""
        if self._folder is None:
            return
        path = self._path(self._name)
        # A worker that was killed has left its socket.
        path.unlink(missing_ok=True)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(path))
        asyncio.get_running_loop().add_reader(self._socket, self._receive, self._socket, adopt)

    def stop_listening(self) -> None:
        """The calls that wait here are left to the other workers."""
        if self._folder is not None:
            self._path(self._name).unlink(missing_ok=True)

    async def stop(self) -> None:
        self.stop_listening()
        unix, self._socket = self._socket, None
        if unix is not None:
            asyncio.get_running_loop().remove_reader(unix)
            unix.close()
        await self._adopting.close()

    def pass_on(self, request: web.Request, holder: str) -> bool:
        """Passes the connection of this WebSocket handshake to the worker `holder`. False: it cannot be passed, and
        goes on here; True: this process has closed its side."""
        transport = request.transport
        if self._folder is None or holder in ("", self._name) or _PASSED in request.headers or transport is None:
            return False
        # What the peer has sent after the request would be lost. No WebSocket client does so before the answer.
        transport.pause_reading()
        connection = transport.get_extra_info("socket")
        if connection is None or request.protocol._message_tail:
            transport.resume_reading()
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as unix:
                unix.setblocking(False)
                unix.connect(str(self._path(holder)))
                socket.send_fds(unix, [_text_of(request)], [connection.fileno()])
        except OSError as error:
            # The holder is no worker of this supervisor, drains, has died, or does not read.
            log.debug("the stream could not be passed on", owner=holder, error=str(error))
            transport.resume_reading()
            return False
        log.info("stream passed on to the worker that holds the call", owner=holder)
        transport.abort()
        return True

    def _path(self, name: str) -> Path:
        """Unix sockets have short paths, workers may have long names."""
        assert self._folder is not None
        return self._folder / f"{hashlib.sha256(name.encode()).hexdigest()[:16]}.sock"

    def _receive(self, unix: socket.socket, adopt: Adopt) -> None:
        while True:
            try:
                text, descriptors, flags, _ = socket.recv_fds(unix, MAX_REQUEST, 1)
            except OSError:
                # Nothing more to read now.
                return
            if len(descriptors) != 1 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                log.error("a passed stream is incomplete")
                for descriptor in descriptors:
                    os.close(descriptor)
                continue
            connection = socket.socket(fileno=descriptors[0])
            connection.setblocking(False)
            self._adopting.start(self._adopt(connection, text, adopt), "serve a passed stream")

    async def _adopt(self, connection: socket.socket, text: bytes, adopt: Adopt) -> None:
        try:
            await adopt(connection, text)
        except Exception:
            # Top level of a task: the carrier comes back, like after any lost connection.
            log.exception("a passed stream could not be served")
            connection.close()


def _text_of(request: web.Request) -> bytes:
    """The request as it came, with our mark. Raises OSError if it is too long."""
    headers = [*request.raw_headers, (_PASSED.encode(), b"1")]
    head = f"{request.method} {request.raw_path} HTTP/1.1".encode()
    text = b"\r\n".join([head, *(name + b": " + value for name, value in headers), b"", b""])
    if len(text) > MAX_REQUEST:
        raise OSError("the request is too long")
    return text
