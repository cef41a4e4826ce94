"""The audio path of one call, both ways. Everything here runs synchronously on the event loop.

::

    carrier ─ in order ─ decode ─ too old? drop ─ too much at once? wait ─ 10 ms pieces ─▶ room.capture
    room ─ stale? drop ─ mix ─ silent? skip ─ stuck? drop ─ encode ─▶ outbox ─▶ carrier

The first line is `connector.call.media.from_carrier`, the second `connector.call.media.to_carrier`. At the rate and in
the encoding that the carrier has chosen for the stream; see `connector.call.media.coding`.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog
from numpy import int16
from numpy.typing import NDArray

from connector.call.media.from_carrier import FIRST_WORDS, MAX_AUDIO_AGE, CallerVoice, FromCarrier, Later, Now
from connector.call.media.outbox import Outbox
from connector.call.media.to_carrier import ToCarrier
from connector.carriers.codec import Codec, MediaFormat
from connector.carriers.events import AudioReceived, Encoding
from connector.metrics import Metrics

TELEPHONE = MediaFormat(Encoding.MULAW, 8000)
"""What a stream is until it has started and said otherwise."""


class Bridge:
    """Carries audio between a codec's messages and a room; owns no task and no socket."""

    def __init__(
        self,
        codec: Codec,
        room: CallerVoice,
        metrics: Metrics,
        now: Now,
        later: Later,
        max_age: float = MAX_AUDIO_AGE,
        call_id: str = "",
    ) -> None:
        """`later` is the event loop's `call_later`; `max_age`: seconds that the caller's voice may be late."""
        self._dropped = metrics.dropped
        self._frames_out = metrics.frames.labels("to_carrier")
        self._lag = metrics.playback_lag
        # What comes from a room comes without the context of its call.
        log = structlog.get_logger().bind(call_id=call_id)
        self._from_carrier = FromCarrier(room, TELEPHONE, now, later, self._drop, metrics, max_age)
        self._to_carrier = ToCarrier(codec, TELEPHONE, now, self._drop, self._on_sent, log)
        self.sent_frames = 0
        self.dropped_frames = 0

    @property
    def outbox(self) -> Outbox:
        return self._to_carrier.outbox

    @property
    def heard_frames(self) -> int:
        return self._from_carrier.heard_frames

    def start(self, heard: MediaFormat, said: MediaFormat) -> None:
        """The stream has started: what its audio is, from the carrier and to it. Before `open_to_carrier`.

        CarrierProtocolError for a format that cannot be carried."""
        self._from_carrier.start(heard)
        self._to_carrier.start(said)

    def open_to_carrier(self) -> None:
        """The room can see the caller: from now on the phone hears what it says."""
        self._to_carrier.is_open = True

    def open_from_carrier(self, keep: float = FIRST_WORDS) -> None:
        """The room can hear the caller: let through what is said, and first the newest `keep` seconds of what was said
        since the stream began."""
        self._from_carrier.open(keep)

    def close(self) -> None:
        """Let nothing more through."""
        self._from_carrier.close()
        self._to_carrier.is_open = False

    def count_from(self, former: Bridge) -> None:
        """Of the same call, whose stream is over."""
        self._from_carrier.heard_frames += former.heard_frames
        self.sent_frames += former.sent_frames
        self.dropped_frames += former.dropped_frames

    # Carrier → room

    def from_carrier(self, audio: AudioReceived) -> None:
        """One message of the caller's voice, of any length."""
        self._from_carrier.receive(audio)

    def rejected(self, why: str) -> None:
        """The codec refused a frame (bad base64, another track …)."""
        self._drop("from_carrier", why)

    # Room → carrier

    def source_added(self, source: str) -> None:
        self._to_carrier.source_added(source)

    def source_removed(self, source: str) -> None:
        self._to_carrier.source_removed(source)

    def from_room(self, source: str, pcm: NDArray[int16], at: float) -> None:
        """20 ms of one track, int16 at the rate that the carrier is sent; `at`: when it left WebRTC, by our clock."""
        self._to_carrier.from_room(source, pcm, at)

    def mark_reached(self, name: str) -> float | None:
        """The carrier's playback reached a mark; the seconds since it was sent, None for one that measures nothing."""
        lag = self._to_carrier.mark_reached(name)
        if lag is not None:
            self._lag.observe(lag)
        return lag

    def clear(self) -> None:
        """Drop what the caller has not heard yet, here and at the carrier."""
        self._to_carrier.clear()

    def play_tones(self, digits: str) -> bool:
        """Play DTMF digits to the caller, in the band. False, and none is played, when too many would wait.

        The room is not mixed in while the tones last: a detector wants the two frequencies alone.
        """
        return self._to_carrier.play_tones(digits)

    def last_words(self, on_played: Callable[[], None]) -> float:
        """Send what is left to be sent of the room, and a mark: `on_played` is called when it is back. Returns the
        seconds after which all has been played by our reckoning; 0.0 when there is nothing, or no way."""
        return self._to_carrier.last_words(on_played)

    def _on_sent(self) -> None:
        self._frames_out.inc()
        self.sent_frames += 1

    def _drop(self, path: str, why: str) -> None:
        self._dropped.labels(path, why).inc()
        self.dropped_frames += 1

    def collect_drops(self) -> None:
        """Count what the room's side dropped by itself since the last call."""
        self._from_carrier.collect_drops()
