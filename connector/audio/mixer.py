"""Many speakers to one: the room's tracks become the one stream that the caller hears."""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray

_INT16 = np.dtype(np.int16)
_INT32 = np.dtype(np.int32)
_HELD_UP = 2
"""So many frames queued by one source mean that it waits for another that has stopped delivering."""


class Mixer:
    """Mixes the frames of sources that come and go. It has no clock: the frames themselves are the clock.

    A single source goes straight through. With several, a mix leaves as soon as each of them has a frame;
    when one has two queued, the others are late and the mix leaves without them. A source that was left out
    is not waited for until it delivers again, so one that falls silent (a mute, a lost connection) delays the
    others by one frame once and not for good. No order is ever changed.

    Frames are kept and passed on by reference: they must not be changed after `push`.
    """

    def __init__(self, frame_samples: int, max_frames: int = 10) -> None:
        """Frames are int16 of shape `(frame_samples,)`; at most `max_frames` of a source are ever held."""
        if frame_samples < 1:
            raise ValueError("a frame has at least one sample")
        if max_frames < _HELD_UP:
            raise ValueError(f"max_frames must be at least {_HELD_UP}")
        self.dropped = 0
        """Frames that never got out: left behind by a removed source, or pushed by one not in the mix."""
        self._shape = (frame_samples,)
        self._max_frames = max_frames
        self._queues: dict[str, deque[NDArray[np.int16]]] = {}
        self._awaited: set[str] = set()
        # Whole arrays: numpy is slower with a scalar bound.
        self._sum = np.empty(frame_samples, _INT32)
        self._highest = np.full(frame_samples, 32767, _INT32)
        self._lowest = np.full(frame_samples, -32768, _INT32)

    def add(self, source: str) -> None:
        """From now on the others wait for this source. Adding it twice is the same as once."""
        if source not in self._queues:
            self._queues[source] = deque(maxlen=self._max_frames)
            self._awaited.add(source)

    def remove(self, source: str) -> None:
        """Nobody waits for it any more, and what it had queued is dropped. Unknown sources are no error."""
        self.dropped += len(self._queues.pop(source, ()))
        self._awaited.discard(source)

    def push(self, source: str, frame: NDArray[np.int16]) -> list[NDArray[np.int16]]:
        """Take one frame in; return the frames to be sent now, usually none or one.

        A frame of a source that is not in the mix is dropped: a track's last frames may come after its end.
        ValueError when the frame has another length or type than the mixer was made for.
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

    def queued(self, source: str) -> int:
        """How many frames of the source wait; 0 for an unknown one."""
        return len(self._queues.get(source, ()))

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
