"""One media stream: the carrier's end of the WebSocket, in real time, and ways to break it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import cycle

import aiohttp
import numpy as np
from numpy.typing import NDArray

from carrier_simulator.faults import CarrierError, Fault, Refused
from carrier_simulator.moments import Moment
from carrier_simulator.phone import Ear, Mouth
from carrier_simulator.terms import FRAME_SAMPLES
from carrier_simulator.web import Web
from carrier_simulator.wire import Clear, Digits, FromServer, Mark, Media, Wire

_FINE_CODES = frozenset({1000, 1001, 1005})
_CLEAN_CODES = frozenset({1000, 1005})
"""Close codes after which no carrier opens the socket again."""
_ABNORMAL = 1006
"""No close frame was received: a reset, an end of the connection, or silence."""


class MediaStream:
    """`said` and `heard` share one clock: sample 0 is `started`.

    A frame's first sample stands in `said` at the moment the frame leaves, and in `heard` at the moment
    playback of an arriving frame begins: their distance is what the server side takes.
    """

    def __init__(self, web: Web, mouth: Mouth, wire: Wire, url: str, errors: list[CarrierError]) -> None:
        """`errors` gets the carrier's error reports while the stream goes on."""
        self.sid = wire.stream_id
        self.url = url
        self.settled = Moment("stream open or refused")
        self.started = Moment("stream started")
        self.first_sound = Moment("first sound heard")
        self.ended = Moment("stream ended")
        self.close_code: int | None = None
        self.lost = False
        """The handshake failed, or the connection ended without a clean close: the carrier may open it again."""
        self.sent_frames = 0
        self.sent_echoes = 0
        """Frames of the played audio, sent back as a separate track."""
        self.received_frames = 0
        self.received_bytes = 0
        self.received_marks = 0
        self.received_clears = 0
        self.received_digits = ""
        self.received_pings = 0
        self.answers_pings = True
        """False: pings are lost, as behind a proxy that does not forward them."""
        self.frame_samples: Iterable[int] = (FRAME_SAMPLES,)
        """Lengths of the frames to send, over and over; set before the stream starts."""
        self.disorder: Sequence[int] = (0,)
        """Where in each group of so many frames a place is taken by which: (1, 0) swaps every two."""
        self._web = web
        self._mouth = mouth
        self._wire = wire
        self._errors = errors
        self._said = bytearray()
        self._echoed = 0
        self._group: list[str] = []
        self._skip = 0
        self._stalled_until = 0.0
        self._reading = asyncio.Event()
        self._reading.set()
        self._outbox: asyncio.Queue[Callable[[], Sequence[str]]] = asyncio.Queue()
        self._mark_timer: asyncio.TimerHandle | None = None
        self._broken_by_us = False
        self._closed_with: int | None = None
        """The code of our own close."""
        self._silent = False
        self._given_up = asyncio.Event()
        """The carrier has noticed that nothing arrives any more."""
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._ear: Ear | None = None

    # What happened ------------------------------------------------------------------------------------------

    @property
    def rate(self) -> int:
        """Samples a second of `said`."""
        return self._wire.speaks.rate

    @property
    def heard_rate(self) -> int:
        """Samples a second of `heard`."""
        return self._wire.plays.rate

    @property
    def said(self) -> NDArray[np.int16]:
        """What the caller said since the stream began, int16."""
        return self._wire.speaks.decode(bytes(self._said))

    @property
    def heard(self) -> NDArray[np.int16]:
        """What the caller heard since the stream began, int16."""
        if self._ear is None:
            return np.zeros(0, np.int16)
        if not self.ended.has_come():
            self._ear.advance(time.monotonic())
        return self._wire.plays.decode(bytes(self._ear.heard))

    @property
    def position(self) -> int:
        """Samples said so far: where in `said` the next frame begins."""
        return len(self._said) // self._wire.speaks.width

    @property
    def buffered(self) -> float:
        """Seconds of audio that wait to be played to the caller."""
        if self._ear is None or self.ended.has_come():
            return 0.0
        return self._ear.buffered(time.monotonic()) / self.heard_rate

    # Its life -----------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Open, speak and listen until the server closes; cancelled, say that it is over and close.

        Raise Refused when the handshake fails or the server breaks the protocol.
        """
        try:
            await self._run()
        finally:
            self.ended.come()
            self.settled.come()

    async def _run(self) -> None:
        self._web.check_stream_url(self.url)
        self.lost = True
        self._socket = ws = await self._web.open_stream(self.url, autoping=False)
        self.lost = False
        tasks: list[asyncio.Task[None]] = []
        try:
            for text in self._wire.opening():
                await ws.send_str(text)
            self.started.come()
            self.settled.come()
            assert self.started.at is not None
            self._mouth.speak_as(self._wire.speaks)
            self._ear = Ear(self.started.at, self._wire.plays)
            tasks = [asyncio.create_task(self._speak(self.started.at)), asyncio.create_task(self._write())]
            self.close_code = await self._until_over(ws, self._ear)
        except Refused as refused:
            await ws.close(code=1003 if refused.error.code is Fault.STREAM_BINARY else 1008)
            raise
        except asyncio.CancelledError:
            await self._goodbye(ws, tasks)
            raise
        except ConnectionError:
            self.close_code = _ABNORMAL
        finally:
            await self._finish(ws, tasks)
        self._judge_close()

    async def _until_over(self, ws: aiohttp.ClientWebSocketResponse, ear: Ear) -> int:
        """Listen until the connection ends, or the carrier gives a silent one up; return the close code."""
        listening = asyncio.create_task(self._listen(ws, ear))
        given_up = asyncio.create_task(self._given_up.wait())
        try:
            await asyncio.wait({listening, given_up}, return_when=asyncio.FIRST_COMPLETED)
            return listening.result() if listening.done() else _ABNORMAL
        finally:
            listening.cancel()
            given_up.cancel()
            await asyncio.gather(listening, given_up, return_exceptions=True)

    def _judge_close(self) -> None:
        self.lost = self.close_code not in _CLEAN_CODES
        if self.close_code not in _FINE_CODES and not self._broken_by_us:
            raise Refused(Fault.STREAM_CLOSED, f"the server ended the WebSocket with {self.close_code}")

    async def _goodbye(self, ws: aiohttp.ClientWebSocketResponse, tasks: list[asyncio.Task[None]]) -> None:
        await _end(tasks)
        if self._silent:
            return
        with contextlib.suppress(ConnectionError):
            for text in self._wire.closing():
                await ws.send_str(text)
        await ws.close()

    async def _finish(self, ws: aiohttp.ClientWebSocketResponse, tasks: list[asyncio.Task[None]]) -> None:
        await _end(tasks)
        if self._mark_timer:
            self._mark_timer.cancel()
        if self._ear:
            self._ear.advance(time.monotonic())
        if not ws.closed and not self._silent:
            await ws.close()

    async def _speak(self, started: float) -> None:
        lengths = cycle(self.frame_samples)
        length = next(lengths)
        with contextlib.suppress(ConnectionError):
            while True:
                due = max(started + self.position / self.rate, self._stalled_until)
                wait = due - time.monotonic()
                if wait > 0:
                    await asyncio.sleep(wait)
                    continue
                frame = self._mouth.next(length)
                if self._silent:
                    self._said += frame  # The caller speaks on, and nobody hears it.
                else:
                    await self._send_frame(frame)
                length = next(lengths)

    async def _send_frame(self, frame: bytes) -> None:
        assert self._socket is not None
        milliseconds = self.position * 1000 // self.rate
        self._said += frame
        if self._skip:
            self._skip -= 1
            return
        self.sent_frames += 1
        self._group.append(self._wire.media(frame, milliseconds))
        if len(self._group) >= len(self.disorder):
            group, self._group = self._group, []
            for place in self.disorder:
                await self._socket.send_str(group[place])
        if self._wire.echoes:
            await self._echo()

    async def _echo(self) -> None:
        """What has been played to the caller since the last time, in frames of 20 ms."""
        assert self._socket is not None
        assert self._ear is not None
        self._ear.advance(time.monotonic())
        plays = self._wire.plays
        size = plays.samples(0.02) * plays.width
        while len(self._ear.heard) - self._echoed >= size:
            frame = bytes(self._ear.heard[self._echoed : self._echoed + size])
            milliseconds = self._echoed // plays.width * 1000 // plays.rate
            self._echoed += size
            self.sent_echoes += 1
            await self._socket.send_str(self._wire.echo(frame, milliseconds))

    async def _write(self) -> None:
        """Digits and marks: numbered when they leave, so that numbers and order agree."""
        assert self._socket is not None
        with contextlib.suppress(ConnectionError):
            while True:
                texts = await self._outbox.get()
                for text in () if self._silent else texts():
                    await self._socket.send_str(text)

    async def _listen(self, ws: aiohttp.ClientWebSocketResponse, ear: Ear) -> int:
        """Return the code with which the connection ended."""
        while True:
            await self._reading.wait()
            message = await ws.receive()
            if message.type is aiohttp.WSMsgType.TEXT:
                self._receive(ear, message.data)
            elif message.type is aiohttp.WSMsgType.PING:
                self.received_pings += 1
                if self.answers_pings:
                    await ws.pong(message.data)
            elif message.type is aiohttp.WSMsgType.BINARY:
                raise Refused(Fault.STREAM_BINARY, "the server sent a binary message")
            elif message.type is aiohttp.WSMsgType.CLOSE:
                return message.data or 1005
            else:
                # `close_code` of aiohttp says 1000 also when the connection just ended, without a close frame.
                return self._closed_with or _ABNORMAL

    def _receive(self, ear: Ear, text: str) -> None:
        try:
            self._take(ear, self._wire.read(text))
        except Refused as refused:
            complaint = self._wire.complaint(refused.error)
            if complaint is None:
                raise
            self._errors.append(refused.error)
            self._outbox.put_nowait(lambda: (complaint,))

    def _take(self, ear: Ear, message: FromServer) -> None:
        now = time.monotonic()
        match message:
            case Media(payload):
                self.received_frames += 1
                self.received_bytes += len(payload)
                waits = ear.buffered(now) + len(payload) // ear.sound.width
                if waits > self._wire.buffer_seconds * ear.sound.rate:
                    raise Refused(Fault.STREAM_FULL, f"more than {self._wire.buffer_seconds:g} s of audio wait")
                ear.receive(now, payload)
                if not self.first_sound.has_come() and not ear.sound.is_silent(payload):
                    self.first_sound.come()
            case Mark(name):
                self.received_marks += 1
                ear.mark(now, name)
            case Clear():
                self.received_clears += 1
                dropped = ear.clear(now)
                self._return_marks()
                self._outbox.put_nowait(lambda: self._wire.cleared(dropped))
            case Digits(digits):
                self.received_digits += digits
        self._return_marks()

    def _return_marks(self) -> None:
        """Send the marks that playback has reached, and come back when it will reach the next."""
        assert self._ear is not None
        self._ear.advance(time.monotonic())
        while self._ear.reached:
            name = self._ear.reached.popleft()
            self._outbox.put_nowait(lambda name=name: (self._wire.mark(name),))  # type: ignore[misc]
        if self._mark_timer:
            self._mark_timer.cancel()
            self._mark_timer = None
        due = self._ear.next_mark_at()
        if due is not None:
            wait = max(0.0, due - time.monotonic())
            self._mark_timer = asyncio.get_running_loop().call_later(wait, self._return_marks)

    # What the caller does -----------------------------------------------------------------------------------

    def press(self, digit: str) -> None:
        self._outbox.put_nowait(lambda: (self._wire.dtmf(digit),))

    # What goes wrong ----------------------------------------------------------------------------------------

    def abort(self) -> None:
        """Break the connection off: a TCP reset (RST), no WebSocket close."""
        self._broken_by_us = True
        transport = self._transport()
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()

    def go_silent(self, notices_after: float | None = None) -> None:
        """From now on nothing arrives in either direction, and the connection stays open, without FIN or reset: a lost
        route, a power cut. After `notices_after` seconds the carrier gives the stream up (None: it never does), which
        the server is not told either: its end of the connection stays open as long as the simulator runs.
        """
        self._broken_by_us = self._silent = True
        self.stop_reading()
        if notices_after is not None:
            asyncio.get_running_loop().call_later(notices_after, self._given_up.set)

    def let_go(self) -> None:
        """Close a connection that a silent stream left open; called when the simulator stops."""
        if self._silent and self._socket is not None:
            self._socket._response.close()

    def stall(self, seconds: float) -> None:
        """Send no audio for so long, then at once all that was said meanwhile."""
        self._stalled_until = time.monotonic() + seconds

    def skip(self, frames: int) -> None:
        """Lose the next frames; those after keep their timestamps."""
        self._skip += frames

    def stop_reading(self) -> None:
        """Do not read the server's messages, so that the socket's buffers fill up."""
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
        """Close the socket with this code, but without `stop`. A carrier that opens lost sockets again does so after
        every code except 1000.
        """
        assert self._socket is not None
        self._broken_by_us = True
        self._closed_with = code
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
