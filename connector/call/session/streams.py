"""The media streams of one call, one after the other: attached to the call, released, and the wait for the next one."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from connector.call.dependencies import CLOSE_NORMAL, CallDependencies
from connector.call.media.digits import DigitRelay
from connector.call.media.media_stream import MediaStream
from connector.call.ports import CarrierSocket
from connector.call.record.call_recorder import CallRecorder
from connector.call.session.lifetime import Lifetime
from connector.call.session.presence import Presence
from connector.call.session.wait import Stage, Wait
from connector.carriers.codec import Codec
from connector.carriers.events import FormatRefused, StreamStarted

log = structlog.get_logger()


class Streams:
    """A call has at most one current stream. The callbacks must be set before `carry`; each gets the stream, which may
    not be the current one any more."""

    on_started: Callable[[MediaStream, StreamStarted], None]
    on_refused: Callable[[MediaStream, FormatRefused], None]
    on_over: Callable[..., None]
    """Gets the arguments of `Lifetime.end` after the stream."""

    def __init__(
        self,
        life: Lifetime,
        parts: CallDependencies,
        recorder: CallRecorder,
        presence: Presence,
        codec: Codec,
        digits: DigitRelay,
        wait: Wait,
    ) -> None:
        """`codec`: for the first stream; the presence has it, too."""
        self._life = life
        self._parts = parts
        self._request = recorder.request
        self._presence = presence
        self.codec = codec
        self._digits = digits
        self.wait = wait
        """The wait for the next stream, or for the current one while it is being claimed."""
        self.current: MediaStream | None = None
        self.socket: CarrierSocket | None = None
        """The last media socket, while it may still be open."""
        self._is_first = True

    @property
    def number(self) -> int:
        """Number of the current or latest stream; before the first one has started, 1."""
        is_next = self.wait.stage in (Stage.SERVED, Stage.SHARED) and self.wait.stream > 1
        return self.wait.stream - 1 if is_next else self.wait.stream

    @property
    def silent_for(self) -> float | None:
        """Seconds since the current stream's last message; None if there is no stream."""
        return self.current.silent_for if self.current is not None else None

    async def carry(self, socket: CarrierSocket) -> None:
        """See `CallSession.carry`."""
        if (end := self._life.ended) is not None:
            # The call ended during the handshake: the supervisor does not know this socket.
            await socket.close(end.close_code, end.reason.value)
            await self._life.finished.wait()
            return
        if self.wait.stage is not Stage.OURS:
            # The carrier has ended this stream during the handshake, and opens the next one.
            await socket.close(CLOSE_NORMAL, "another stream is expected")
            return
        line = self._attach(socket)
        log.info("stream opened")
        await line.read()
        if self.current is line:
            await self._life.finished.wait()
            return
        await line.close()
        if self.socket is socket:
            self.socket = None

    def _attach(self, socket: CarrierSocket) -> MediaStream:
        if not self._is_first:
            self.codec = self._parts.new_codec(self._request.provider)
            self._presence.attach(self.codec)
        self._is_first = False
        line = MediaStream(self._request, self._parts, self.codec, self._presence.bridge, self._digits, socket)
        line.on_started = lambda event: self.on_started(line, event)
        line.on_refused = lambda event: self.on_refused(line, event)
        line.on_over = lambda *end: self.on_over(line, *end)
        self.current, self.socket = line, socket
        self._life.begin("send", line.send())
        return line

    def detach(self, status: str, grace: float, close_code: int = CLOSE_NORMAL) -> None:
        """Release the stream; the call goes on and waits for a claim of the next one. The carrier has `grace` seconds
        to end the old one. `status` is the participant's `connector.callStatus` in the meantime."""
        line, self.current = self.current, None
        if line is not None:
            line.let_go(status, close_code)
            self._life.begin("release", line.release(grace))
            self._life.begin("tell the room", self._presence.is_away(status))
