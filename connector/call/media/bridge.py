"""The audio path of one call, both ways. Everything here runs synchronously on the event loop.

::

    carrier ─ in order ─ decode ─ too old? drop ─ too much at once? wait ─ 10 ms pieces ─▶ room.capture
    room ─ stale? drop ─ mix ─ silent? skip ─ stuck? drop ─ encode ─▶ outbox ─▶ carrier

The first line is implemented in `connector.call.media.from_carrier`, the second in `connector.call.media.to_carrier`.
The carrier chooses the sample rate and the encoding of the stream; see `connector.call.media.coding`.
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
"""Default format, used until the stream starts and names its own."""


class Bridge:
    """Carries audio between a codec's messages and a room. It owns neither a task nor a socket."""

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
        """`later`: the event loop's `call_later`. `max_age`: maximum age of the caller's audio, in seconds."""
        self._dropped = metrics.dropped
        self._frames_out = metrics.frames.labels("to_carrier")
        self._lag = metrics.playback_lag
        # Callbacks from the room run without the log context of the call.
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
        """Set the audio formats of a stream that has started. Call this before `open_to_carrier`.

        `heard`: format of the audio from the carrier. `said`: format of the audio to the carrier. Raises
        CarrierProtocolError if a format is not supported."""
        self._from_carrier.start(heard)
        self._to_carrier.start(said)

    def open_to_carrier(self) -> None:
        """Start to send the room's audio to the phone. Call this when the room can see the caller."""
        self._to_carrier.is_open = True

    def open_from_carrier(self, keep: float = FIRST_WORDS) -> None:
        """Start to send the caller's audio to the room: first the newest `keep` seconds since the start of the stream,
        then live audio. Call this when the room can hear the caller."""
        self._from_carrier.open(keep)

    def close(self) -> None:
        """Stop the audio in both directions."""
        self._from_carrier.close()
        self._to_carrier.is_open = False

    def count_from(self, former: Bridge) -> None:
        """Add the counts of the call's former bridge, after the end of its stream."""
        self._from_carrier.heard_frames += former.heard_frames
        self.sent_frames += former.sent_frames
        self.dropped_frames += former.dropped_frames

    # Carrier → room

    def from_carrier(self, audio: AudioReceived) -> None:
        """Handle one message of the caller's audio, of any length."""
        self._from_carrier.receive(audio)

    def rejected(self, why: str) -> None:
        """Count a frame that the codec has refused (bad base64, another track …)."""
        self._drop("from_carrier", why)

    # Room → carrier

    def source_added(self, source: str) -> None:
        self._to_carrier.source_added(source)

    def source_removed(self, source: str) -> None:
        self._to_carrier.source_removed(source)

    def from_room(self, source: str, pcm: NDArray[int16], at: float) -> None:
        """Send 20 ms of one track: int16 at the carrier's rate. `at`: time at which it left WebRTC, by our clock."""
        self._to_carrier.from_room(source, pcm, at)

    def mark_reached(self, name: str) -> float | None:
        """Handle a mark that the carrier's playback has reached. Returns the seconds since it was sent, or None if the
        mark does not measure the delay."""
        lag = self._to_carrier.mark_reached(name)
        if lag is not None:
            self._lag.observe(lag)
        return lag

    def clear(self) -> None:
        """Drop all audio that the caller has not heard yet, in our outbox and in the carrier's buffer."""
        self._to_carrier.clear()

    def play_tones(self, digits: str) -> bool:
        """Play DTMF digits to the caller, in-band. Returns False and plays none if too many would wait.

        The room is muted during the tones: a detector needs the two frequencies without other sound.
        """
        return self._to_carrier.play_tones(digits)

    def last_words(self, on_played: Callable[[], None]) -> float:
        """Send the rest of the room's audio and a mark; `on_played` is called when the mark returns. Returns the
        estimated seconds until all audio has been played, or 0.0 if none is left or the path is stuck."""
        return self._to_carrier.last_words(on_played)

    def _on_sent(self) -> None:
        self._frames_out.inc()
        self.sent_frames += 1

    def _drop(self, path: str, why: str) -> None:
        self._dropped.labels(path, why).inc()
        self.dropped_frames += 1

    def collect_drops(self) -> None:
        """Count the frames that the room's SDK has dropped since this method was last called."""
        self._from_carrier.collect_drops()
