"""Passes the digits that the caller presses to the room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from connector.audio import dtmf
from connector.errors import ConnectorError
from connector.metrics import Metrics

log = structlog.get_logger()

MAX_WAITING = 64


class DigitRelay:
    """Publishes digits one after the other, in the order in which they were pressed."""

    def __init__(self, send: Callable[[int, str], Awaitable[None]], metrics: Metrics) -> None:
        """`send` publishes a digit and its code in the room. It may raise ConnectorError."""
        self._send = send
        self._metrics = metrics
        self._waiting: asyncio.Queue[str] = asyncio.Queue(MAX_WAITING)

    def put(self, digit: str) -> None:
        """Queue a digit without blocking. If the queue is full, the digit is dropped and counted as refused."""
        try:
            self._waiting.put_nowait(digit)
        except asyncio.QueueFull:
            self._metrics.refused.labels("dtmf", "too_many").inc()

    async def run(self) -> None:
        """Publish queued digits until cancelled."""
        while True:
            digit = await self._waiting.get()
            try:
                await self._send(dtmf.event_code(digit), digit)
                self._metrics.dtmf.labels("from_carrier").inc()
            except ConnectorError as error:
                log.warning("a digit did not reach the room", error=error.message)
