"""Audio into and out of the LiveKit SDK, over its native interface, with one native call per frame.

The SDK's own `AudioSource.capture_frame` and `AudioStream` subscribe a new queue for every captured frame and pass
every media event to every room of the process. That costs a quarter of a call's CPU, and grows with the square of the
number of calls. `MediaRouter` replaces the SDK's event queue: it finds the track of a media event in a dictionary, and
passes all other events on to the SDK. It uses names of the SDK that are not public (`FfiClient` with its library and
queue, `FfiQueue`, `_ffi_handle`). `tests/integration/test_media.py` fails when one of them changes, and
`pyproject.toml` pins the SDK's minor version.
"""

from __future__ import annotations

import asyncio
import ctypes
import threading
import time
from collections import deque
from collections.abc import Callable

import numpy as np
import structlog
from livekit import rtc
from livekit.rtc._ffi_client import INVALID_HANDLE, FfiClient, FfiHandle, FfiQueue
from livekit.rtc._proto import audio_frame_pb2, ffi_pb2
from numpy.typing import NDArray

log = structlog.get_logger()

CAPTURES_A_SECOND = 100
"""A source without a queue takes frames of exactly 10 ms; any other length is an InvalidState error."""
STREAM_FRAME_MS = 20
MAX_WAITING = 20
"""Maximum number of 10 ms frames that wait for the SDK: 200 ms. Beyond it, the oldest frame is dropped."""
LOST_AFTER = 0.5
"""Seconds without an answer after which a captured frame counts as lost by the SDK, and the next one is sent."""
MAX_LOST_AFTER = 8.0
"""Upper limit of that wait: it doubles with each loss in a row, and is reset by an answer."""
MAX_KNOWN_THREADS = 64
"""Limit on the threads whose state is kept. The SDK has a handful of threads, for the life of the process."""

_ensure_thread_state = ctypes.pythonapi.PyGILState_Ensure
_ensure_thread_state.restype = ctypes.c_int
_ensure_thread_state.argtypes = []

OnAudio = Callable[[NDArray[np.int16], float], None]
"""Called on the event loop with one frame, int16, and the monotonic time it left WebRTC."""


class MediaRouter(FfiQueue[ffi_pb2.FfiEvent]):
    """The SDK's event queue, with a shorter path for media events. One per process; see `media_router`."""

    def __init__(self, client: FfiClient) -> None:
        super().__init__()
        self._client = client
        self._guard = threading.RLock()
        self._taps: dict[int, AudioTap] = {}
        self._closing: set[int] = set()
        """Closed streams. Their frames that still arrive must be freed, until the SDK reports the end of the stream."""
        self._captures: dict[int, CallerSource] = {}
        self._late: dict[int, CaptureRequest] = {}
        """Captures that count as lost. The SDK may still read their buffers, so these are kept until it answers."""
        self._known_threads: set[int] = set()

    def put(self, item: ffi_pb2.FfiEvent) -> None:
        """Called by the SDK on one of its own threads for every event."""
        self._know_thread()
        kind = item.WhichOneof("message")
        if kind == "audio_stream_event":
            is_ours = self._take_audio(item.audio_stream_event)
        elif kind == "capture_audio_frame":
            is_ours = self._take_captured(item.capture_audio_frame.async_id, item.capture_audio_frame.error)
        else:
            is_ours = False
        if not is_ours:
            super().put(item)

    def _take_audio(self, event: audio_frame_pb2.AudioStreamEvent) -> bool:
        """Handle an event of one of our streams, open or closed. Returns whether it was one."""
        handle = event.stream_handle
        tap = self._taps.get(handle)
        if tap is not None:
            self._deliver(tap, event)
            return True
        with self._guard:  # Holds the first frame of a new stream back until its tap is known.
            tap = self._taps.get(handle)
            if tap is None and handle not in self._closing:
                return False
            if event.HasField("eos"):
                self._closing.discard(handle)
        if tap is not None:
            self._deliver(tap, event)
        elif event.HasField("frame_received"):
            self._free(event.frame_received.frame.handle.id)
        return True

    def _take_captured(self, async_id: int, error: str) -> bool:
        """Handle the answer to one of our captures. Returns whether it was one."""
        with self._guard:
            source = self._captures.pop(async_id, None)
            if source is not None:
                source._captured(error)
            return source is not None or self._late.pop(async_id, None) is not None

    def _know_thread(self) -> None:
        """Keep the interpreter's state of the current SDK thread until the process ends.

        A thread that Python did not start gets a state, with a new stack, at the beginning of each call into Python,
        and loses it at the end of the call. That needs two system calls that change the process's memory map, and takes
        as long as the rest of a captured frame. An `Ensure` without its `Release` keeps the state.
        """
        thread = threading.get_ident()
        if thread not in self._known_threads and len(self._known_threads) < MAX_KNOWN_THREADS:
            self._known_threads.add(thread)
            _ensure_thread_state()

    def _deliver(self, tap: AudioTap, event: audio_frame_pb2.AudioStreamEvent) -> None:
        if not event.HasField("frame_received"):  # The end of the stream.
            with self._guard:
                self._taps.pop(event.stream_handle, None)
            return
        frame = event.frame_received.frame
        data = ctypes.string_at(frame.info.data_ptr, frame.info.samples_per_channel * 2)
        self._free(frame.handle.id)
        tap._received(data, time.monotonic())

    def _free(self, handle: int) -> None:
        self._client._ffi_lib.livekit_ffi_drop_handle(ctypes.c_uint64(handle))

    def _request_capture(self, source: CallerSource, request: CaptureRequest, data: bytes) -> int:
        """Returns the id of the SDK's answer."""
        with self._guard:
            # The callback runs on another thread and may be faster than this line; the guard holds it back.
            async_id = request.send(data)
            self._captures[async_id] = source
            return async_id

    def _give_up_capture(self, async_id: int, request: CaptureRequest) -> None:
        """Stop waiting for this answer. If it still arrives, it is ignored."""
        with self._guard:
            if self._captures.pop(async_id, None) is not None:
                self._late[async_id] = request

    def _open_stream(self, tap: AudioTap, track_handle: int, rate: int, frame_ms: int) -> FfiHandle:
        request = ffi_pb2.FfiRequest()
        stream = request.new_audio_stream
        stream.track_handle = track_handle
        stream.sample_rate = rate
        stream.num_channels = 1
        stream.queue_size_frames = 0
        stream.frame_size_ms = frame_ms
        stream.type = audio_frame_pb2.AudioStreamType.AUDIO_STREAM_NATIVE
        with self._guard:
            handle = FfiHandle(self._client.request(request).new_audio_stream.stream.handle.id)
            self._taps[handle.handle] = tap
        return handle

    def _close_stream(self, handle: FfiHandle) -> None:
        with self._guard:
            if self._taps.pop(handle.handle, None) is not None:
                self._closing.add(handle.handle)
        handle.dispose()


class CaptureRequest:
    """Does the work of `FfiClient.request` for 10 ms of one source, with one message and one buffer for all frames."""

    def __init__(self, library: ctypes.CDLL, source_handle: int, rate: int) -> None:
        self._library = library
        self._bytes = rate // CAPTURES_A_SECOND * 2
        self._samples = ctypes.create_string_buffer(self._bytes)
        request = ffi_pb2.FfiRequest()
        request.capture_audio_frame.source_handle = source_handle
        buffer = request.capture_audio_frame.buffer
        buffer.data_ptr = ctypes.addressof(self._samples)
        buffer.sample_rate = rate
        buffer.num_channels = 1
        buffer.samples_per_channel = rate // CAPTURES_A_SECOND
        message = request.SerializeToString()
        self._message = (ctypes.c_ubyte * len(message)).from_buffer_copy(message)
        self._answer = ctypes.POINTER(ctypes.c_ubyte)()
        self._answer_size = ctypes.c_size_t()

    def send(self, data: bytes) -> int:
        """Send 10 ms of int16 samples. Returns the id of the callback. Must not be called again before the callback."""
        ctypes.memmove(self._samples, data, self._bytes)
        handle = self._library.livekit_ffi_request(
            self._message, len(self._message), ctypes.byref(self._answer), ctypes.byref(self._answer_size)
        )
        if handle == INVALID_HANDLE:
            raise RuntimeError("the LiveKit SDK refused a request to capture audio")
        answer = ffi_pb2.FfiResponse.FromString(ctypes.string_at(self._answer, self._answer_size.value))
        self._library.livekit_ffi_drop_handle(handle)
        return answer.capture_audio_frame.async_id


_installing = threading.Lock()


def media_router() -> MediaRouter:
    """Returns the process's router. The first call installs it, and must happen before the first room is joined."""
    client = FfiClient.instance
    with _installing:
        current = client._queue
        if isinstance(current, MediaRouter):
            return current
        router = MediaRouter(client)
        router._subscribers = current._subscribers
        client._queue = router
        return router


class CallerSource:
    """The caller's voice as a LiveKit audio source without a send queue.

    `capture` never waits. Each frame is sent when the SDK has accepted the previous one: the SDK starts a task for each
    frame, so two frames at once could be swapped. A frame without an answer within `LOST_AFTER` counts as lost.
    """

    def __init__(self, rate: int, now: Callable[[], float] = time.monotonic) -> None:
        """`rate`: samples per second, a multiple of 100."""
        self.rate = rate
        self._now = now
        self._piece_bytes = rate // CAPTURES_A_SECOND * 2
        self._router = media_router()
        self._source = rtc.AudioSource(rate, 1, queue_size_ms=0)
        self._handle = self._source._ffi_handle
        self._request = self._new_request()
        self._waiting: deque[bytes] = deque()
        self._in_flight: int | None = None
        """The id of the capture that the SDK has not answered yet."""
        self._sent_at = 0.0
        self._lost_after = LOST_AFTER
        self.dropped = 0
        self.on_fault: Callable[[str], None] | None = None
        """Called with `capture_lost` (no answer) on the event loop, and with `capture_refused` on any thread."""

    def _new_request(self) -> CaptureRequest:
        return CaptureRequest(self._router._client._ffi_lib, self._handle.handle, self.rate)

    @property
    def rtc_source(self) -> rtc.AudioSource:
        return self._source

    def capture(self, pcm: bytes) -> None:
        """Send int16 mono samples, a multiple of 10 ms; on the event loop."""
        size = self._piece_bytes
        with self._router._guard:
            for start in range(0, len(pcm), size):
                self._waiting.append(pcm[start : start + size])
            while len(self._waiting) > MAX_WAITING:
                self._waiting.popleft()
                self.dropped += 1
            if self._in_flight is not None and self._now() - self._sent_at >= self._lost_after:
                self._lose_flight()
            if self._in_flight is None:
                self._next()

    def _captured(self, error: str) -> None:
        """The SDK has answered. Called on one of its threads."""
        self._in_flight = None
        self._lost_after = LOST_AFTER
        if error:
            self._tell("capture_refused")
        self._next()

    def _lose_flight(self) -> None:
        log.warning("the LiveKit SDK has not taken a frame of the caller", seconds=self._lost_after)
        self._forget_flight()
        self._lost_after = min(2 * self._lost_after, MAX_LOST_AFTER)
        self._tell("capture_lost")

    def _forget_flight(self) -> None:
        if self._in_flight is not None:
            self._router._give_up_capture(self._in_flight, self._request)
            self._in_flight = None
            self._request = self._new_request()

    def _tell(self, fault: str) -> None:
        if self.on_fault is not None:
            self.on_fault(fault)

    def _next(self) -> None:
        while self._waiting and self._in_flight is None and not self._handle.disposed:
            piece = self._waiting.popleft()
            self._sent_at = self._now()
            try:
                self._in_flight = self._router._request_capture(self, self._request, piece)
            except RuntimeError:
                self._tell("capture_refused")

    def take_back(self) -> None:
        """Drop all frames that were not sent or answered. Then the source can be used for another call."""
        with self._router._guard:
            self._waiting.clear()
            self._forget_flight()
            self._lost_after = LOST_AFTER
            self.dropped = 0
            self.on_fault = None

    async def close(self) -> None:
        with self._router._guard:
            self._waiting.clear()
            self._forget_flight()
            self.on_fault = None
            await_close = self._source.aclose()
        await await_close


class AudioTap:
    """Receives one remote audio track: passes its frames, resampled to `rate`, to a callback on the event loop."""

    def __init__(self, track: rtc.Track, on_audio: OnAudio, rate: int, frame_ms: int = STREAM_FRAME_MS) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_audio = on_audio
        self._router = media_router()
        self._handle = self._router._open_stream(self, track._ffi_handle.handle, rate, frame_ms)
        self._closed = False

    def _received(self, data: bytes, at: float) -> None:
        if not self._closed:
            try:
                self._loop.call_soon_threadsafe(self._hand_over, data, at)
            except RuntimeError:
                self._closed = True  # The loop is gone: the process is stopping.

    def _hand_over(self, data: bytes, at: float) -> None:
        if not self._closed:
            self._on_audio(np.frombuffer(data, dtype=np.int16), at)

    def close(self) -> None:
        self._closed = True
        self._router._close_stream(self._handle)
