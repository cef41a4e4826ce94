"""What Telnyx and Plivo can stream beside 8 kHz μ-law, and in which order Telnyx does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from livekit import rtc
from numpy.typing import NDArray

from connector.model.provider import Provider
from demo import script
from tests.integration.carriers import Line, line_at, phone_says, room_says, speech_passes
from tests.integration.ears import PATIENCE, purity
from tests.integration.harness import RATE, Stage, strength, until

WIDE = 16000
BEYOND = 5500.0
"""Hz: more than 8,000 samples a second can carry."""
FORMATS = [
    pytest.param(Provider.TELNYX, {"telnyx_codec": "PCMA"}, 8000, id="Telnyx PCMA"),
    pytest.param(Provider.TELNYX, {"telnyx_codec": "L16"}, 16000, id="Telnyx L16"),
    pytest.param(Provider.PLIVO, {"plivo_codec": "audio/x-l16;rate=8000"}, 8000, id="Plivo L16 8 kHz"),
    pytest.param(Provider.PLIVO, {"plivo_codec": "audio/x-l16;rate=16000"}, 16000, id="Plivo L16 16 kHz"),
]


def sine(frequency: float, seconds: float, rate: int) -> NDArray[np.int16]:
    time = np.arange(round(seconds * rate)) / rate
    return np.asarray(8000 * np.sin(2 * np.pi * frequency * time), np.int16)


def level(pcm: NDArray[np.int16], frequency: float, rate: int) -> float:
    """Amplitude of one frequency in sound of this rate (`strength` counts in periods of 8 kHz)."""
    return strength(pcm, frequency * RATE / rate)


async def answered(stage: Stage, room: str, provider: Provider, settings: dict[str, Any]) -> Line:
    line = await line_at(stage, room, provider, **settings)
    await line.answer()
    return line


@pytest.mark.parametrize(("provider", "settings", "rate"), FORMATS)
async def test_speech_passes_both_ways(
    stage: Stage, room: str, provider: Provider, settings: dict[str, Any], rate: int
) -> None:
    line = await answered(stage, room, provider, settings)
    assert (line.stream.rate, line.stream.heard_rate) == (rate, rate)
    sentence, greeting = await asyncio.to_thread(lambda: (script.sentence(), script.greeting()))
    assert await speech_passes(sentence, lambda: phone_says(line, sentence), lambda: line.guest.sound_of("caller"))
    step = rate // RATE
    assert await speech_passes(greeting, lambda: room_says(line, greeting), lambda: line.call.heard[::step])
    assert not line.call.errors


@asynccontextmanager
async def wide_ear(line: Line) -> AsyncIterator[list[NDArray[np.int16]]]:
    """What the guest hears of the caller at 16 kHz, piece by piece."""
    track, *_ = await line.guest.event("track_subscribed")
    pieces: list[NDArray[np.int16]] = []
    stream = rtc.AudioStream(track, sample_rate=WIDE, num_channels=1, frame_size_ms=20)

    async def listen() -> None:
        async for event in stream:
            pieces.append(np.frombuffer(event.frame.data, np.int16).copy())  # noqa: PERF401 - each as it comes

    listening = asyncio.create_task(listen())
    try:
        yield pieces
    finally:
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        await stream.aclose()


async def say_wide(line: Line, pcm: NDArray[np.int16]) -> None:
    """Speak int16 at 16 kHz into the room."""
    source = rtc.AudioSource(WIDE, 1, queue_size_ms=0)
    track = rtc.LocalAudioTrack.create_audio_track("wide", source)
    await line.guest.room.local_participant.publish_track(track)
    size, start = WIDE // 100, asyncio.get_running_loop().time()
    for index in range(len(pcm) // size):
        piece = pcm[index * size : (index + 1) * size]
        await source.capture_frame(rtc.AudioFrame(piece.tobytes(), WIDE, 1, size))
        await asyncio.sleep(max(0.0, start + (index + 1) / 100 - asyncio.get_running_loop().time()))


@pytest.mark.parametrize(("provider", "settings", "rate"), [case for case in FORMATS if case.values[2] == WIDE])
async def test_wide_band_is_wide_from_end_to_end(
    stage: Stage, room: str, provider: Provider, settings: dict[str, Any], rate: int
) -> None:
    line = await answered(stage, room, provider, settings)
    async with wide_ear(line) as pieces:
        line.call.say(sine(BEYOND, 12, WIDE), WIDE)
        await until(lambda: level(_last(pieces), BEYOND, WIDE) > 4000, PATIENCE)
    speaking = asyncio.create_task(say_wide(line, sine(BEYOND, 12, WIDE)))
    try:
        await until(lambda: level(line.call.heard[-WIDE // 4 :], BEYOND, WIDE) > 4000, PATIENCE)
    finally:
        speaking.cancel()
        await asyncio.gather(speaking, return_exceptions=True)
    assert not line.call.errors


def _last(pieces: list[NDArray[np.int16]]) -> NDArray[np.int16]:
    return np.concatenate(pieces[-12:]) if pieces else np.zeros(0, np.int16)


@pytest.mark.parametrize("disorder", [(1, 0), (2, 0, 1)], ids=["neighbours swapped", "groups of three"])
async def test_frames_out_of_order_are_put_in_order(stage: Stage, room: str, disorder: tuple[int, ...]) -> None:
    """The tone has no whole number of periods in a frame: out of order it would be a tone no more."""
    line = await answered(stage, room, Provider.TELNYX, {})
    line.stream.disorder = disorder
    line.call.say(sine(630, 12, RATE))

    def is_pure() -> bool:
        last = line.guest.sound_of("caller")[-RATE // 2 :]
        return strength(last, 630) > 6000 and purity(last, 630) > 0.95

    await line.guest.until(is_pure, PATIENCE)
    assert not line.call.errors
