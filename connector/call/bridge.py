"""The audio path of one call, both ways. Everything here runs synchronously on the event loop.

::

    carrier ─ from_carrier ─ in order ─ decode ─ late? drop ─ 10 ms pieces ─▶ room.capture
    room ─ from_room ─ stale? drop ─ mix ─ silent? skip ─ encode ─▶ outbox ─▶ carrier

At the rate and in the encoding that the carrier has chosen for the stream; see `connector.call.coding`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from connector.audio import dtmf
from connector.audio.freshness import PlayoutClock, TransitClock
from connector.audio.levels import is_silent, peak
from connector.audio.mixer import Mixer
from connector.audio.reorder import ReorderBuffer
from connector.audio.shorten import Standing, shorten
from connector.call.coding import coding_of
from connector.call.outbox import Outbox
from connector.carriers.base import Codec, MediaFormat
from connector.carriers.events import AudioReceived, Encoding
from connector.metrics import Metrics

TELEPHONE = MediaFormat(Encoding.MULAW, 8000)
"""What a stream is until it has started and said otherwise."""
MAX_LATE = 0.2
"""Seconds a carrier frame may be later than its best recent neighbour; older audio is worthless."""
MAX_BURST = 0.2
"""Seconds: of one message no more is new enough to be heard."""
MAX_STALE = 0.1
"""Seconds from WebRTC to this module. WebRTC has already evened out the network's jitter, so more means that
this process was held up, and what is sent late would stay in the carrier's buffer as a delay."""
MAX_AHEAD = 0.2
"""Seconds the carrier may have in its buffer before frames are dropped instead of sent."""
CATCH_UP_AHEAD = 0.06
"""Seconds in the carrier's buffer that no even flow of frames explains: something was held up, and what then came
at once would stay as a delay until the room is silent, which a room with a noisy line in it never is."""
MAX_STANDING = 0.01
"""Seconds in the carrier's buffer that are never played away. A cushion of less may stay: it evens out our jitter."""
STANDING_WINDOW = 0.2
"""Seconds after which what is still there counts as standing."""
SHORTEN_EVERY = 0.08
"""Seconds between two periods left out: speech gets about a tenth faster, and is heard as the same speech."""
QUIET = 256
"""Samples below this may be left out to catch up: line noise, the gaps between words. 42 dB below full scale."""
MAX_TONES = 32
"""Digits that may wait to be played; more is refused."""
MARK_EVERY = 1.0
"""Seconds of sent audio between two marks."""
MAX_UNHEARD = 2.0
"""Seconds a mark may be away. The socket alone does not tell that the caller hears nothing: where a proxy stands
between us and the carrier, its buffers and the kernel's take in whole minutes of audio."""

_NOTHING = np.zeros(0, np.int16)

Now = Callable[[], float]


class CallerVoice(Protocol):
    def capture(self, pcm: bytes) -> None: ...
    def take_dropped(self) -> int: ...


class Bridge:
    """Carries audio between a codec's messages and a room; owns no task and no socket."""

    def __init__(self, codec: Codec, room: CallerVoice, metrics: Metrics, now: Now) -> None:
        self._codec = codec
        self._room = room
        self._now = now
        self.outbox = Outbox()
        self._transit = TransitClock()
        self._order: ReorderBuffer[AudioReceived] = ReorderBuffer()
        self._rest = b""
        self._playout = PlayoutClock()
        self._standing = Standing(STANDING_WINDOW)
        self._shorten_next = 0.0
        self._held = _NOTHING
        """The rest of a shortened frame. It leaves with the next: no carrier has to take less than 20 ms at once."""
        self._tone_until = 0.0
        self._marks: dict[str, float] = {}
        self._marks_made = 0
        self._since_mark = 0.0
        self._marks_return = False
        self._probe = ""
        """A mark behind a `clear`: until it is back, the way to the caller is stuck."""
        self._open = False
        self._lateness = metrics.lateness
        self._lag = metrics.playback_lag
        self._frames_in = metrics.frames.labels("from_carrier")
        self._frames_out = metrics.frames.labels("to_carrier")
        self._dropped = metrics.dropped
        self.heard_frames = 0
        self.sent_frames = 0
        self.dropped_frames = 0
        self.start(TELEPHONE, TELEPHONE)

    def start(self, heard: MediaFormat, said: MediaFormat) -> None:
        """The stream has started: what its audio is, from the carrier and to it. Before `open`."""
        coding = coding_of(heard)
        self._decode = coding.decode
        self._heard_rate = coding.rate
        self._piece_bytes = coding.piece_bytes
        self._coding = coding_of(said)
        self._rate = self._coding.rate
        self._mixer = Mixer(self._coding.frame_samples)

    def open(self) -> None:
        """The room is joined and the track published: let audio through. What came before is not kept."""
        self._open = True

    def close(self) -> None:
        self._open = False

    # Carrier → room

    def from_carrier(self, audio: AudioReceived) -> None:
        """One message of the caller's voice, of any length."""
        if audio.sequence is None:
            self._hear(audio)
            return
        dropped = self._order.late + self._order.duplicates
        for each in self._order.push(audio.sequence, audio):
            self._hear(each)
        if self._order.late + self._order.duplicates > dropped:
            self._drop("from_carrier", "out_of_order")

    def _hear(self, audio: AudioReceived) -> None:
        now = self._now()
        pcm = self._decode(audio.payload)
        if audio.timestamp is not None:
            late = self._transit.lateness(now, audio.timestamp + len(pcm) / self._heard_rate)
            self._lateness.observe(late)
            if late > MAX_LATE:
                self._drop("from_carrier", "late")
                return
        if not self._open:
            self._drop("from_carrier", "not_ready")
            return
        if len(pcm) > (most := int(MAX_BURST * self._heard_rate)):
            self._drop("from_carrier", "burst")
            pcm = pcm[-most:]
        data = self._rest + pcm.tobytes() if self._rest else pcm.tobytes()
        whole = len(data) - len(data) % self._piece_bytes
        self._rest = data[whole:]
        if whole:
            self._room.capture(data[:whole] if self._rest else data)
        self._frames_in.inc()
        self.heard_frames += 1

    def rejected(self, why: str) -> None:
        """The codec refused a frame (bad base64, another track …)."""
        self._drop("from_carrier", why)

    # Room → carrier

    def source_added(self, source: str) -> None:
        self._mixer.add(source)

    def source_removed(self, source: str) -> None:
        self._mixer.remove(source)

    def from_room(self, source: str, pcm: NDArray[np.int16], at: float) -> None:
        """20 ms of one track, int16 at the rate that the carrier is sent; `at`: when it left WebRTC, by our clock."""
        if not self._open:
            return
        now = self._now()
        if now - at > MAX_STALE:
            self._drop("to_carrier", "stale")
            return
        coding = self._coding
        for mixed in self._mixer.push(source, pcm):
            if is_silent(mixed, coding.silent_min, coding.silent_max):
                if not len(self._held):
                    continue
                mixed = mixed[: coding.frame_samples - len(self._held)]
            if now < self._tone_until:
                self._drop("to_carrier", "tone")
            elif self._is_stuck(now):
                self._drop("to_carrier", "backed_up")
            elif (ahead := self._playout.ahead(now)) > MAX_AHEAD:
                self._drop("to_carrier", "ahead")
            elif ahead > CATCH_UP_AHEAD and peak(mixed) < QUIET:
                self._drop("to_carrier", "catch_up")
            else:
                self._send_whole(mixed, now, ahead)

    def _send_whole(self, pcm: NDArray[np.int16], now: float, ahead: float) -> None:
        """Send this behind what was held, or hold both while they are less than a frame."""
        if self._standing.of(now, ahead) > MAX_STANDING and now >= self._shorten_next:
            whole, pcm = pcm, shorten(pcm, self._rate)
            self._standing.worked_off((len(whole) - len(pcm)) / self._rate)
            self._shorten_next = now + SHORTEN_EVERY
        if len(self._held):
            pcm = np.concatenate((self._held, pcm))
        if len(pcm) < self._coding.frame_samples:
            self._held = pcm
        else:
            self._held = _NOTHING
            self._send(pcm, now)

    def _send(self, pcm: NDArray[np.int16], now: float) -> None:
        seconds = len(pcm) / self._rate
        if not self.outbox.has_room_for(seconds):
            self._start_over(now)
        self.outbox.put_audio(self._codec.audio(self._coding.encode(pcm)), seconds)
        self._playout.sent(now, seconds)
        self._frames_out.inc()
        self.sent_frames += 1
        self._since_mark += seconds
        if self._since_mark >= MARK_EVERY:
            self._since_mark = 0.0
            name = self._put_mark()
            self._marks[name] = now

    def _put_mark(self) -> str:
        self._marks_made += 1
        name = f"lag-{self._marks_made}"
        self.outbox.put_mark(self._codec.mark(name))
        return name

    def _is_stuck(self, now: float) -> bool:
        """Whether what is sent does not get to the caller; then nothing is, until the way is seen to be free.

        Told by the marks, of a carrier that has returned some. What is on the way when it gets free again arrives
        all at once, with a `clear` behind it.
        """
        if not self._probe and self._marks_return and self._marks:
            oldest = next(iter(self._marks.values()))
            if now - oldest > MAX_UNHEARD:
                self._start_over(now)
                self._probe = self._put_mark()
        return bool(self._probe)

    def _start_over(self, now: float) -> None:
        """The socket is stuck. What it holds comes all at once when it moves again, and would stay in the
        carrier's buffer as a delay for the rest of the sentence: the carrier shall drop it."""
        for _ in range(self.outbox.start_over(self._codec.clear())):
            self._drop("to_carrier", "backed_up")
        self._marks.clear()
        self._playout.cleared(now)

    def mark_reached(self, name: str) -> float | None:
        """The carrier's playback reached a mark; the seconds since it was sent, None for one not ours."""
        if name == self._probe:
            self._probe = ""
        sent = self._marks.pop(name, None)
        if sent is None:
            return None
        self._marks_return = True
        lag = self._now() - sent
        self._lag.observe(lag)
        return lag

    def clear(self) -> None:
        """Drop what the caller has not heard yet, here and at the carrier."""
        # The carrier returns the marks it drops; they would be read as a playback that is faster than it is.
        self._marks.clear()
        self._held = _NOTHING
        self._tone_until = 0.0
        self._playout.cleared(self._now())
        self.outbox.replace_all(self._codec.clear())
        if self._probe:
            # The one that waited may have been thrown away with the rest.
            self._probe = self._put_mark()

    def play_tones(self, digits: str) -> bool:
        """Play DTMF digits to the caller, in the band. False, and none is played, when too many would wait.

        The room is not mixed in while the tones last: a detector wants the two frequencies alone.
        """
        now = self._now()
        tones = [dtmf.tone(digit, rate=self._rate) for digit in digits]
        seconds = [len(pcm) / self._rate for pcm in tones]
        if max(0.0, self._tone_until - now) + sum(seconds[:-1]) > MAX_TONES * seconds[0]:
            return False
        if self.outbox.tones > MAX_TONES:  # They wait for a socket that is stuck.
            return False
        for pcm, lasts in zip(tones, seconds, strict=True):
            self._playout.sent(now, lasts)
            self.outbox.put_tone(self._codec.audio(self._coding.encode(pcm)))
        self._tone_until = now + self._playout.ahead(now)
        return True

    def _drop(self, path: str, why: str) -> None:
        self._dropped.labels(path, why).inc()
        self.dropped_frames += 1

    def collect_drops(self) -> None:
        """Count what the room's side dropped by itself since the last call."""
        for _ in range(self._room.take_dropped()):
            self._drop("from_carrier", "sdk_slow")
