"""One media stream of a call: its socket, its codec and its bridge. A call has one at a time, and may have several."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from connector.call.dependencies import CLOSE_NORMAL, CallDependencies
from connector.call.media.bridge import Bridge
from connector.call.ports import CarrierSocket
from connector.call.session.digits import DigitRelay
from connector.call.session.stream_reader import StreamReader
from connector.carriers.codec import Codec
from connector.carriers.events import FormatRefused, StreamStarted
from connector.model import CallRequest


class MediaStream:
    """The callbacks are set before `read`."""

    on_started: Callable[[StreamStarted], None]
    on_refused: Callable[[FormatRefused], None]
    on_over: Callable[..., None]

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
        """Why the call goes on without it."""
        self.is_closed = False

    @property
    def over(self) -> asyncio.Event:
        """Nothing comes any more."""
        return self._stream.over

    async def read(self) -> None:
        """Until the socket is over."""
        await self._stream.read(self._socket)

    async def send(self) -> None:
        """Send what the bridge has for the phone, until the line is let go."""
        self._sending = asyncio.current_task()
        await self._bridge.outbox.send_to(self._socket)

    def stop(self) -> None:
        """The call ends: what still comes is not looked at."""
        self._stream.stop()

    def let_go(self, why: str) -> None:
        """The call goes on without this line: nothing is heard from it or sent to it any more."""
        self.let_go_for = why
        self._bridge.close()
        self._bridge.collect_drops()
        self._stream.stop()
        if self._sending is not None:
            self._sending.cancel()

    async def release(self, grace: float) -> None:
        """Close the socket, unless the carrier does so within `grace` seconds."""
        try:
            await asyncio.wait_for(self.over.wait(), grace)
        except TimeoutError:
            await self.close()

    async def close(self) -> None:
        """Once; a line that is let go has nobody else to close its socket."""
        if not self.is_closed:
            self.is_closed = True
            await self._socket.close(CLOSE_NORMAL, self.let_go_for)
