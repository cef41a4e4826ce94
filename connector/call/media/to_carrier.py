"""The audio path from the room to the phone: mixes, limits the delay, and sends nothing into a stuck path."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import structlog
from numpy.typing import NDArray

from connector.audio import dtmf
from connector.audio.freshness import PlayoutClock
from connector.audio.levels import QUIET, is_silent, peak
from connector.audio.mixer import Mixer
from connector.audio.shorten import Standing, shorten
from connector.call.media.coding import coding_of
from connector.call.media.marks import Marks, Returned, Step
from connector.call.media.outbox import Outbox
from connector.carriers.codec import Codec, MediaFormat

MAX_STALE = 0.1
"""Maximum age of a frame, in seconds since it left WebRTC. WebRTC's jitter buffer has already removed the network's
jitter, so an older frame means that this process was blocked. If sent, it would add a delay to the carrier's buffer."""
MAX_AHEAD = 0.2
"""Maximum seconds of audio in the carrier's buffer; beyond that, frames are dropped."""
CATCH_UP_AHEAD = 0.06
"""Seconds in the carrier's buffer beyond which quiet frames are dropped. An even flow of frames never fills it so far;
a burst after a blockage does, and its delay would stay until the room is silent. A room with a noisy line never is."""
MAX_STANDING = 0.01
"""Seconds of standing delay in the carrier's buffer beyond which frames are shortened. A smaller buffer may stay: it
absorbs our jitter."""
STANDING_WINDOW = 0.2
"""Length of the window, in seconds, whose minimum is the standing delay."""
SHORTEN_EVERY = 0.08
"""Minimum seconds between two removed pitch periods. Speech gets about 10 % faster and still sounds natural."""
MAX_TONES = 32
"""Maximum number of digits waiting to be played; further ones are refused."""
TELL_EVERY = 10.0
"""Minimum seconds between two log lines about a blocked socket: a socket that is only too slow blocks many times."""
JUST_SENT = 0.4
"""Seconds for which the carrier may still play after its buffer should be empty: our estimate does not include the
network latency."""

_NOTHING = np.zeros(0, np.int16)


def _do_nothing() -> None:
    return


Now = Callable[[], float]
Drop = Callable[[str, str], None]


class ToCarrier:
    """The half of `connector.call.media.bridge.Bridge` that carries audio from the room to the phone."""

    def __init__(
        self,
        codec: Codec,
        media: MediaFormat,
        now: Now,
        drop: Drop,
        on_sent: Callable[[], None],
        log: structlog.stdlib.BoundLogger,
    ) -> None:
        """`media`: the audio format that the carrier expects."""
        self._codec = codec
        self._now = now
        self._drop = drop
        self._on_sent = on_sent
        self._log = log
        self.outbox = Outbox()
        self._playout = PlayoutClock()
        self._standing = Standing(STANDING_WINDOW)
        self._shorten_next = 0.0
        self._held = _NOTHING
        """The rest of a shortened frame. It is sent together with the next frame, because carriers need not accept
        less than 20 ms at once."""
        self._tone_until = 0.0
        self._marks = Marks()
        self._stuck_since: float | None = None
        """Start of the current blockage of the socket, if it was logged; otherwise None."""
        self._tell_next = float("-inf")
        self._probed_since = 0.0
        self._last_mark = ""
        self._on_played: Callable[[], None] = _do_nothing
        self.is_open = False
        self._mixer = Mixer(1)
        self.start(media)

    def start(self, media: MediaFormat) -> None:
        self._coding = coding_of(media)
        self._rate = self._coding.rate
        # A stream that comes back starts when the room's tracks are known already.
        sources, self._mixer = self._mixer.sources, Mixer(self._coding.frame_samples)
        for source in sources:
            self._mixer.add(source)

    def source_added(self, source: str) -> None:
        self._mixer.add(source)

    def source_removed(self, source: str) -> None:
        self._mixer.remove(source)

    # The path of a frame

    def from_room(self, source: str, pcm: NDArray[np.int16], at: float) -> None:
        """Send 20 ms of one track: int16 at the carrier's rate. `at`: time at which it left WebRTC, by our clock."""
        if not self.is_open:
            return
        now = self._now()
        if now - at > MAX_STALE:
            self._drop("to_carrier", "stale")
            return
        coding = self._coding
        if self._marks.is_stuck:
            self._is_stuck(now)  # Continue to send probes while the room is silent.
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
        """Send the held samples and `pcm`, or keep holding both while they are shorter than a frame. Shortens `pcm` if
        the standing delay is too long."""
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
            self._socket_takes_nothing(now)
        elif self._stuck_since is not None and not len(self.outbox):
            self._socket_takes_again(now)
        self.outbox.put_audio(self._codec.audio(self._coding.encode(pcm)), seconds)
        self._playout.sent(now, seconds)
        self._on_sent()
        if self._marks.sent(seconds):
            self._put_mark(self._marks.mark(now))

    def _put_mark(self, name: str) -> None:
        self.outbox.put_mark(self._codec.mark(name))

    # A path that is stuck

    def _is_stuck(self, now: float) -> bool:
        """Send the marks and probes that are due. Returns True if, according to the marks, audio does not reach the
        caller; then no audio may be sent until a probe returns or probing is given up."""
        match self._marks.next_step(now, is_taken=not len(self.outbox)):
            case Step.SEND:
                return False
            case Step.ASK:
                self._put_mark(self._marks.mark(now))
                return False
            case Step.START_OVER:
                self._log.warning("no audio is sent to the phone: the carrier has not returned a mark for a while")
                self._probed_since = now
                self._start_over(now)
                self._put_mark(self._marks.probe(now))
            case Step.PROBE:
                self._put_mark(self._marks.probe(now))
            case Step.WAIT:
                pass
            case Step.GIVE_UP:
                self._log.warning(
                    "audio is sent to the phone again: no mark came back, although the socket accepted all of them",
                    seconds=round(now - self._probed_since, 2),
                )
                return False
        return True

    def _socket_takes_nothing(self, now: float) -> None:
        if self._stuck_since is None and now >= self._tell_next:
            self._stuck_since, self._tell_next = now, now + TELL_EVERY
            self._log.warning("audio for the phone is dropped: the carrier's socket accepts no data")
        self._start_over(now)

    def _socket_takes_again(self, now: float) -> None:
        assert self._stuck_since is not None
        self._log.info(
            "audio is sent to the phone again: the socket accepts data", seconds=round(now - self._stuck_since, 2)
        )
        self._stuck_since = None

    def _start_over(self, now: float) -> None:
        """Drop the waiting audio and send a `clear`. A stuck path delivers its audio all at once when it recovers; in
        the carrier's buffer it would be a delay for the rest of the sentence, so the carrier must drop it."""
        for _ in range(self.outbox.start_over(self._codec.clear())):
            self._drop("to_carrier", "backed_up")
        self._marks.cleared()
        self._playout.cleared(now)

    def mark_reached(self, name: str) -> float | None:
        """Handle a mark that the carrier's playback has reached. Returns the seconds since it was sent, or None if the
        mark does not measure the delay."""
        now = self._now()
        if name == self._last_mark:
            self._on_played()
        match self._marks.returned(name, now):
            case Returned.NOTHING:
                return None
            case Returned.PROBED:
                self._log.info(
                    "audio is sent to the phone again: a mark came back", seconds=round(now - self._probed_since, 2)
                )
                return None
            case Returned.OVERDUE:
                # The audio sent since GIVE_UP has reached the carrier all at once. Keep it if it contains a DTMF digit:
                # a lost digit is worse than the delay.
                if now - self._marks.lag > self._tone_until:
                    self._log.warning("the carrier is told to drop late audio", seconds=round(self._marks.lag, 2))
                    self._start_over(now)
        return self._marks.lag

    # The end

    def last_words(self, on_played: Callable[[], None]) -> float:
        """See `Bridge.last_words`."""
        now = self._now()
        if self._marks.is_stuck or not self.outbox.has_room_for(0.1):
            return 0.0
        if len(self._held):
            pcm, self._held = self._held, _NOTHING
            # Fill up to a whole frame: carriers need not accept less than 20 ms at once.
            self._send(np.concatenate((pcm, np.zeros(self._coding.frame_samples - len(pcm), np.int16))), now)
        left = self._playout.ends_at + JUST_SENT - now
        if left <= 0:
            return 0.0
        self._last_mark, self._on_played = self._marks.mark(now), on_played
        self._put_mark(self._last_mark)
        return left

    # Requests from the room and the API

    def clear(self) -> None:
        """Drop all audio that the caller has not heard yet, in our outbox and in the carrier's buffer."""
        now = self._now()
        self._marks.cleared()
        self._held = _NOTHING
        self._tone_until = 0.0
        self._playout.cleared(now)
        self.outbox.replace_all(self._codec.clear())
        if self._marks.is_stuck:
            # The outbox was emptied, maybe including a probe.
            self._put_mark(self._marks.probe(now))

    def play_tones(self, digits: str) -> bool:
        """See `Bridge.play_tones`."""
        now = self._now()
        tones = [dtmf.tone(digit, rate=self._rate) for digit in digits]
        seconds = [len(pcm) / self._rate for pcm in tones]
        if max(0.0, self._tone_until - now) + sum(seconds[:-1]) > MAX_TONES * seconds[0]:
            return False
        if self.outbox.tones > MAX_TONES:  # The socket is blocked.
            return False
        for pcm, lasts in zip(tones, seconds, strict=True):
            self._playout.sent(now, lasts)
            self.outbox.put_tone(self._codec.audio(self._coding.encode(pcm)))
        self._tone_until = now + self._playout.ahead(now)
        return True
