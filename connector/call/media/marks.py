"""Detects from the carrier's returned marks whether audio reaches the caller. Pure: the time in seconds is a parameter.

A mark returns when playback has reached it. Playback is in order, so a returned mark also settles all earlier marks,
even lost ones. If no mark returns for `UNHEARD` seconds, there are two possible causes: the path is stuck (a proxy
between us and the carrier can buffer minutes of audio, so the socket does not block), or marks were lost. So we first
send more marks before any audio is dropped. If they do not return either, we send a probe (a mark behind a `clear`),
repeat it, and give up after `PROBE_FOR` seconds.
"""

from __future__ import annotations

from enum import Enum, auto
from itertools import islice

MARK_EVERY = 1.0
"""Seconds of sent audio between two marks."""
UNHEARD = 2.0
"""Seconds without a returned mark after which the path counts as stuck, if the carrier has returned marks before."""
_LONGEST_UNHEARD = 60.0
_ASKS = 4
"""Number of further marks that must also be missing before the path counts as stuck."""
_ASK_AFTER, _ASK_EVERY, _ASK_WAIT = 0.5, 0.075, 0.4
"""Time of the first further mark, interval between them, and wait for the last; as factors of the `UNHEARD` limit."""
PROBE_EVERY = 0.5
"""Seconds after which a probe is repeated, if the socket has taken the last one."""
PROBE_FOR = 2.0
"""Seconds of probing, not counting time in which the socket is blocked. After that we assume that the carrier returns
no marks and send audio again: silence for a caller who could hear is worse than a delay."""
_MOST_OUT = 64
"""Maximum number of outstanding marks in memory, for carriers that return none."""


class Step(Enum):
    """What the sender has to do before it sends more audio."""

    SEND = auto()
    ASK = auto()
    """Send a mark, then the audio."""
    START_OVER = auto()
    """The path is stuck: send a `clear` and a probe, but no audio."""
    PROBE = auto()
    """Send another probe, but no audio."""
    WAIT = auto()
    """Send no audio."""
    GIVE_UP = auto()
    """No probe returned: send audio from now on."""


class Returned(Enum):
    """Meaning of a returned mark."""

    NOTHING = auto()
    PLAYED = auto()
    PROBED = auto()
    """The path is free again."""
    OVERDUE = auto()
    """The path was stuck after all: the audio sent since `GIVE_UP` has reached the carrier all at once."""


class Marks:
    """The outstanding marks of one stream, and whether its path is stuck."""

    def __init__(self) -> None:
        self._made = 0
        self._unmarked = 0.0
        self._out: dict[str, float] = {}
        """Outstanding marks: name to time of sending, oldest first."""
        self._probes: dict[str, float] = {}
        """Outstanding probes: name to time of sending. While there are any, the path counts as stuck."""
        self._last = float("-inf")
        """Time at which the last ask or probe was sent, or was last seen waiting for the socket."""
        self._asks = 0
        self._give_up_at = self._looked = 0.0
        self._returns = False
        self._given_up = False
        self._unheard = UNHEARD
        self.lag = 0.0
        """Seconds from sending to return of the last mark that was `PLAYED` or `OVERDUE`."""

    @property
    def is_stuck(self) -> bool:
        return bool(self._probes)

    def sent(self, seconds: float) -> bool:
        """Count `seconds` of sent audio. Returns True if a mark is due behind it."""
        self._unmarked += seconds
        return self._unmarked >= MARK_EVERY

    def mark(self, now: float) -> str:
        """Register a new mark, sent now. Returns its name."""
        name = self._name()
        self._unmarked = 0.0
        self._out[name] = now
        if len(self._out) > _MOST_OUT:
            del self._out[next(iter(self._out))]
        return name

    def probe(self, now: float) -> str:
        """Register a new probe, sent now. Returns its name. The marks before its `clear` are forgotten."""
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
        """Call this before audio is sent. `is_taken`: the socket has taken all messages so far."""
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
        # Ignore missing marks until one returns, and then wait longer before the path counts as stuck.
        self._out, self._probes = self._probes, {}
        self._returns, self._given_up = False, True
        self._unheard = min(2 * self._unheard, _LONGEST_UNHEARD)
        return Step.GIVE_UP

    def returned(self, name: str, now: float) -> Returned:
        """Handle a mark that the carrier has returned."""
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
        """Forget the marks after a `clear`. The carrier returns the marks of dropped audio too, but they do not measure
        the delay."""
        self._out.clear()
        self._asks = 0
