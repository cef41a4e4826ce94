"""One media stream: the carrier's end of the WebSocket, in real time, and ways to break it."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct
import time
from collections.abc import Callable, Iterable, Mapping
from itertools import cycle

import aiohttp
import numpy as np
from numpy.typing import NDArray

from connector.audio.g711 import ulaw_decode
from connector.demo.carrier import messages
from connector.demo.carrier.faults import Fault, Refused
from connector.demo.carrier.moments import Moment
from connector.demo.carrier.phone import BUFFER_LIMIT, RATE, Ear, Mouth
from connector.demo.carrier.terms import FRAME_SAMPLES
from connector.demo.carrier.web import Web

_ALL_SILENCE = b"\xff\x7f"
_FINE_CODES = frozenset({1000, 1001, 1005})


class MediaStream:
    """`said` and `heard` share one clock: sample 0 is `started`.

    A frame's first sample stands in `said` at the moment the frame leaves, and in `heard` at the moment
    playback of an arriving frame begins: their distance is what the server side takes.
    """

    def __init__(self, web: Web, mouth: Mouth, url: str, account_sid: str, call_sid: str) -> None:
        self.sid = "MZ" + secrets.token_hex(16)
        self.url = url
        self.started = Moment("stream started")
        self.first_sound = Moment("first sound heard")
        self.ended = Moment("stream ended")
        self.close_code: int | None = None
        self.sent_frames = 0
        self.received_frames = 0
        self.received_bytes = 0
        self.received_marks = 0
        self.received_clears = 0
        self.frame_samples: Iterable[int] = (FRAME_SAMPLES,)
        """Lengths of the frames to send, over and over; set before the stream starts."""
        self._web = web
        self._mouth = mouth
        self._writer = messages.Writer(account_sid, call_sid, self.sid)
        self._said = bytearray()
        self._skip = 0
        self._stalled_until = 0.0
        self._reading = asyncio.Event()
        self._reading.set()
        self._outbox: asyncio.Queue[Callable[[], str]] = asyncio.Queue()
        self._mark_timer: asyncio.TimerHandle | None = None
        self._broken_by_us = False
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._ear: Ear | None = None

    # What happened ------------------------------------------------------------------------------------------

    @property
    def said(self) -> NDArray[np.int16]:
        """What the caller said since the stream began, int16 at 8 kHz."""
        return ulaw_decode(bytes(self._said))

    @property
    def heard(self) -> NDArray[np.int16]:
        """What the caller heard since the stream began, int16 at 8 kHz."""
        if self._ear is None:
            return np.zeros(0, np.int16)
        if not self.ended.has_come():
            self._ear.advance(time.monotonic())
        return ulaw_decode(bytes(self._ear.heard))

    @property
    def position(self) -> int:
        """Samples said so far: where in `said` the next frame begins."""
        return len(self._said)

    @property
    def buffered(self) -> float:
        """Seconds of audio that wait to be played to the caller."""
        return self._ear.buffered(time.monotonic()) / RATE if self._ear and not self.ended.has_come() else 0.0

    # Its life -----------------------------------------------------------------------------------------------

    async def run(self, parameters: Mapping[str, str]) -> None:
        """Open, speak and listen until the server closes; cancelled, say `stop` and close.

        Raise Refused when the handshake fails or the server breaks the protocol.
        """
        self._socket = ws = await self._web.open_stream(self.url)
        tasks: list[asyncio.Task[None]] = []
        try:
            await ws.send_str(self._writer.connected())
            await ws.send_str(self._writer.start(parameters))
            self.started.come()
            assert self.started.at is not None
            self._ear = Ear(self.started.at)
            tasks = [asyncio.create_task(self._speak(self.started.at)), asyncio.create_task(self._write())]
            await self._listen(ws, self._ear)
            self.close_code = ws.close_code
        except Refused as refused:
            await ws.close(code=1003 if refused.error.code is Fault.STREAM_BINARY else 1008)
            raise
        except asyncio.CancelledError:
            await self._goodbye(ws, tasks)
            raise
        except ConnectionError:
            self.close_code = 1006
        finally:
            await self._finish(ws, tasks)
        self._judge_close()

    def _judge_close(self) -> None:
        if self.close_code not in _FINE_CODES and not self._broken_by_us:
            raise Refused(Fault.STREAM_CLOSED, f"the server ended the WebSocket with {self.close_code}")

    async def _goodbye(self, ws: aiohttp.ClientWebSocketResponse, tasks: list[asyncio.Task[None]]) -> None:
        await _end(tasks)
        with contextlib.suppress(ConnectionError):
            await ws.send_str(self._writer.stop())
        await ws.close()

    async def _finish(self, ws: aiohttp.ClientWebSocketResponse, tasks: list[asyncio.Task[None]]) -> None:
        await _end(tasks)
        if self._mark_timer:
            self._mark_timer.cancel()
        if self._ear:
            self._ear.advance(time.monotonic())
        if not ws.closed:
            await ws.close()
        self.ended.come()

    async def _speak(self, started: float) -> None:
        lengths = cycle(self.frame_samples)
        length = next(lengths)
        with contextlib.suppress(ConnectionError):
            while True:
                due = max(started + len(self._said) / RATE, self._stalled_until)
                wait = due - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
                    continue
                await self._send_frame(self._mouth.next(length))
                length = next(lengths)

    async def _send_frame(self, frame: bytes) -> None:
        assert self._socket is not None
        milliseconds = len(self._said) * 1000 // RATE
        self._said += frame
        if self._skip:
            self._skip -= 1
            return
        self.sent_frames += 1
        await self._socket.send_str(self._writer.media(frame, milliseconds))

    async def _write(self) -> None:
        """Digits and marks: numbered when they leave, so that numbers and order agree."""
        assert self._socket is not None
        with contextlib.suppress(ConnectionError):
            while True:
                text = await self._outbox.get()
                await self._socket.send_str(text())

    async def _listen(self, ws: aiohttp.ClientWebSocketResponse, ear: Ear) -> None:
        while True:
            await self._reading.wait()
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self._take(ear, messages.read(message.data, self.sid))
            elif message.type is aiohttp.WSMsgType.BINARY:
                raise Refused(Fault.STREAM_BINARY, "the server sent a binary message")
            else:
                return

    def _take(self, ear: Ear, message: messages.FromServer) -> None:
        now = time.monotonic()
        match message:
            case messages.Media(payload):
                self.received_frames += 1
                self.received_bytes += len(payload)
                if ear.buffered(now) + len(payload) > BUFFER_LIMIT:
                    raise Refused(Fault.STREAM_FULL, "more than ten minutes of audio wait to be played")
                ear.receive(now, payload)
                if not self.first_sound.has_come() and payload.strip(_ALL_SILENCE):
                    self.first_sound.come()
            case messages.Mark(name):
                self.received_marks += 1
                ear.mark(now, name)
            case messages.Clear():
                self.received_clears += 1
                ear.clear(now)
        self._return_marks()

    def _return_marks(self) -> None:
        """Send the marks that playback has reached, and come back when it will reach the next."""
        assert self._ear is not None
        self._ear.advance(time.monotonic())
        while self._ear.reached:
            name = self._ear.reached.popleft()
            self._outbox.put_nowait(lambda name=name: self._writer.mark(name))  # type: ignore[misc]
        if self._mark_timer:
            self._mark_timer.cancel()
            self._mark_timer = None
        due = self._ear.next_mark_at()
        if due is not None:
            wait = max(0.0, due - time.monotonic())
            self._mark_timer = asyncio.get_running_loop().call_later(wait, self._return_marks)

    # What the caller does -----------------------------------------------------------------------------------

    def press(self, digit: str) -> None:
        self._outbox.put_nowait(lambda: self._writer.dtmf(digit))

    # What goes wrong ----------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Break the connection off: a TCP reset, no WebSocket close."""
        self._broken_by_us = True
        transport = self._transport()
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def stall(self, seconds: float) -> None:
        """Send no audio for so long, then at once all that was said meanwhile."""
        self._stalled_until = time.monotonic() + seconds

    def skip(self, frames: int) -> None:
        """Lose the next frames; those after keep their timestamps."""
        self._skip += frames

    def stop_reading(self) -> None:
        """Leave what the server sends in the socket, so that it backs up there."""
        self._reading.clear()
        self._transport().pause_reading()

    def resume_reading(self) -> None:
        self._transport().resume_reading()
        self._reading.set()

    async def send_raw(self, message: str | bytes) -> None:
        """Send any text or binary message."""
        assert self._socket is not None
        if isinstance(message, str):
            await self._socket.send_str(message)
        else:
            await self._socket.send_bytes(message)

    async def close(self, code: int = 1000) -> None:
        """Close the socket properly, but without `stop`."""
        assert self._socket is not None
        self._broken_by_us = True
        await self._socket.close(code=code)

    def _transport(self) -> asyncio.Transport:
        # aiohttp shows no public way from a WebSocket to its transport.
        assert self._socket is not None
        connection = self._socket._response.connection
        if connection is None or connection.transport is None:
            raise ConnectionError("the media socket is closed already")
        return connection.transport


async def _end(tasks: list[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
