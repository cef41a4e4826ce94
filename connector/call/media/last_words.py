"""Before a call is hung up, waits until the room's last words have been played to the phone."""

from __future__ import annotations

import asyncio

import structlog

from connector.call.media.bridge import Bridge
from connector.model.end_reason import EndReason

log = structlog.get_logger()

MOST = 1.0
"""Maximum seconds that the end of a call waits for the last words. Usually the carrier returns the mark behind them in
a fraction of that; if it returns none or accepts no audio, the wait costs this time."""
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
"""End reasons without last words: the phone or its stream is already gone, or the stream cannot be trusted."""


async def play_out(reason: EndReason, bridge: Bridge, stream_over: asyncio.Event) -> None:
    """Wait until the carrier has played all audio. The wait ends when the mark behind the audio returns, when the
    estimated playing time or `MOST` seconds have passed, or when the stream is over. Returns at once if no audio can be
    left to play."""
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
