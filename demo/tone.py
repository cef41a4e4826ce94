"""A participant of a room who plays a tone without a pause: somebody who is heard at any moment."""

from __future__ import annotations

import asyncio

import numpy as np
from livekit import rtc

_RATE = 48_000
_TONE = 440
_FRAMES = 50
"""Frames of 20 ms in a second."""


class Tone:
    def __init__(self) -> None:
        self._source = rtc.AudioSource(_RATE, 1)
        self._room = rtc.Room()
        self._playing: asyncio.Task[None] | None = None

    async def start(self, url: str, token: str) -> None:
        await self._room.connect(url, token)
        track = rtc.LocalAudioTrack.create_audio_track("tone", self._source)
        await self._room.local_participant.publish_track(track, rtc.TrackPublishOptions(dtx=False))
        self._playing = asyncio.create_task(self._play())

    async def _play(self) -> None:
        second = (8000 * np.sin(2 * np.pi * _TONE * np.arange(_RATE) / _RATE)).astype(np.int16)
        frames = [rtc.AudioFrame(piece.tobytes(), _RATE, 1, len(piece)) for piece in second.reshape(_FRAMES, -1)]
        while True:
            for frame in frames:
                await self._source.capture_frame(frame)

    async def stop(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
        await self._room.disconnect()
        await self._source.aclose()
