"""The connector as `connector serve` starts it, with one thing changed: for the baseline, and for a profile.

`python -m bench.serve default-queue` sends the caller's voice through the SDK's own source with its default
queue of 1000 ms, one awaited `capture_frame` for each 20 ms. `python -m bench.serve as-is` changes nothing.
With `BENCH_PROFILE=file` the event loop's thread is profiled (cProfile) until the process ends.
"""

from __future__ import annotations

import asyncio
import cProfile
import os
import sys

from livekit import rtc

from connector.cli import main
from connector.room import gateway

RATE = 8000
FRAME_BYTES = RATE // 50 * 2


class QueuedSource:
    """Takes the place of `connector.room.media.CallerSource`."""

    def __init__(self) -> None:
        self._source = rtc.AudioSource(RATE, 1)
        self._waiting: asyncio.Queue[bytes] = asyncio.Queue()
        self._rest = b""
        self._task = asyncio.create_task(self._send())
        self.dropped = 0

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

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._source.aclose()


def run(source: str) -> None:
    if source == "default-queue":
        vars(gateway)["CallerSource"] = QueuedSource
    elif source != "as-is":
        raise SystemExit(f"no such source: {source}")
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
