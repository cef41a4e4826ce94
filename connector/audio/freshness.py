"""Measures the lateness of audio, and the audio buffered at the far end. Time is passed in, as float seconds."""

from __future__ import annotations

from connector.audio.minimum import SlidingMinimum

_WINDOW = 2.0
"""Seconds for which the frame with the shortest transit is the reference for the others."""
_LONGEST_GAP = 1.0
"""Maximum seconds that a pause between two frames counts. After a stall, the frames from before it must stay the
reference for a second; otherwise the delayed frames would count as new."""


class TransitClock:
    """Measures the lateness of frames that carry a timestamp of the sender.

    The two clocks are not synchronised and may drift, so only differences count. Lateness is the transit of a
    frame (arrival minus timestamp) minus the shortest transit of the last 2 s. A lasting change (a longer path,
    a restarted sender clock) therefore counts as lateness for 2 s, and is the new reference from then on.
    """

    def __init__(self) -> None:
        self._shortest = SlidingMinimum(_WINDOW)
        self._age = 0.0
        """Time elapsed between arrivals, with each pause limited to `_LONGEST_GAP`."""
        self._last_arrival = float("inf")

    def lateness(self, arrived: float, timestamp: float) -> float:
        """Lateness in seconds, never negative. `arrived`: our clock, never decreasing; `timestamp`: the sender's."""
        self._age += min(max(0.0, arrived - self._last_arrival), _LONGEST_GAP)
        self._last_arrival = arrived
        transit = arrived - timestamp
        return transit - self._shortest.of(self._age, transit)


class PlayoutClock:
    """Estimates the audio buffered at a far end that plays in order and in real time, and reports nothing.

    A model, not a measurement: the carrier starts to play a little after we have sent.
    """

    def __init__(self) -> None:
        self.ends_at = float("-inf")
        """Time at which the far end's buffer becomes, or became, empty."""

    def ahead(self, now: float) -> float:
        """Seconds of audio sent and not yet played; 0.0 when the far end's buffer is empty."""
        return max(0.0, self.ends_at - now)

    def sent(self, now: float, duration: float) -> None:
        """`duration` seconds of audio have just been sent."""
        self.ends_at = max(self.ends_at, now) + duration

    def cleared(self, now: float) -> None:
        """The far end has been told to clear its buffer."""
        self.ends_at = now
