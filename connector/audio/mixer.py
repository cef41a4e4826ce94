"""Mixes the tracks of a room into the one stream that the caller hears."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

_INT16 = np.dtype(np.int16)
_INT32 = np.dtype(np.int32)
_HELD_UP = 2
"""When one source has so many frames queued, another source has stopped delivering."""


class Mixer:
    """Mixes the frames of sources that come and go. It has no clock: the frames themselves are the clock.

    The frames of a single source pass unchanged. With several sources, a mix is returned as soon as each of them has
    a frame. When one has two queued, the others are late, and the mix is made without them. The mixer does not wait
    for such a late source until it delivers again. So a source that stops (a mute, a lost connection) delays the
    others by one frame, once. The order of frames never changes.

    Frames are kept and passed on by reference: they must not be changed after `push`.
    """

    def __init__(self, frame_samples: int, max_frames: int = 10) -> None:
        """Frames are int16 of shape `(frame_samples,)`; at most `max_frames` of a source are queued."""
        if frame_samples < 1:
            raise ValueError("a frame has at least one sample")
        if max_frames < _HELD_UP:
            raise ValueError(f"max_frames must be at least {_HELD_UP}")
        self.dropped = 0
        """Number of frames never mixed: queued by a removed source, or pushed by a source not in the mix."""
        self._shape = (frame_samples,)
        self._max_frames = max_frames
        self._queues: dict[str, deque[NDArray[np.int16]]] = {}
        self._awaited: set[str] = set()
        # Arrays instead of scalars: numpy is slower with a scalar bound.
        self._sum = np.empty(frame_samples, _INT32)
        self._highest = np.full(frame_samples, 32767, _INT32)
        self._lowest = np.full(frame_samples, -32768, _INT32)

    @property
    def sources(self) -> tuple[str, ...]:
        """The sources in the mix."""
        return tuple(self._queues)

    def add(self, source: str) -> None:
        """Add a source; from now on the others wait for it. Adding it again changes nothing."""
        if source not in self._queues:
            self._queues[source] = deque(maxlen=self._max_frames)
            self._awaited.add(source)

    def remove(self, source: str) -> None:
        """Remove a source and drop its queued frames; nobody waits for it any more. Unknown sources are no error."""
        self.dropped += len(self._queues.pop(source, ()))
        self._awaited.discard(source)

    def push(self, source: str, frame: NDArray[np.int16]) -> list[NDArray[np.int16]]:
        """Take one frame; return the frames to send now, usually none or one.

        A frame of a source that is not in the mix is dropped: the last frames of a track may arrive after its end.
        ValueError when the frame does not have the mixer's frame length and type.
        """
        if frame.shape != self._shape or frame.dtype != _INT16:
            raise ValueError(f"a frame must be int16 of shape {self._shape}, not {frame.dtype} of {frame.shape}")
        queue = self._queues.get(source)
        if queue is None:
            self.dropped += 1
            return []
        if len(self._queues) == 1 and not queue:
            return [frame]
        queue.append(frame)
        self._awaited.add(source)
        ready = []
        while len(queue) >= _HELD_UP or (queue and all(self._queues[name] for name in self._awaited)):
            ready.append(self._mix())
        return ready

    def _mix(self) -> NDArray[np.int16]:
        """One frame from each source that has one, summed and saturated."""
        self._awaited = {name for name in self._awaited if self._queues[name]}
        frames = [queue.popleft() for queue in self._queues.values() if queue]
        if len(frames) == 1:
            return frames[0]
        total = self._sum
        np.add(frames[0], frames[1], out=total, dtype=_INT32)
        for frame in frames[2:]:
            np.add(total, frame, out=total)
        np.minimum(total, self._highest, out=total)
        np.maximum(total, self._lowest, out=total)
        return total.astype(_INT16)
