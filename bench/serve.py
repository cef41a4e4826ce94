"""Runs `connector serve` with one part replaced for a baseline, or unchanged for a profile.

`default-queue` sends the caller's voice through the SDK's source with its default queue of 1000 ms, with one awaited
`capture_frame` for each 20 ms. `plain` does the same and drops nothing: audio that the carrier sends before the track
is published waits for it. `as-is` changes nothing.
With `BENCH_PROFILE=file` the event loop's thread is profiled (cProfile) until the process ends.
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from livekit import rtc

from connector.audio import g711
from connector.call.media.bridge import Bridge
from connector.call.media.from_carrier import CallerVoice, Later, Now
from connector.call.session import presence
from connector.carriers.codec import Codec
from connector.carriers.events import AudioReceived
from connector.cli import main
from connector.metrics import Metrics
from connector.room import microphone

RATE = 8000
FRAME_BYTES = RATE // 50 * 2


class QueuedSource:
    """Replaces `connector.room.media.CallerSource`."""

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self._source = rtc.AudioSource(rate, 1)
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._rest = b""
        self._task = asyncio.create_task(self._send())
        self.dropped = 0
        self.on_fault: Callable[[str], None] | None = None

    @property
    def rtc_source(self) -> rtc.AudioSource:
        return self._source

    def capture(self, pcm: bytes) -> None:
        data = self._rest + pcm
        whole = len(data) - len(data) % FRAME_BYTES
        for start in range(0, whole, FRAME_BYTES):
            self._waiting.put_nowait(data[start : start + FRAME_BYTES])
        self._rest = data[whole:]

    async def _send(self) -> None:
        while True:
            piece = await self._waiting.get()
            await self._source.capture_frame(rtc.AudioFrame(piece, RATE, 1, FRAME_BYTES // 2))

    def take_back(self) -> None:
        while not self._waiting.empty():
            self._waiting.get_nowait()
        self._rest, self.dropped, self.on_fault = b"", 0, None

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._source.aclose()


class PlainBridge(Bridge):
    """Replaces `connector.call.media.bridge.Bridge`: forwards all audio in order, however old."""

    def __init__(self, codec: Codec, room: CallerVoice, metrics: Metrics, now: Now, later: Later, *more: Any) -> None:
        super().__init__(codec, room, metrics, now, later, *more)
        self._room = room
        self._early: list[bytes] = []
        self._open = False

    def open_from_carrier(self, keep: float = 0.0) -> None:
        self._open = True

    def from_carrier(self, audio: AudioReceived) -> None:
        self._early.append(g711.ulaw_decode(audio.payload).tobytes())
        if self._open:
            for pcm in self._early:
                self._room.capture(pcm)
            self._early.clear()


def _exchange(module: ModuleType, name: str, replacement: object) -> None:
    """Replaces `name` in `module`. Exits if the name does not exist: the baseline would be the connector itself."""
    if name not in vars(module):
        raise SystemExit(f"{module.__name__} no longer has {name}: adapt this baseline")
    vars(module)[name] = replacement


def run(change: str) -> None:
    if change not in ("as-is", "default-queue", "plain"):
        raise SystemExit(f"no such change: {change}")
    if change != "as-is":
        _exchange(microphone, "CallerSource", QueuedSource)
    if change == "plain":
        _exchange(presence, "Bridge", PlainBridge)
    sys.argv = ["connector", "serve"]
    profile_to = os.environ.get("BENCH_PROFILE")
    if not profile_to:
        main()
        return
    profile = cProfile.Profile()
    profile.enable()
    try:
        main()
    finally:
        profile.disable()
        profile.dump_stats(profile_to)


if __name__ == "__main__":
    run(sys.argv[1])
