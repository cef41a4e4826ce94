"""One media stream of a call: its socket, codec and bridge. A call may have several streams, one after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from connector.call.dependencies import CLOSE_NORMAL, CallDependencies
from connector.call.media.bridge import Bridge
from connector.call.media.digits import DigitRelay
from connector.call.media.stream_reader import OnOver, StreamReader
from connector.call.ports import CarrierSocket
from connector.carriers.codec import Codec
from connector.carriers.events import FormatRefused, StreamStarted
from connector.model.call import CallRequest


class MediaStream:
    """Runs one media stream. The callbacks must be set before `read`."""

    on_started: Callable[[StreamStarted], None]
    on_refused: Callable[[FormatRefused], None]
    on_over: OnOver

    def __init__(
        self,
        request: CallRequest,
        parts: CallDependencies,
        codec: Codec,
        bridge: Bridge,
        digits: DigitRelay,
        socket: CarrierSocket,
    ) -> None:
        self._socket = socket
        self._bridge = bridge
        self._stream = StreamReader(
            request,
            parts,
            codec,
            bridge,
            digits,
            lambda event: self.on_started(event),
            lambda event: self.on_refused(event),
            lambda *end: self.on_over(*end),
        )
        self._sending: asyncio.Task[None] | None = None
        self.let_go_for = ""
        """The reason why the call goes on without this stream; empty if it does not."""
        self._close_code = CLOSE_NORMAL
        self.is_closed = False

    @property
    def over(self) -> asyncio.Event:
        """Set when no more messages come from the carrier."""
        return self._stream.over

    @property
    def is_broken(self) -> bool:
        """See `StreamReader.is_broken`."""
        return self._stream.is_broken

    @property
    def silent_for(self) -> float:
        """Seconds since the last message."""
        return self._stream.silent_for

    async def read(self) -> None:
        """Read messages until the socket has ended."""
        await self._stream.read(self._socket)

    async def send(self) -> None:
        """Send the bridge's messages to the phone, until `let_go`."""
        self._sending = asyncio.current_task()
        await self._bridge.outbox.send_to(self._socket)

    def stop(self) -> None:
        """Ignore further messages, because the call ends."""
        self._stream.stop()

    def let_go(self, why: str, close_code: int = CLOSE_NORMAL) -> None:
        """Stop both directions of this stream, because the call goes on without it."""
        self.let_go_for, self._close_code = why, close_code
        self._bridge.close()
        self._bridge.collect_drops()
        self._stream.stop()
        if self._sending is not None:
            self._sending.cancel()

    async def release(self, grace: float) -> None:
        """Close the socket if the carrier has not done so after `grace` seconds."""
        try:
            await asyncio.wait_for(self.over.wait(), grace)
        except TimeoutError:
            await self.close()

    async def close(self) -> None:
        """Close the socket once. After `let_go` no other code closes it."""
        if not self.is_closed:
            self.is_closed = True
            await self._socket.close(self._close_code, self.let_go_for)
