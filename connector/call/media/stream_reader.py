"""Reads the carrier's media stream from its first to its last message, and passes each event to its handler."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

import structlog

from connector.call.dependencies import CallDependencies
from connector.call.media.bridge import Bridge
from connector.call.media.digits import DigitRelay
from connector.call.media.liveness import Liveness
from connector.call.ports import CarrierSocket
from connector.carriers.codec import Codec
from connector.carriers.events import (
    AudioReceived,
    AudioRejected,
    CarrierComplained,
    DtmfReceived,
    Event,
    FormatRefused,
    MarkReached,
    OwnAudio,
    StreamStarted,
    StreamStopped,
)
from connector.errors import CarrierProtocolError
from connector.model.call import CallRequest
from connector.model.end_reason import EndReason

log = structlog.get_logger()


_COMES_BACK = frozenset({1001, 1011, 1012, 1013, 1014})
"""Close codes of a peer, or of a proxy in between, that stops or fails: the stream is broken, not finished."""


class OnOver(Protocol):
    """Gets the reason for which a stream is over, and the code with which its socket is to be closed."""

    def __call__(self, reason: EndReason, detail: str = "", close_code: int | None = None) -> None: ...


class StreamReader:
    """Reads one media socket. Audio goes to the bridge; `on_over` is called when the stream ends."""

    def __init__(
        self,
        request: CallRequest,
        parts: CallDependencies,
        codec: Codec,
        bridge: Bridge,
        digits: DigitRelay,
        on_started: Callable[[StreamStarted], None],
        on_refused: Callable[[FormatRefused], None],
        on_over: OnOver,
    ) -> None:
        self._request = request
        self._metrics = parts.metrics
        self._codec = codec
        self._bridge = bridge
        self._digits = digits
        self._on_started = on_started
        self._on_refused = on_refused
        self._on_over = on_over
        self._over = False
        self.is_broken = False
        """The peer closed with a code that says that it fails or stops, not that the stream is finished."""
        self.over = asyncio.Event()
        """Set when no more messages come from the carrier."""
        self._loop = asyncio.get_running_loop()
        self._liveness = Liveness(parts.limits.media_timeout, on_over)

    def stop(self) -> None:
        """Ignore all further messages except marks and the stop of the stream. Called when the call ends."""
        self._over = True
        self._liveness.stop()

    async def read(self, socket: CarrierSocket) -> None:
        """Read messages until the socket has ended. `on_over` has then been called."""
        if not self._over:
            self._liveness.begin(socket)
        try:
            async for text in socket.messages():
                self._liveness.last_message = self._loop.time()
                event = self._codec.receive(text)
                if not self._over:
                    self._receive(event)
                elif isinstance(event, MarkReached):
                    self._bridge.mark_reached(event.name)
                elif isinstance(event, StreamStopped):
                    break
            self.is_broken = socket.close_code in _COMES_BACK
            detail = f"closed with {socket.close_code}" if self.is_broken else ""
            self._on_over(EndReason.CARRIER_CLOSED if socket.ended_cleanly else EndReason.CARRIER_LOST, detail)
        except CarrierProtocolError as error:
            self._on_over(EndReason.PROTOCOL_ERROR, error.message, error.close_code)
        except asyncio.CancelledError:
            self._on_over(EndReason.CARRIER_LOST, "the connection's handler was cancelled")
            raise
        except Exception:
            log.exception("a message from the carrier could not be handled")
            self._on_over(EndReason.INTERNAL_ERROR)
        finally:
            self._liveness.stop()
            self.over.set()

    def _receive(self, event: Event) -> None:
        match event:
            case AudioReceived():
                self._bridge.from_carrier(event)
            case MarkReached():
                self._bridge.mark_reached(event.name)
            case DtmfReceived():
                self._on_digit(event.digit)
            case AudioRejected():
                self._bridge.rejected(event.why)
            case OwnAudio():
                pass
            case StreamStarted():
                self._bridge.start(self._codec.format, self._codec.reply_format)
                self._liveness.has_started = True
                self._on_started(event)
            case FormatRefused():
                self._on_refused(event)
            case StreamStopped():
                self._on_over(EndReason.CARRIER_HANGUP)
            case CarrierComplained():
                log.warning("the carrier rejected a message of the connector", code=event.code, text=event.text)
            case _:
                log.debug("message ignored", why=event.why)

    @property
    def silent_for(self) -> float:
        """Seconds since the last message."""
        return self._loop.time() - self._liveness.last_message

    def _on_digit(self, digit: str) -> None:
        if self._request.dtmf:
            self._digits.put(digit)
        else:
            self._metrics.refused.labels("dtmf", "off").inc()
