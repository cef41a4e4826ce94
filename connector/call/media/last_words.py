"""The last words: what the room has said before a call ends is played to the phone before it is hung up."""

from __future__ import annotations

import asyncio

import structlog

from connector.call.media.bridge import Bridge
from connector.model import EndReason

log = structlog.get_logger()

MOST = 1.0
"""Seconds that an end may wait for its last words. A carrier returns the mark behind them in a fraction of that; one
that returns none, or takes nothing, costs so much at most."""
_NOBODY_LISTENS = frozenset(
    {
        EndReason.CARRIER_HANGUP,
        EndReason.CARRIER_CLOSED,
        EndReason.CARRIER_LOST,
        EndReason.MEDIA_TIMEOUT,
        EndReason.PROTOCOL_ERROR,
        EndReason.CALL_MISMATCH,
        EndReason.TRANSFERRED,
        EndReason.INTERRUPTED,
        EndReason.INTERNAL_ERROR,
    }
)
"""Ends at which the phone, or its stream, is gone already, or cannot be trusted."""


async def play_out(reason: EndReason, bridge: Bridge, stream_over: asyncio.Event) -> None:
    """Wait until the carrier has played what it was sent, in bounded time: until the mark behind it is back, as much
    time has passed as it takes by our reckoning, or the stream is over. At once where nothing can be left to play."""
    if reason in _NOBODY_LISTENS or stream_over.is_set():
        return
    played = asyncio.Event()
    seconds = bridge.last_words(played.set)
    if seconds <= 0:
        return
    waits = [asyncio.ensure_future(event.wait()) for event in (played, stream_over)]
    try:
        await asyncio.wait(waits, timeout=min(seconds, MOST), return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
        await asyncio.gather(*waits, return_exceptions=True)
