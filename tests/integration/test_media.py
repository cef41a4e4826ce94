"""What connector.room.media takes from inside the SDK: this fails when an update changes it."""

from __future__ import annotations

import asyncio
import ctypes
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from livekit import rtc
from livekit.rtc import _ffi_client
from livekit.rtc._ffi_client import INVALID_HANDLE, FfiClient, FfiHandle, FfiQueue
from livekit.rtc._proto import ffi_pb2
from numpy.typing import NDArray

from connector.room.media import (
    LOST_AFTER,
    MAX_WAITING,
    AudioTap,
    CallerSource,
    CaptureRequest,
    MediaRouter,
    media_router,
)
from tests.integration.harness import PATIENCE, RATE, Stage, strength, tone, until

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
    event = await asyncio.wait_for(queue.get(), PATIENCE)
    assert event.WhichOneof("message") == "capture_audio_frame"
    router.unsubscribe(queue)
    await source.aclose()


async def test_what_is_captured_is_heard_and_what_is_tapped_was_said(stage: Stage, room: str) -> None:
    """Our source and our tap, each against the SDK's own other end and against each other."""
    speaker = await stage.guest(room, "speaker", auto_subscribe=False)
    listener = await stage.guest(room, "listener")
    source = CallerSource(RATE)
    faults: list[str] = []
    source.on_fault = faults.append
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
    assert not faults

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


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class LossySdk:
    """Answers to captures arrive, but for those kept back, which `deliver` brings."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.loses = 0
        self.kept: list[int] = []
        self.answered = 0
        self._take = media_router()._take_captured
        monkeypatch.setattr(media_router(), "_take_captured", self._keep_or_take)

    def _keep_or_take(self, async_id: int, error: str) -> bool:
        with media_router()._guard:
            # The clock of a test may have given it up before the SDK's thread comes here.
            is_ours = async_id in media_router()._captures or async_id in media_router()._late
            if self.loses > 0 and is_ours:
                self.loses -= 1
                self.kept.append(async_id)
                return True
        taken = self._take(async_id, error)
        self.answered += 1
        return taken

    def deliver(self) -> None:
        for async_id in self.kept:
            assert self._take(async_id, "")
        self.kept.clear()


@pytest.fixture
def sdk(monkeypatch: pytest.MonkeyPatch) -> Iterator[LossySdk]:
    sdk = LossySdk(monkeypatch)
    yield sdk
    sdk.deliver()


@pytest.fixture
def clock() -> Clock:
    return Clock()


async def test_a_sdk_that_takes_nothing_makes_it_drop_the_oldest(sdk: LossySdk, clock: Clock) -> None:
    source = CallerSource(RATE, clock)
    sdk.loses = 1
    source.capture(bytes(PIECE * 2))
    await until(lambda: len(sdk.kept) == 1)
    pieces = [bytes([index]) * (PIECE * 2) for index in range(MAX_WAITING + 5)]
    source.capture(b"".join(pieces))
    assert source.dropped == 5
    assert list(source._waiting) == pieces[5:]
    await source.close()


async def test_an_answer_that_the_sdk_loses_holds_the_caller_up_for_half_a_second(sdk: LossySdk, clock: Clock) -> None:
    source = CallerSource(RATE, clock)
    faults: list[str] = []
    source.on_fault = faults.append
    sdk.loses = 1
    source.capture(bytes(PIECE * 2))
    await until(lambda: len(sdk.kept) == 1)
    clock.now += LOST_AFTER - 0.01
    source.capture(bytes(PIECE * 2))
    assert (faults, sdk.answered) == ([], 0)
    clock.now += 0.02
    source.capture(bytes(PIECE * 2))
    assert faults == ["capture_lost"]
    await until(lambda: sdk.answered == 2)

    # The answer to the lost one comes after all, while another is on its way: it is nobody's.
    sdk.loses = 1
    late, sdk.kept = sdk.kept, []
    source.capture(bytes(PIECE * 2))
    await until(lambda: len(sdk.kept) == 1)
    flying = source._in_flight
    assert sdk._take(late[0], "")
    assert source._in_flight == flying is not None
    sdk.deliver()
    assert source._in_flight is None
    assert not media_router()._late
    assert faults == ["capture_lost"]
    await source.close()


async def test_a_sdk_that_answers_nothing_is_asked_less_and_less(sdk: LossySdk, clock: Clock) -> None:
    source = CallerSource(RATE, clock)
    times: list[float] = []
    source.on_fault = lambda _: times.append(clock.now)
    sdk.loses = 1000
    start = clock.now
    for _ in range(3000):
        source.capture(bytes(PIECE * 2))
        clock.now += 0.02
    waits = [round(after - before, 1) for before, after in pairwise([start, *times])]
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0, 8.0, 8.0, 8.0]
    await until(lambda: len(sdk.kept) == len(times) + 1)
    sdk.loses = 0
    sdk.deliver()
    source.capture(bytes(PIECE * 2))
    await until(lambda: source._in_flight is None and not source._waiting)
    assert source._lost_after == LOST_AFTER
    await source.close()


async def test_a_source_that_is_taken_back_with_a_lost_answer_serves_the_next_call(sdk: LossySdk) -> None:
    source = CallerSource(RATE)
    sdk.loses = 1
    source.capture(bytes(PIECE * 2))
    await until(lambda: len(sdk.kept) == 1)
    source.take_back()
    source.capture(bytes(PIECE * 2))
    await until(lambda: sdk.answered == 1)
    sdk.deliver()
    await until(lambda: router_state() == (0, 0))
    await source.close()


async def test_a_capture_that_the_sdk_refuses_is_told_and_the_next_one_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    source = CallerSource(RATE)
    faults: list[str] = []
    source.on_fault = faults.append
    send = CaptureRequest.send

    def refuse(_: CaptureRequest, __: bytes) -> int:
        monkeypatch.setattr(CaptureRequest, "send", send)
        raise RuntimeError("refused")

    monkeypatch.setattr(CaptureRequest, "send", refuse)
    source.capture(bytes(PIECE * 2 * 2))
    assert faults == ["capture_refused"]
    assert source._in_flight is not None
    await until(lambda: source._in_flight is None)
    await source.close()


@dataclass
class Stream:
    """Frames of an audio stream as the SDK reports them; what becomes of their buffers."""

    handle: int
    freed: list[int] = field(default_factory=list)

    def frame(self, buffer: int) -> ffi_pb2.FfiEvent:
        event = ffi_pb2.FfiEvent()
        event.audio_stream_event.stream_handle = self.handle
        frame = event.audio_stream_event.frame_received.frame
        frame.handle.id = buffer
        self._samples = ctypes.create_string_buffer(320)
        frame.info.data_ptr = ctypes.addressof(self._samples)
        frame.info.samples_per_channel = 160
        return event

    def end(self) -> ffi_pb2.FfiEvent:
        event = ffi_pb2.FfiEvent()
        event.audio_stream_event.stream_handle = self.handle
        event.audio_stream_event.eos.SetInParent()
        return event


async def test_a_frame_that_comes_when_its_tap_is_closed_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    router = media_router()
    stream = Stream(INVALID_HANDLE)  # Which the SDK never gives, so that to dispose it does nothing.
    monkeypatch.setattr(router, "_free", stream.freed.append)
    handle = FfiHandle(stream.handle)
    tap = cast(AudioTap, SimpleNamespace(_received=lambda *_: None))
    router._taps[stream.handle] = tap
    router.put(stream.frame(1))
    router._close_stream(handle)
    router.put(stream.frame(2))
    router.put(stream.frame(3))
    assert stream.freed == [1, 2, 3]
    router.put(stream.end())
    assert not router._closing
    # A stream that is not ours is its own reader's business.
    router.put(stream.frame(4))
    assert stream.freed == [1, 2, 3]


async def test_a_stream_that_has_ended_before_it_is_closed_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    router = media_router()
    stream = Stream(INVALID_HANDLE)
    router._taps[stream.handle] = cast(AudioTap, SimpleNamespace(_received=lambda *_: None))
    router.put(stream.end())
    router._close_stream(FfiHandle(stream.handle))
    assert (router_state()[0], router._closing) == (0, set())


async def test_the_first_frame_of_a_stream_waits_for_its_tap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK's thread may be quicker than ours, which has asked for the stream and not heard its handle yet."""
    router = media_router()
    stream = Stream(INVALID_HANDLE)
    monkeypatch.setattr(router, "_free", stream.freed.append)
    got: list[bytes] = []
    with router._guard:
        thread = threading.Thread(target=router.put, args=(stream.frame(1),))
        thread.start()
        router._taps[stream.handle] = cast(AudioTap, SimpleNamespace(_received=lambda data, _: got.append(data)))
    thread.join()
    assert len(got) == 1
    assert stream.freed == [1]
    router._taps.pop(stream.handle)


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
