"""How the crash demo measures the gap, without a call."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from carrier_simulator import CarrierError, Fault
from demo import script
from demo.crash import LONGEST_GAP, Crash, _silence_around, judge_crash
from demo.scene import RATE


def tone(seconds: float) -> NDArray[np.int16]:
    return np.round(8000 * np.sin(2 * np.pi * 440 * np.arange(round(seconds * RATE)) / RATE)).astype(np.int16)


def silence(seconds: float) -> NDArray[np.int16]:
    return np.zeros(round(seconds * RATE), np.int16)


def a_crash(silent_until: float = 2.5) -> Crash:
    said = np.concatenate((silence(4), script.sentence()))
    heard = np.concatenate((tone(1), silence(3.1), script.sentence(), silence(1)))
    return Crash("Twilio", said, heard, 2.0, 2.1, silent_until, 4 * RATE, (), "completed")


def failed(crash: Crash) -> list[str]:
    return [check.name for check in judge_crash(crash) if not check.passed]


def test_a_short_gap_and_an_echo_pass() -> None:
    assert failed(a_crash()) == []


def test_a_gap_of_two_seconds_fails() -> None:
    assert failed(a_crash(2.2 + LONGEST_GAP)) == ["the caller heard a gap of less than 2 s"]


def test_silence_after_the_return_fails() -> None:
    crash = a_crash()
    assert failed(replace(crash, heard=np.zeros_like(crash.heard))) == [
        "caller and agent talk on: the caller heard the echo"
    ]


@pytest.mark.parametrize(("code", "fails"), [(Fault.STREAM_CLOSED, False), (Fault.HTTP_RETRIEVAL, True)])
def test_the_carrier_may_complain_of_the_broken_socket_only(code: Fault, fails: bool) -> None:
    assert bool(failed(replace(a_crash(), errors=(CarrierError(code, "told"),)))) is fails


def test_the_gap_is_the_longest_silence_around_the_kill() -> None:
    heard = np.concatenate((tone(1), silence(0.4), tone(1), silence(0.7), tone(1)))
    begins, ends = _silence_around(heard, 2.3)
    assert (begins, ends) == pytest.approx((2.4, 3.1), abs=0.04)


def test_a_phone_that_hears_nothing_more_has_a_gap_up_to_the_end() -> None:
    _, ends = _silence_around(np.concatenate((tone(1), silence(4))), 1.0)
    assert ends == pytest.approx(5.0, abs=0.04)
