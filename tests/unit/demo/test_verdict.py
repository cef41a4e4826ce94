from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from carrier_simulator import CarrierError, Fault
from demo import script
from demo.scene import RATE, Recording
from demo.timeline import Timeline
from demo.verdict import judge

SAID_AT = 5 * RATE


def recording() -> Recording:
    """A good call: greeted at 0.1 s, the sentence said at 5 s and back after 130 ms."""
    sentence, greeting = script.sentence(), script.greeting()
    said, heard = np.zeros(11 * RATE, np.int16), np.zeros(11 * RATE, np.int16)
    said[SAID_AT : SAID_AT + len(sentence)] = sentence
    heard[800 : 800 + len(greeting)] = greeting
    back = SAID_AT + round(0.13 * RATE)
    heard[back : back + len(sentence)] = sentence // 2
    return Recording("Twilio", said, heard, SAID_AT, True, "CONNECTOR", "1", "5", (), "completed")


def failed(call: Recording) -> list[str]:
    return [check.name for check in judge(call).checks if not check.passed]


def test_a_good_call_passes() -> None:
    verdict = judge(recording())
    assert verdict.passed
    assert verdict.echo.delay_seconds == pytest.approx(0.13, abs=0.001)
    assert verdict.greeting.delay_seconds == pytest.approx(0.1, abs=0.001)


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"hidden_while_ringing": False}, "hidden until the answer"),
        ({"kind": "STANDARD"}, "hidden until the answer"),
        ({"digit_in_room": "2"}, "the room got the caller's key"),
        ({"tone_on_phone": ""}, "the caller heard the agent's key"),
        ({"status": "failed"}, "Twilio completed the call without errors"),
        (
            {"errors": (CarrierError(Fault.STREAM_MESSAGE, "not JSON"),)},
            "Twilio completed the call without errors",
        ),
    ],
)
def test_each_thing_that_went_wrong_fails(change: dict[str, object], name: str) -> None:
    assert failed(replace(recording(), **change)) == [name]  # type: ignore[arg-type]


def test_silence_fails_however_good_the_rest() -> None:
    call = recording()
    silent = replace(call, heard=np.zeros_like(call.heard))
    assert failed(silent) == ["the caller heard the greeting", "the caller heard the echo"]


def test_loud_sound_that_is_not_the_sentence_fails() -> None:
    call = recording()
    heard = call.heard.copy()
    greeting = script.greeting()
    heard[SAID_AT:] = 0
    heard[SAID_AT : SAID_AT + len(greeting)] = greeting
    assert failed(replace(call, heard=heard)) == ["the caller heard the echo"]


def test_an_echo_that_comes_much_too_late_fails() -> None:
    call = recording()
    late = np.concatenate([call.heard[:SAID_AT], np.zeros(2 * RATE, np.int16), call.heard[SAID_AT:]])
    assert failed(replace(call, heard=late)) == ["the caller heard the echo"]


@pytest.mark.parametrize("half", ["first", "second"])
def test_half_a_sentence_fails(half: str) -> None:
    call = recording()
    heard = call.heard.copy()
    middle = SAID_AT + round(0.13 * RATE) + len(script.sentence()) // 2
    if half == "first":
        heard[middle:] = 0
    else:
        heard[SAID_AT:middle] = 0
    assert failed(replace(call, heard=heard)) == ["the caller heard the echo"]


def test_a_sentence_torn_apart_fails() -> None:
    call = recording()
    middle = SAID_AT + round(0.13 * RATE) + len(script.sentence()) // 2
    torn = np.concatenate([call.heard[:middle], np.zeros(RATE // 2, np.int16), call.heard[middle:]])
    assert failed(replace(call, heard=torn)) == ["the caller heard the echo"]


def test_a_sentence_with_a_frame_lost_now_and_then_passes() -> None:
    call = recording()
    heard = call.heard.copy()
    for start in range(SAID_AT, len(heard), RATE // 5):
        heard[start : start + 160] = 0
    assert not failed(replace(call, heard=heard))


def test_the_timeline_counts_from_its_beginning() -> None:
    out = io.StringIO()
    timeline = Timeline(Console(file=out, width=40))
    with pytest.raises(RuntimeError):
        timeline.show("room", "too early")
    timeline.begin()
    assert timeline._began is not None
    timeline.show("room", "a caller [with] a name that is longer than the line", timeline._began + 1.234)
    assert out.getvalue() == "  1,234 ms  room   a caller [with] a name that is longer than the line\n"
