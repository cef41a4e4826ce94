"""What connector.room.media takes from inside the SDK: this fails when an update changes it."""

from __future__ import annotations

import asyncio

import numpy as np
from livekit import rtc
from livekit.rtc import _ffi_client
from livekit.rtc._ffi_client import FfiClient, FfiHandle, FfiQueue
from numpy.typing import NDArray

from connector.room.media import MAX_WAITING, AudioTap, CallerSource, MediaRouter, media_router
from tests.integration.harness import RATE, Stage, strength, tone, until

PIECE = RATE // 100


async def test_the_names_of_the_sdk_that_it_relies_on() -> None:
    router = media_router()
    assert router is media_router()
    assert isinstance(router, FfiQueue)
    assert FfiClient.instance.queue is router
    assert isinstance(router._subscribers, list)
    assert callable(FfiClient.instance._ffi_lib.livekit_ffi_drop_handle)
    source = rtc.AudioSource(RATE, 1, queue_size_ms=0)
    assert isinstance(source._ffi_handle, FfiHandle)
    await source.aclose()
    assert source._ffi_handle.disposed


async def test_events_of_the_sdk_still_reach_its_own_subscribers() -> None:
    router = media_router()
    queue = router.subscribe()
    source = rtc.AudioSource(RATE, 1, queue_size_ms=0)
    await source.capture_frame(rtc.AudioFrame(bytes(160), RATE, 1, 80))
    event = await asyncio.wait_for(queue.get(), 5)
    assert event.WhichOneof("message") == "capture_audio_frame"
    router.unsubscribe(queue)
    await source.aclose()


async def test_what_is_captured_is_heard_and_what_is_tapped_was_said(stage: Stage, room: str) -> None:
    """Our source and our tap, each against the SDK's own other end and against each other."""
    speaker = await stage.guest(room, "speaker", auto_subscribe=False)
    listener = await stage.guest(room, "listener")
    source = CallerSource(RATE)
    track = rtc.LocalAudioTrack.create_audio_track("ours", source.rtc_source)
    await speaker.room.local_participant.publish_track(track)
    remote, *_ = await listener.event("track_subscribed")
    tapped: list[NDArray[np.int16]] = []
    times: list[float] = []

    def on_audio(pcm: NDArray[np.int16], at: float) -> None:
        tapped.append(pcm)
        times.append(at)

    tap = AudioTap(remote, on_audio, RATE)
    said = tone(600, 10).tobytes()
    loop = asyncio.get_running_loop()
    started = loop.time()

    def heard() -> bool:
        ours = np.concatenate(tapped[-20:]) if tapped else np.zeros(0, np.int16)
        return min(strength(ours, 600), strength(listener.sound_of("speaker")[-3200:], 600)) > 6000

    for index in range(0, len(said) // 320):
        source.capture(said[index * 320 : (index + 1) * 320])
        await asyncio.sleep(max(0.0, started + index / 50 - loop.time()))
        if heard():
            break
    assert heard()
    assert {piece.shape for piece in tapped} == {(160,)}
    assert times == sorted(times)
    assert source.errors == 0

    frames = len(tapped)
    tap.close()
    tap.close()
    before = len(listener.heard["speaker"])
    await listener.until(lambda: len(listener.heard["speaker"]) > before + 10)
    assert len(tapped) == frames
    await source.close()
    source.capture(said[:320])
    assert not router_state()[1]


def router_state() -> tuple[int, int]:
    router = media_router()
    return len(router._taps), len(router._captures)


async def test_a_sdk_that_takes_nothing_makes_it_drop_the_oldest() -> None:
    source = CallerSource(RATE)
    router = source._router
    with router._guard:
        source._in_flight = b"never taken"
    pieces = [bytes([index]) * (PIECE * 2) for index in range(MAX_WAITING + 5)]
    source.capture(b"".join(pieces))
    assert source.dropped == 5
    assert list(source._waiting) == pieces[5:]
    await source.close()


async def test_handles_come_and_go_with_the_objects_that_hold_them() -> None:
    await until(lambda: router_state() == (0, 0))
    before = len(_ffi_client._live_handles)
    for _ in range(20):
        source = CallerSource(RATE)
        source.capture(bytes(PIECE * 2 * 4))
        await source.close()
    del source
    await until(lambda: router_state() == (0, 0))
    await until(lambda: len(_ffi_client._live_handles) <= before)
    assert isinstance(FfiClient.instance.queue, MediaRouter)
