"""The bare SDK loop, the baseline for the connector's CPU time: publishes 20 ms frames with the SDK's `AudioSource`,
reads 20 ms frames with its `AudioStream`, on asyncio's default loop, and does nothing else."""

from __future__ import annotations

import asyncio
from itertools import cycle

from livekit import api, rtc

from bench.sound import speech_like
from bench.worker import Handler, run_worker

RATE = 8000
FRAME = RATE // 50


class Bare:
    def __init__(self, seed: int) -> None:
        self._room = rtc.Room()
        self._room.on("track_subscribed", self._on_track)
        self._source = rtc.AudioSource(RATE, 1)
        self._sound = speech_like(10, seed)
        self._tasks: list[asyncio.Task[None]] = []
        self._streams: list[rtc.AudioStream] = []
        self.read = 0

    async def join(self, url: str, token: str) -> None:
        await self._room.connect(url, token)
        track = rtc.LocalAudioTrack.create_audio_track("bare", self._source)
        await self._room.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        )
        self._tasks.append(asyncio.create_task(self._speak()))

    async def _speak(self) -> None:
        """The source's queue sets the pace; this is the cheapest way to publish."""
        pieces = [self._sound[i : i + FRAME].tobytes() for i in range(0, len(self._sound), FRAME)]
        for piece in cycle(pieces):
            await self._source.capture_frame(rtc.AudioFrame(piece, RATE, 1, FRAME))

    def _on_track(self, track: rtc.Track, *_: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._tasks.append(asyncio.create_task(self._listen(track)))

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=20)
        self._streams.append(stream)
        async for _ in stream:
            self.read += 1

    async def leave(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for stream in self._streams:
            await stream.aclose()
        await self._room.disconnect()


async def start() -> dict[str, Handler]:
    loops: list[Bare] = []

    async def begin(url: str, key: str, secret: str, rooms: list[str]) -> None:
        for seed, room in enumerate(rooms):
            bare = Bare(seed)
            token = api.AccessToken(key, secret).with_identity("bare")
            await bare.join(url, token.with_grants(api.VideoGrants(room_join=True, room=room)).to_jwt())
            loops.append(bare)

    async def frames() -> int:
        return sum(bare.read for bare in loops)

    async def end() -> None:
        while loops:
            await loops.pop().leave()

    return {"begin": begin, "frames": frames, "end": end, "close": end}


if __name__ == "__main__":
    run_worker(start, loop="asyncio")
