"""How long a burst of a tone is on its way, in either direction."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from carrier_simulator import MediaStream, OutboundCall
from tests.integration.harness import RATE, Guest, strength, tone, until

_WINDOW = 160
_LEVEL = 2500
_BURST = 0.12
"""Seconds of the tone whose arrival is timed: long enough to be found, too short to fill a buffer."""
_FREQUENCIES = (900, 1100, 1300, 1500, 1700, 1900, 2100, 2300)
_ENOUGH = 4
_PATIENCE = 4.0
PATIENCE = 9.0
"""Seconds for a tone to be heard as it was said: a busy machine loses frames, so that a test waits for a stretch
without a loss in a tone that is longer."""


def loudness(pcm: NDArray[np.int16], frequency: float) -> NDArray[np.float64]:
    """Amplitude of one frequency in each successive 20 ms."""
    blocks = pcm[: len(pcm) // _WINDOW * _WINDOW].reshape(-1, _WINDOW).astype(np.float64)
    phase = np.exp(-2j * np.pi * frequency * np.arange(_WINDOW) / RATE)
    return np.asarray(2 * np.abs(blocks @ phase) / _WINDOW)


def onset(pcm: NDArray[np.int16], frequency: float, after: int = 0) -> int | None:
    """The sample, to 20 ms, at which the tone begins; None when it has not."""
    loud = np.flatnonzero(loudness(pcm[after:], frequency) > _LEVEL)
    return after + int(loud[0]) * _WINDOW if len(loud) else None


def purity(pcm: NDArray[np.int16], frequency: float) -> float:
    """The share of the energy that a steady tone of this frequency explains: 1 for nothing else, no gap, no click."""
    energy = float(np.mean(pcm.astype(np.float64) ** 2)) if len(pcm) else 0.0
    return strength(pcm, frequency) ** 2 / 2 / energy if energy else 0.0


async def delay_to_caller(guest: Guest, stream: MediaStream) -> float:
    """Seconds from the guest's saying a burst to the caller's hearing it."""
    assert stream.started.at is not None

    async def once(frequency: float) -> float:
        said_at = time.monotonic()
        after = int((said_at - stream.started.at) * RATE)  # type: ignore[operator]
        guest.start_saying(tone(frequency, _BURST))
        await until(lambda: onset(stream.heard, frequency, after) is not None, _PATIENCE)
        begins = onset(stream.heard, frequency, after)
        assert begins is not None
        return stream.started.at + begins / RATE - said_at  # type: ignore[operator]

    return await _least(once)


async def delay_to_guest(call: OutboundCall, guest: Guest) -> float:
    """Seconds from the caller's saying a burst to the guest's hearing it."""

    async def once(frequency: float) -> float:
        assert call.stream.started.at is not None
        said_at = call.stream.started.at + call.say(tone(frequency, _BURST)) / RATE
        await guest.until(lambda: strength(guest.heard["caller"][-1], frequency) > _LEVEL, _PATIENCE)
        return time.monotonic() - said_at

    return await _least(once)


async def _least(measure: Callable[[float], Awaitable[float]]) -> float:
    """Of several, since a busy machine delays some and drops some; a backlog delays all of them."""
    delays: list[float] = []
    for frequency in _FREQUENCIES:
        with suppress(TimeoutError):
            delays.append(await measure(frequency))
        if len(delays) == _ENOUGH:
            break
    assert delays, "none of the bursts was heard"
    return min(delays)
