from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from numpy.typing import NDArray

from connector.audio.mixer import Mixer

SAMPLES = 160
Pcm = NDArray[np.int16]


def frame(value: int) -> Pcm:
    return np.full(SAMPLES, value, np.int16)


def values(frames: list[Pcm]) -> list[int]:
    """What each frame consists of; they are all of one value here."""
    assert all(np.all(each == each[0]) for each in frames)
    return [int(each[0]) for each in frames]


def mixer_of(*sources: str) -> Mixer:
    mixer = Mixer(SAMPLES)
    for source in sources:
        mixer.add(source)
    return mixer


def waiting(mixer: Mixer, source: str) -> int:
    """Number of queued frames of a source: so many are dropped if it leaves now. Read where they are, since the state
    machine asks thousands of times."""
    return len(mixer._queues.get(source, ()))


class TestOneSource:
    def test_goes_straight_through(self) -> None:
        mixer = mixer_of("a")
        for value in range(5):
            given_in = frame(value)
            assert mixer.push("a", given_in)[0] is given_in
        assert waiting(mixer, "a") == 0

    def test_goes_straight_through_again_when_the_others_have_left(self) -> None:
        mixer = mixer_of("a", "b")
        mixer.push("b", frame(9))
        mixer.remove("b")
        assert values(mixer.push("a", frame(1))) == [1]


class TestSeveralSources:
    def test_are_added_up_as_soon_as_all_have_spoken(self) -> None:
        mixer = mixer_of("a", "b", "c")
        assert mixer.push("a", frame(1)) == []
        assert mixer.push("c", frame(100)) == []
        assert values(mixer.push("b", frame(10))) == [111]

    def test_one_that_stopped_costs_the_others_one_frame_once(self) -> None:
        mixer = mixer_of("a", "b", "gone")
        sent = []
        for n in range(1, 6):
            sent += mixer.push("a", frame(n))
            sent += mixer.push("b", frame(10 * n))
        assert values(sent) == [11, 22, 33, 44, 55]
        assert (waiting(mixer, "a"), waiting(mixer, "b")) == (0, 0)

    def test_one_alone_among_silent_ones_catches_up(self) -> None:
        mixer = mixer_of("a", "silent")
        assert [values(mixer.push("a", frame(n))) for n in range(4)] == [[], [0, 1], [2], [3]]

    def test_one_that_was_left_out_is_waited_for_again_when_it_speaks(self) -> None:
        mixer = mixer_of("a", "b")
        mixer.push("a", frame(1))
        mixer.push("a", frame(2))
        assert mixer.push("b", frame(10)) == []
        assert values(mixer.push("a", frame(3))) == [13]
        assert mixer.push("a", frame(4)) == []
        assert values(mixer.push("b", frame(20))) == [24]

    def test_what_waited_for_one_that_left_goes_out_with_the_next(self) -> None:
        mixer = mixer_of("a", "b")
        assert mixer.push("a", frame(1)) == []
        mixer.remove("b")
        assert values(mixer.push("a", frame(2))) == [1, 2]
        assert values(mixer.push("a", frame(3))) == [3]

    def test_one_that_comes_is_waited_for(self) -> None:
        mixer = mixer_of("a")
        assert values(mixer.push("a", frame(1))) == [1]
        mixer.add("b")
        assert mixer.push("a", frame(2)) == []
        assert values(mixer.push("b", frame(20))) == [22]

    def test_a_burst_goes_out_at_once_and_in_order(self) -> None:
        mixer = mixer_of("a", "b")
        sent = [value for n in range(1, 6) for value in values(mixer.push("a", frame(n)))]
        assert sent == [1, 2, 3, 4, 5]

    @pytest.mark.parametrize(
        ("a", "b", "mixed"),
        [
            (32767, 1, 32767),
            (32767, 32767, 32767),
            (-32768, -1, -32768),
            (-32768, -32768, -32768),
            (32767, -32768, -1),
            (20000, 12767, 32767),
            (20000, 12766, 32766),
        ],
    )
    def test_saturates(self, a: int, b: int, mixed: int) -> None:
        mixer = mixer_of("a", "b")
        mixer.push("a", frame(a))
        assert values(mixer.push("b", frame(b))) == [mixed]

    def test_saturates_once_at_the_end_and_not_on_the_way(self) -> None:
        mixer = mixer_of("a", "b", "c")
        mixer.push("a", frame(30000))
        mixer.push("b", frame(30000))
        assert values(mixer.push("c", frame(-30000))) == [30000]

    @given(st.lists(npst.arrays(np.int16, SAMPLES), min_size=2, max_size=6))
    def test_is_the_clipped_sum(self, frames: list[Pcm]) -> None:
        mixer = mixer_of(*map(str, range(len(frames))))
        copies = [each.copy() for each in frames]
        sent = [out for n, each in enumerate(frames) for out in mixer.push(str(n), each)]
        assert len(sent) == 1
        assert sent[0].dtype == np.int16
        assert np.array_equal(sent[0], np.clip(np.sum(frames, axis=0, dtype=np.int64), -32768, 32767))
        assert all(np.array_equal(each, copy) for each, copy in zip(frames, copies, strict=True))

    def test_a_mix_is_not_changed_by_the_next(self) -> None:
        mixer = mixer_of("a", "b")
        mixer.push("a", frame(1))
        first = mixer.push("b", frame(1))
        mixer.push("a", frame(7))
        mixer.push("b", frame(7))
        assert values(first) == [2]


class TestComingAndGoing:
    def test_a_frame_of_a_stranger_is_dropped_and_counted(self) -> None:
        mixer = mixer_of("a")
        assert mixer.push("b", frame(1)) == []
        assert mixer.dropped == 1
        mixer.remove("a")
        assert mixer.push("a", frame(1)) == []
        assert mixer.dropped == 2

    def test_what_a_leaving_source_had_queued_is_counted(self) -> None:
        mixer = mixer_of("a", "b")
        mixer.push("a", frame(1))
        mixer.remove("a")
        assert mixer.dropped == 1

    def test_adding_twice_keeps_what_is_queued(self) -> None:
        mixer = mixer_of("a", "b")
        mixer.push("a", frame(1))
        mixer.add("a")
        assert values(mixer.push("b", frame(10))) == [11]

    def test_removing_a_stranger_is_no_error(self) -> None:
        mixer = mixer_of("a")
        mixer.remove("nobody")
        assert values(mixer.push("a", frame(1))) == [1]

    def test_a_source_that_returns_starts_afresh(self) -> None:
        mixer = mixer_of("a", "b")
        mixer.push("a", frame(1))
        mixer.remove("a")
        mixer.add("a")
        assert waiting(mixer, "a") == 0


class TestMistakes:
    @pytest.mark.parametrize(
        "bad",
        [
            np.zeros(159, np.int16),
            np.zeros(161, np.int16),
            np.zeros(0, np.int16),
            np.zeros((SAMPLES, 1), np.int16),
            np.zeros(SAMPLES, np.int32),
            np.zeros(SAMPLES, np.float32),
        ],
    )
    def test_a_frame_of_another_shape_or_type(self, bad: Pcm) -> None:
        mixer = mixer_of("a")
        with pytest.raises(ValueError, match="int16 of shape"):
            mixer.push("a", bad)

    @pytest.mark.parametrize(("samples", "most"), [(0, 10), (-1, 10), (160, 1), (160, 0)])
    def test_a_mixer_that_could_not_work(self, samples: int, most: int) -> None:
        with pytest.raises(ValueError, match="at least"):
            Mixer(samples, most)


SOURCES = ("a", "b", "c")


class AnyOrderOfEvents(RuleBasedStateMachine):
    """Whatever comes and goes in whatever order: nothing is lost uncounted, out of order, twice, or kept too long.

    Each source speaks in its own sample of the frame, with numbers that count up, so that a mix shows whose which
    frame is in it.
    """

    def __init__(self) -> None:
        super().__init__()
        self.mixer = Mixer(len(SOURCES), max_frames=4)
        self.inside: set[str] = set()
        self.spoken = dict.fromkeys(SOURCES, 0)
        self.heard: dict[str, list[int]] = {source: [] for source in SOURCES}
        self.left_behind = 0

    @rule(source=st.sampled_from(SOURCES))
    def add(self, source: str) -> None:
        self.mixer.add(source)
        self.inside.add(source)

    @rule(source=st.sampled_from(SOURCES))
    def remove(self, source: str) -> None:
        self.left_behind += waiting(self.mixer, source)
        self.mixer.remove(source)
        assert self.mixer.dropped == self.left_behind
        self.inside.discard(source)

    @rule(source=st.sampled_from(SOURCES))
    def push(self, source: str) -> None:
        known = source in self.inside
        self.spoken[source] += 1
        pcm = np.zeros(len(SOURCES), np.int16)
        pcm[SOURCES.index(source)] = self.spoken[source]
        sent = self.mixer.push(source, pcm)
        if not known:
            self.left_behind += 1
            assert sent == []
        if self.inside == {source}:
            assert sent[-1] is pcm
        for out in sent:
            assert out.any()
            for each, number in zip(SOURCES, out.tolist(), strict=True):
                if number:
                    self.heard[each].append(number)

    @precondition(lambda self: self.inside)
    @rule()
    def everybody_speaks(self) -> None:
        before = {source: waiting(self.mixer, source) for source in self.inside}
        for source in sorted(self.inside):
            self.push(source)
        assert all(waiting(self.mixer, source) <= max(before[source], 1) for source in self.inside)

    @invariant()
    def in_order_and_once(self) -> None:
        for numbers in self.heard.values():
            assert numbers == sorted(set(numbers))

    @invariant()
    def all_accounted_for(self) -> None:
        queued = sum(waiting(self.mixer, source) for source in SOURCES)
        heard = sum(map(len, self.heard.values()))
        assert sum(self.spoken.values()) == heard + queued + self.left_behind
        assert self.mixer.dropped == self.left_behind

    @invariant()
    def bounded(self) -> None:
        queued = [waiting(self.mixer, source) for source in SOURCES]
        assert max(queued) <= 1


TestAnyOrderOfEvents = AnyOrderOfEvents.TestCase
