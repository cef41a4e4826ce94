"""The audio path from the phone to the room: reorders, drops old audio, paces bursts, and buffers the caller's first
words until somebody can hear them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from connector.audio.lateness import AgeLimit
from connector.audio.levels import QUIET, peak
from connector.audio.pacer import Pacer
from connector.audio.reorder import ReorderBuffer
from connector.call.media.coding import coding_of
from connector.carriers.codec import MediaFormat
from connector.carriers.events import AudioReceived
from connector.metrics import Metrics

MAX_AUDIO_AGE = 1.0
"""Seconds. Default of `connector.config.Settings.max_audio_age`."""
FIRST_WORDS = 3.0
"""Seconds of the caller's audio that are buffered until the room can hear it; long pauses are buffered in part only."""
LONGEST_MESSAGE = 0.5
"""Seconds. A message of up to this length is passed on whole, even if `max_age` is smaller."""
_TICK = 0.02

Now = Callable[[], float]
Drop = Callable[[str, str], None]


class Timer(Protocol):
    def cancel(self) -> None: ...


Later = Callable[[float, Callable[[], None]], Timer]
"""The event loop's `call_later`."""


class CallerVoice(Protocol):
    def capture(self, pcm: bytes) -> None: ...
    def take_dropped(self) -> int: ...


class FromCarrier:
    """The half of `connector.call.media.bridge.Bridge` that carries audio from the phone to the room."""

    def __init__(
        self,
        room: CallerVoice,
        media: MediaFormat,
        now: Now,
        later: Later,
        drop: Drop,
        metrics: Metrics,
        max_age: float,
    ) -> None:
        """`media`: the audio format of the carrier's messages."""
        self._room = room
        self._now = now
        self._later = later
        self._drop = drop
        self._lateness = metrics.lateness
        self._frames = metrics.frames.labels("from_carrier")
        self._order: ReorderBuffer[AudioReceived] = ReorderBuffer()
        self._most_waiting = max(max_age, LONGEST_MESSAGE)
        self._most_now = self._most_waiting
        """Current limit of waiting audio, in seconds; higher while first words wait."""
        self._ages: AgeLimit[NDArray[np.int16]] = AgeLimit(max_age)
        self._rest = b""
        self._comes_in_pieces = True
        """Whether all messages so far were a multiple of 10 ms."""
        self._timer: Timer | None = None
        self._is_open = False
        self._is_closed = False
        self.heard_frames = 0
        self.start(media)

    def start(self, media: MediaFormat) -> None:
        coding = coding_of(media)
        self._decode = coding.decode
        self._rate = coding.rate
        self._piece_bytes = coding.piece_bytes
        self._pacer = Pacer(coding.rate)

    def open(self, keep: float) -> None:
        """Start to pass audio on: first the newest `keep` seconds of the buffer. Call this when the room can hear the
        caller."""
        for _ in range(self._pacer.trim(keep)):
            self._drop("from_carrier", "not_ready")
        self._is_open = True
        self._most_now = FIRST_WORDS + LONGEST_MESSAGE
        self._give_due()

    def close(self) -> None:
        self._is_closed = True
        self._pacer.forget()
        if self._timer is not None:
            self._timer.cancel()

    # The path of a frame

    def receive(self, audio: AudioReceived) -> None:
        """Put one message of the caller's audio, of any length, in order."""
        if audio.sequence is None:
            self._hear(audio)
            return
        dropped = self._order.late + self._order.duplicates
        for each in self._order.push(audio.sequence, audio):
            self._hear(each)
        if self._order.late + self._order.duplicates > dropped:
            self._drop("from_carrier", "out_of_order")

    def _hear(self, audio: AudioReceived) -> None:
        """Decode a message and drop audio that is too old."""
        now = self._now()
        pcm = self._decode(audio.payload)
        if audio.timestamp is None:
            self._take(pcm, now)
            return
        seconds = len(pcm) / self._rate
        too_old = self._ages.too_old
        for each in self._ages.push(now, audio.timestamp + seconds, seconds, pcm):
            self._take(each, now)
        self._lateness.observe(self._ages.late)
        for _ in range(self._ages.too_old - too_old):
            self._drop("from_carrier", "late")

    def _take(self, pcm: NDArray[np.int16], now: float) -> None:
        """Pass audio on at once, as nearly always, or queue it behind the waiting audio so that it flows evenly."""
        if self._is_closed:
            return
        self.heard_frames += 1
        self._frames.inc()
        if pcm.nbytes % self._piece_bytes:
            self._comes_in_pieces = False
        if not self._is_open:
            for _ in range(self._pacer.collect(pcm, FIRST_WORDS)):
                self._drop("from_carrier", "not_ready")
        elif self._pacer.passes(now, len(pcm) / self._rate):
            self._give(pcm)
        else:
            for _ in range(self._pacer.take(pcm, self._most_now)):
                self._drop("from_carrier", "late")
            if self._timer is None:
                self._give_due()

    def _give_due(self) -> None:
        """Pass on the part of the waiting audio that is due; set a timer for the rest."""
        self._timer = None
        for pcm in self._pacer.due(self._now()):
            self._give(pcm)
        self._most_now = min(self._most_now, max(self._most_waiting, self._pacer.waits + LONGEST_MESSAGE))
        if self._pacer.waits:
            self._timer = self._later(_TICK, self._give_due)

    def _give(self, pcm: NDArray[np.int16]) -> None:
        """Pass audio to the room in pieces of 10 ms; a remainder is kept for the next call."""
        data = pcm.tobytes()
        if self._rest:
            if self._comes_in_pieces and peak(pcm) < QUIET > peak(np.frombuffer(self._rest, np.int16)):
                # The remainder is from a shortened frame, and this is a pause: drop it. Otherwise all later frames
                # would have to be split.
                self._rest = b""
            data = self._rest + data
        whole = len(data) - len(data) % self._piece_bytes
        self._rest = data[whole:]
        if whole:
            self._room.capture(data[:whole] if self._rest else data)

    def collect_drops(self) -> None:
        for _ in range(self._room.take_dropped()):
            self._drop("from_carrier", "sdk_slow")
