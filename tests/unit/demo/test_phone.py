from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from connector.demo.carrier.phone import RATE, SILENCE, Ear, Mouth


def at(sample: int) -> float:
    return 1000.0 + sample / RATE


def test_the_mouth_says_what_waits_and_then_silence() -> None:
    mouth = Mouth()
    mouth.say(b"abc")
    mouth.say(b"de")
    assert [mouth.next(2), mouth.next(2), mouth.next(2)] == [b"ab", b"cd", b"e" + SILENCE]
    assert mouth.waiting == 0


def test_audio_is_heard_from_the_sample_at_which_it_arrives() -> None:
    ear = Ear(at(0))
    ear.receive(at(100), b"x" * 50)
    ear.advance(at(200))
    assert bytes(ear.heard) == SILENCE * 100 + b"x" * 50 + SILENCE * 50


def test_audio_that_arrives_early_waits_for_its_turn() -> None:
    ear = Ear(at(0))
    ear.receive(at(0), b"a" * 100)
    ear.receive(at(10), b"b" * 100)
    ear.advance(at(250))
    assert bytes(ear.heard) == b"a" * 100 + b"b" * 100 + SILENCE * 50


def test_a_mark_is_reached_when_what_came_before_it_has_been_played() -> None:
    ear = Ear(at(0))
    ear.receive(at(0), b"a" * 100)
    ear.mark(at(0), "end of a")
    ear.receive(at(0), b"b" * 100)
    assert ear.next_mark_at() == at(100)
    ear.advance(at(99))
    assert not ear.reached
    ear.advance(at(100))
    assert list(ear.reached) == ["end of a"]
    assert ear.next_mark_at() is None


def test_a_mark_with_nothing_before_it_is_reached_at_once() -> None:
    ear = Ear(at(0))
    ear.mark(at(5), "now")
    assert list(ear.reached) == ["now"]


def test_clear_drops_the_audio_and_returns_the_marks_in_order() -> None:
    ear = Ear(at(0))
    ear.receive(at(0), b"a" * 100)
    ear.mark(at(0), "one")
    ear.receive(at(0), b"b" * 100)
    ear.mark(at(0), "two")
    ear.clear(at(30))
    ear.advance(at(60))
    assert list(ear.reached) == ["one", "two"]
    assert bytes(ear.heard) == b"a" * 30 + SILENCE * 30


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 300))))
def test_every_sample_is_heard_once_and_in_order(arrivals: list[tuple[int, int]]) -> None:
    ear, sent, now = Ear(at(0)), bytearray(), 0
    for gap, length in arrivals:
        now += gap
        audio = bytes((len(sent) + index) % 251 for index in range(length))
        sent += audio
        ear.receive(at(now), audio)
        assert len(ear.heard) == now
    ear.advance(at(now + len(sent)))
    assert bytes(ear.heard).replace(SILENCE, b"") == bytes(sent)
