"""A gate in front of livekit-server that can be shut, for the ways in which LiveKit is not there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

Manner = Literal["pass", "hang", "close", "bad gateway", "not found"]
_ANSWERS: dict[Manner, bytes] = {
    "bad gateway": b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\noops\n",
    "not found": b"HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 5\r\n\r\noops\n",
}


class Gate:
    """`signalling` is how clients' WebSockets fare (`/rtc`), `api` everything else; both may change at any time."""

    def __init__(self, target_port: int) -> None:
        self.api: Manner = "pass"
        self.signalling: Manner = "pass"
        self.api_delay = 0.0
        """Seconds that the first answer of a connection to the API takes."""
        self.loses_answers = False
        """What LiveKit says on signalling connections that are open is lost, their end is not; new ones are whole."""
        self.opened = asyncio.Event()
        """Passes the held requests on to LiveKit."""
        self.port = 0
        self.signalling_attempts = 0
        self.api_attempts = 0
        self._target_port = target_port
        self._tasks: set[asyncio.Task[None]] = set()
        self._signalling: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Break all signalling connections that are open."""
        for writer in self._signalling:
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                is_signalling = head.split(b" ", 2)[1].startswith(b"/rtc")
                self.signalling_attempts += is_signalling
                self.api_attempts += not is_signalling
                if is_signalling:
                    self._signalling.add(writer)
                manner = self.signalling if is_signalling else self.api
                if not is_signalling:
                    await asyncio.sleep(self.api_delay)
                if manner == "hang":
                    await self.opened.wait()
                    manner = "pass"
                if manner == "pass":
                    await self._pass(head, reader, writer, is_signalling)
                else:
                    writer.write(_ANSWERS.get(manner, b""))
                    await writer.drain()
            finally:
                self._signalling.discard(writer)
                writer.close()

    async def _pass(
        self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_signalling: bool
    ) -> None:
        back, forth = await asyncio.open_connection("127.0.0.1", self._target_port)
        is_new = self.loses_answers

        def is_lost() -> bool:
            return is_signalling and self.loses_answers and not is_new

        try:
            forth.write(head)
            both = [
                asyncio.ensure_future(self._copy(reader, forth, lambda: False)),
                asyncio.ensure_future(self._copy(back, writer, is_lost)),
            ]
            try:
                await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in both:
                    task.cancel()
                await asyncio.gather(*both, return_exceptions=True)
        finally:
            forth.close()

    async def _copy(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_lost: Callable[[], bool]
    ) -> None:
        while data := await reader.read(65536):
            if not is_lost():
                writer.write(data)
                await writer.drain()


@asynccontextmanager
async def gate_to(port: int) -> AsyncIterator[Gate]:
    gate = Gate(port)
    await gate.start()
    try:
        yield gate
    finally:
        await gate.stop()
