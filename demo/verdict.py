"""Checks whether the demo's call succeeded. Sound is compared by waveform, not by loudness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from demo import script
from demo.compare import Match, find_delay
from demo.scene import AGENTS_KEY, CALLERS_KEY, RATE, Recording

GOOD_SCORE = 0.45
"""Minimum score of the worse half. Speech through μ-law, Opus and back scores above 0.8, and above 0.6 on a machine too
busy to deliver every frame; other speech, even the same words in another voice, stays below 0.3."""
_APART = 0.15
"""Maximum deviation of a half from its expected position, in seconds."""
LONGEST_DELAY = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    name: str
    passed: bool
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    checks: Sequence[Check]
    greeting: Match
    """Position of the agent's greeting in `heard`."""
    echo: Match
    """Delay between the caller's sentence and its echo."""

    @property
    def passed(self) -> bool:
        return all(check.passed for check in self.checks)


def find_whole(reference: NDArray[np.int16], heard: NDArray[np.int16]) -> Match:
    """Finds the whole `reference`. The score is the lower of its halves, each searched at its expected position."""
    whole = find_delay(reference, heard, RATE)
    begins, middle, slack = round(whole.delay_seconds * RATE), len(reference) // 2, round(_APART * RATE)
    scores = []
    for start, half in ((begins, reference[:middle]), (begins + middle, reference[middle:])):
        earliest = max(0, start - slack)
        found = find_delay(half, heard[earliest : start + len(half) + slack], RATE)
        off = earliest / RATE + found.delay_seconds - start / RATE
        scores.append(found.score if abs(off) <= _APART else 0.0)
    return Match(whole.delay_seconds, min(scores))


def judge(recording: Recording) -> Verdict:
    greeting = find_whole(script.greeting(), recording.heard)
    echo = find_whole(script.sentence(), recording.heard[recording.sentence_at :])
    delayed = f"match {echo.score:.2f}, {echo.delay_seconds * 1000:.0f} ms after it was said"
    wrong = "; ".join(f"{int(error.code)} {error.message}" for error in recording.errors) or "no errors"
    checks = (
        Check(
            "hidden until the answer",
            recording.hidden_while_ringing and recording.kind == "CONNECTOR",
            f"kind {recording.kind}",
        ),
        Check("the caller heard the greeting", greeting.score >= GOOD_SCORE, f"match {greeting.score:.2f}"),
        Check(
            "the caller heard the echo",
            echo.score >= GOOD_SCORE and 0 < echo.delay_seconds < LONGEST_DELAY,
            delayed,
        ),
        Check("the room got the caller's key", recording.digit_in_room == CALLERS_KEY, recording.digit_in_room),
        Check(
            "the caller heard the agent's key",
            recording.tone_on_phone == AGENTS_KEY,
            recording.tone_on_phone or "nothing",
        ),
        Check(
            f"{recording.carrier} completed the call without errors",
            recording.status == "completed" and not recording.errors,
            f"{recording.status}, {wrong}",
        ),
    )
    return Verdict(checks, greeting, echo)
