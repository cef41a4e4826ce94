"""How late audio is, and how much of it waits at the far end. The time is passed in, as float seconds."""

from __future__ import annotations

from connector.audio.minimum import SlidingMinimum

_WINDOW = 2.0
"""Seconds for which the quickest frame stays the measure for the others."""
_LONGEST_GAP = 1.0
"""Seconds that a pause between two frames counts for at most: after a stall the frames from before it must
still be the measure for a second, or all that was held up would pass for new."""


class TransitClock:
    """How late a frame is that carries its sender's timestamp.

    The two clocks do not show the same time and may drift apart, so only differences count: a frame is as
    late as its transit (arrival minus timestamp) exceeds the shortest transit of the last 2 s. A lasting
    change (a longer path, a sender that starts to count anew) thus counts as lateness for 2 s and is the new
    normal from then on.
    """

    def __init__(self) -> None:
        self._shortest = SlidingMinimum(_WINDOW)
        self._age = 0.0
        """Time as the arrivals measure it, with pauses cut short."""
        self._last_arrival = float("inf")

    def lateness(self, arrived: float, timestamp: float) -> float:
        """Seconds, never negative. `arrived` on our clock and never falling, `timestamp` on the sender's."""
        self._age += min(max(0.0, arrived - self._last_arrival), _LONGEST_GAP)
        self._last_arrival = arrived
        transit = arrived - timestamp
        return transit - self._shortest.of(self._age, transit)


class PlayoutClock:
    """How much audio waits at a far end that plays what it is sent in order, in real time, without asking.

    A model, not a measurement: the carrier starts to play a little later than we have sent.
    """

    def __init__(self) -> None:
        self.ends_at = float("-inf")
        """When the far end runs dry, or ran."""

    def ahead(self, now: float) -> float:
        """Seconds of audio sent and not yet played; 0.0 when the far end has run dry."""
        return max(0.0, self.ends_at - now)

    def sent(self, now: float, duration: float) -> None:
        """`duration` seconds of audio have just been sent."""
        self.ends_at = max(self.ends_at, now) + duration

    def cleared(self, now: float) -> None:
        """The far end has been told to drop what it holds."""
        self.ends_at = now
