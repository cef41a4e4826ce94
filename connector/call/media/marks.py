"""What the carrier's returned marks tell of the way to the caller. Pure: the time is passed in, in seconds.

A mark comes back when playback has reached it. Playback is in order, so a mark that is back settles those before it,
also when they were lost. None back for `UNHEARD` seconds may mean two things: that the path is stuck (a proxy between
us and the carrier takes in minutes of audio, so the socket does not tell), or that marks were lost. So before anything
is thrown away, more marks are sent; then a probe, a mark behind a `clear`, decides; and it is repeated, and given up.
"""

from __future__ import annotations

from enum import Enum, auto
from itertools import islice

MARK_EVERY = 1.0
"""Seconds of sent audio between two marks."""
UNHEARD = 2.0
"""Seconds a mark may be away before the path counts as stuck, where the carrier has returned some."""
_LONGEST_UNHEARD = 60.0
_ASKS = 4
"""Further marks that must be missing too."""
_ASK_AFTER, _ASK_EVERY, _ASK_WAIT = 0.5, 0.075, 0.4
"""When the first of them is sent, the distance between them, and how long the last is waited for; in `UNHEARD`s."""
PROBE_EVERY = 0.5
"""Seconds until a probe is repeated that the socket has taken."""
PROBE_FOR = 2.0
"""Seconds, not counting those in which the socket takes nothing. Then the carrier counts as one that returns no marks:
silence for a caller who could hear is worse than a delay."""
_MOST_OUT = 64
"""Marks that are remembered, of a carrier that returns none."""


class Step(Enum):
    """What is to be done before the next audio is sent."""

    SEND = auto()
    ASK = auto()
    """Put a mark, then send."""
    START_OVER = auto()
    """The path is stuck: put a `clear` and a mark, and send nothing."""
    PROBE = auto()
    """Put another mark, and send nothing."""
    WAIT = auto()
    """Send nothing."""
    GIVE_UP = auto()
    """No probe came back: send from now on."""


class Returned(Enum):
    """What a mark that came back means."""

    NOTHING = auto()
    PLAYED = auto()
    PROBED = auto()
    """The path is free again."""
    OVERDUE = auto()
    """The path was stuck after all, and what was sent since the probes were given up has come all at once."""


class Marks:
    """The marks that are under way, and whether the path is open."""

    def __init__(self) -> None:
        self._made = 0
        self._unmarked = 0.0
        self._out: dict[str, float] = {}
        """Name to the time of sending, oldest first."""
        self._probes: dict[str, float] = {}
        """Marks behind a `clear`: while there are any, the path counts as stuck."""
        self._last = float("-inf")
        """When the last ask or probe was sent, or was seen to wait for the socket."""
        self._asks = 0
        self._give_up_at = self._looked = 0.0
        self._returns = False
        self._given_up = False
        self._unheard = UNHEARD
        self.lag = 0.0
        """Seconds from the sending of the last mark that was `PLAYED` to its return."""

    @property
    def is_stuck(self) -> bool:
        return bool(self._probes)

    def sent(self, seconds: float) -> bool:
        """So much audio has been sent; whether a mark is due behind it."""
        self._unmarked += seconds
        return self._unmarked >= MARK_EVERY

    def mark(self, now: float) -> str:
        """The name of a new mark, which is sent now."""
        name = self._name()
        self._unmarked = 0.0
        self._out[name] = now
        if len(self._out) > _MOST_OUT:
            del self._out[next(iter(self._out))]
        return name

    def probe(self, now: float) -> str:
        """The name of a mark behind a `clear`, which is sent now; the marks before the `clear` are forgotten."""
        self._out.clear()
        self._asks = 0
        self._last = now
        name = self._name()
        self._probes[name] = now
        return name

    def _name(self) -> str:
        self._made += 1
        return f"lag-{self._made}"

    def next_step(self, now: float, is_taken: bool) -> Step:
        """Before audio is sent. `is_taken`: the socket has taken all that was put so far."""
        if self._probes:
            return self._next_probe(now, is_taken)
        if not self._returns or not self._out:
            return Step.SEND
        unheard = now - next(iter(self._out.values()))
        asked = now - self._last
        if unheard < self._unheard * _ASK_AFTER or asked < self._unheard * _ASK_EVERY:
            return Step.SEND
        if self._asks < _ASKS:
            self._asks += 1
            self._last = now
            return Step.ASK
        if unheard <= self._unheard or asked < self._unheard * _ASK_WAIT:
            return Step.SEND
        self._give_up_at, self._looked = now + PROBE_FOR, now
        return Step.START_OVER

    def _next_probe(self, now: float, is_taken: bool) -> Step:
        if not is_taken:
            self._give_up_at += now - self._looked
            self._last = now
        self._looked = now
        if now < self._give_up_at:
            return Step.PROBE if now - self._last >= PROBE_EVERY else Step.WAIT
        # From here on nothing is concluded from marks until one is back; and then more patience is needed.
        self._out, self._probes = self._probes, {}
        self._returns, self._given_up = False, True
        self._unheard = min(2 * self._unheard, _LONGEST_UNHEARD)
        return Step.GIVE_UP

    def returned(self, name: str, now: float) -> Returned:
        """The carrier's playback has reached a mark."""
        if name in self._probes:
            self._probes.clear()
            self._returns = True
            return Returned.PROBED
        sent = self._out.get(name)
        if sent is None:
            return Returned.NOTHING
        settled = list(self._out).index(name) + 1
        for each in list(islice(self._out, settled)):
            del self._out[each]
        self._asks = 0
        self._returns = True
        self.lag = now - sent
        given_up, self._given_up = self._given_up, False
        return Returned.OVERDUE if given_up and self.lag > UNHEARD else Returned.PLAYED

    def cleared(self) -> None:
        """The carrier has been told to drop what it holds: it returns the marks in it, which measure nothing."""
        self._out.clear()
        self._asks = 0
