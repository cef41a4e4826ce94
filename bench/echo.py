"""The echo agent: one participant per room that echoes immediately. Controlled by lines; see `bench.worker`."""

from __future__ import annotations

import time

import numpy as np
from livekit import api, rtc
from numpy.typing import NDArray

from bench.tape import Tape
from bench.worker import Handler, run_worker
from connector.room.media import AudioTap, CallerSource, media_router

RATE = 8000


class Echo:
    """10 ms frames in and out, without a queue: the smallest delay that an agent can add."""

    def __init__(self) -> None:
        self._room = rtc.Room()
        self._room.on("track_subscribed", self._on_track)
        self._source = CallerSource(RATE)
        self._taps: list[AudioTap] = []
        self.tape = Tape()

    async def join(self, url: str, token: str) -> None:
        await self._room.connect(url, token)
        track = rtc.LocalAudioTrack.create_audio_track("echo", self._source.rtc_source)
        await self._room.local_participant.publish_track(
            track, rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        )

    def _on_track(self, track: rtc.Track, *_: object) -> None:
        if track.kind == rtc.TrackKind.KIND_AUDIO:
            self._taps.append(AudioTap(track, self._say, RATE, frame_ms=10))

    def _say(self, pcm: NDArray[np.int16], _: float) -> None:
        self.tape.add(time.monotonic(), pcm)
        self._source.capture(pcm.tobytes())

    async def leave(self) -> None:
        for tap in self._taps:
            tap.close()
        await self._source.close()
        await self._room.disconnect()


async def start() -> dict[str, Handler]:
    media_router()
    echoes: dict[str, Echo] = {}

    async def join(url: str, key: str, secret: str, rooms: list[str]) -> None:
        for room in rooms:
            echo = Echo()
            token = api.AccessToken(key, secret).with_identity("echo")
            await echo.join(url, token.with_grants(api.VideoGrants(room_join=True, room=room)).to_jwt())
            echoes[room] = echo

    async def when(room: str, bursts: list[tuple[float, float]], longest: float) -> list[float | None]:
        """Arrival time of each burst (time at which it was said, frequency) at the agent of this room."""
        return [echoes[room].tape.when(at, frequency, longest) for at, frequency in bursts]

    async def leave() -> None:
        while echoes:
            await echoes.popitem()[1].leave()

    return {"join": join, "when": when, "leave": leave, "close": leave}


if __name__ == "__main__":
    run_worker(start)
