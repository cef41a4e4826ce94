"""The outside world against the real thing: livekit-server starts and restarts, the agent greets and echoes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Self

import jwt
import numpy as np
import pytest
from livekit import api, rtc
from numpy.typing import NDArray

from demo import script
from demo.compare import find_delay
from demo.echo_agent import EchoAgent
from demo.livekit_server import LiveKitServer

pytestmark = pytest.mark.integration

RATE = 8000
FRAME = 80


class Caller:
    """A caller made of the SDK alone: no connector, no carrier."""

    def __init__(self, livekit: LiveKitServer) -> None:
        self.digits: asyncio.Queue[str] = asyncio.Queue()
        self.hears = asyncio.Event()
        self._livekit = livekit
        self._heard: list[NDArray[np.int16]] = []
        self._room = rtc.Room()
        self._source = rtc.AudioSource(RATE, 1, queue_size_ms=0)
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        self._room.on("track_subscribed", self._on_track)
        self._room.on("sip_dtmf_received", lambda event: self.digits.put_nowait(event.digit))
        await self._room.connect(self._livekit.url, self._token())
        track = rtc.LocalAudioTrack.create_audio_track("phone", self._source)
        options = rtc.TrackPublishOptions(source=rtc.TrackSource.SOURCE_MICROPHONE)
        await self._room.local_participant.publish_track(track, options)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._room.disconnect()
        for task in self._tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await self._source.aclose()

    def _token(self) -> str:
        now = int(time.time())
        claims = {
            "iss": self._livekit.api_key,
            "sub": "caller",
            "nbf": now - 5,
            "exp": now + 60,
            "kind": "connector",
            "video": {"roomJoin": True, "room": "r", "canPublish": True, "canSubscribe": True},
        }
        return jwt.encode(claims, self._livekit.api_secret, algorithm="HS256")

    def _on_track(self, track: rtc.Track, *_: object) -> None:
        self._tasks.append(asyncio.create_task(self._listen(track)))

    async def _listen(self, track: rtc.Track) -> None:
        stream = rtc.AudioStream(track, sample_rate=RATE, num_channels=1, frame_size_ms=10)
        try:
            async for event in stream:
                self._heard.append(np.frombuffer(event.frame.data, np.int16).copy())
                self.hears.set()
        finally:
            await stream.aclose()

    @property
    def heard(self) -> NDArray[np.int16]:
        return np.concatenate(self._heard)

    @property
    def samples_heard(self) -> int:
        return len(self._heard) * FRAME

    async def say(self, sound: NDArray[np.int16]) -> None:
        began = time.monotonic()
        for index in range(len(sound) // FRAME):
            await asyncio.sleep(max(0.0, began + index * 0.01 - time.monotonic()))
            frame = sound[index * FRAME : (index + 1) * FRAME]
            await self._source.capture_frame(rtc.AudioFrame(frame.tobytes(), RATE, 1, FRAME))

    async def ask_for(self, digits: str) -> None:
        await self._room.local_participant.publish_data(digits.encode(), topic=script.DTMF_TOPIC)


@pytest.fixture
async def livekit() -> AsyncIterator[LiveKitServer]:
    async with LiveKitServer() as server:
        yield server


async def dispatch(livekit: LiveKitServer, agent: str) -> None:
    async with api.LiveKitAPI(livekit.http_url, livekit.api_key, livekit.api_secret) as lkapi:
        await lkapi.room.create_room(api.CreateRoomRequest(name="r"))
        await lkapi.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name=agent, room="r"))


@pytest.mark.alone
async def test_the_agent_greets_then_says_back_what_it_hears(livekit: LiveKitServer) -> None:
    sentence = script.sentence()
    async with EchoAgent(livekit.environment) as agent:
        await dispatch(livekit, agent.name)
        async with Caller(livekit) as caller, asyncio.timeout(25):
            await caller.hears.wait()
            await caller.ask_for("1#")
            assert [await caller.digits.get(), await caller.digits.get()] == ["1", "#"]
            silence = np.zeros(len(script.greeting()) + RATE // 2, np.int16)
            await caller.say(silence)
            said_at = caller.samples_heard
            await caller.say(np.concatenate([sentence, np.zeros(RATE // 2, np.int16)]))
            heard = caller.heard
    greeting = find_delay(script.greeting(), heard, RATE)
    echo = find_delay(sentence, heard, RATE)
    assert greeting.score > 0.6, agent
    assert echo.score > 0.6
    assert greeting.delay_seconds < 0.5
    assert 0 < echo.delay_seconds - said_at / RATE < 0.4


async def test_a_server_comes_back_on_its_ports(livekit: LiveKitServer) -> None:
    before = livekit.url
    await livekit.restart()
    assert (livekit.url, livekit.is_running) == (before, True)
    await dispatch(livekit, "nobody")
    await livekit.kill()
    assert not livekit.is_running


async def test_servers_run_side_by_side(livekit: LiveKitServer) -> None:
    async with LiveKitServer() as other:
        assert other.port != livekit.port
        assert other.api_secret != livekit.api_secret
        await dispatch(other, "nobody")
