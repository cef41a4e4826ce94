"""Frames in any order in, frames in order out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector.audio.reorder import DEPTH, ReorderBuffer


def passed(buffer: ReorderBuffer[int], numbers: list[int]) -> list[int]:
    return [item for number in numbers for item in buffer.push(number, number)]


@given(first=st.integers(0, 10**12), count=st.integers(1, 200))
def test_what_is_in_order_passes_at_once(first: int, count: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    for number in range(first, first + count):
        assert buffer.push(number, number) == [number]
    assert (buffer.late, buffer.duplicates, buffer.waiting) == (0, 0, 0)


@given(delays=st.lists(st.integers(0, DEPTH), min_size=1, max_size=200))
def test_frames_overtaken_by_no_more_than_the_depth_come_out_complete(delays: list[int]) -> None:
    numbers = sorted(range(len(delays)), key=lambda number: (number + delays[number] if number else -1, number))
    buffer: ReorderBuffer[int] = ReorderBuffer()
    assert passed(buffer, numbers) == list(range(len(delays)))
    assert (buffer.late, buffer.duplicates) == (0, 0)


@given(numbers=st.lists(st.integers(0, 60), max_size=300), depth=st.integers(1, 6))
def test_whatever_comes_it_never_grows_and_loses_count_of_nothing(numbers: list[int], depth: int) -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer(depth)
    came_out = 0
    for number in numbers:
        ready = buffer.push(number, number)
        assert ready == sorted(set(ready))
        assert buffer.waiting <= depth
        came_out += len(ready)
    # A sender that counts anew is the one case in which what waited is dropped without being counted.
    assert came_out + buffer.late + buffer.duplicates + buffer.waiting <= len(numbers)


@given(numbers=st.permutations(range(10)))
def test_each_number_comes_out_at_most_once_and_in_order(numbers: list[int]) -> None:
    out = passed(ReorderBuffer(), numbers)
    assert out == sorted(set(out))


def test_a_hole_is_given_up_when_too_many_wait_behind_it() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer(depth=3)
    assert passed(buffer, [1, 3, 4, 5]) == [1]
    assert buffer.push(6, 6) == [3, 4, 5, 6]
    assert buffer.push(2, 2) == []
    assert (buffer.late, buffer.duplicates) == (1, 0)
    assert buffer.push(7, 7) == [7]


def test_duplicates_are_dropped_wherever_the_first_one_is() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    assert passed(buffer, [1, 1, 3, 3, 2, 3]) == [1, 2, 3]
    assert (buffer.late, buffer.duplicates) == (0, 3)


def test_numbers_that_are_always_left_out_are_soon_not_waited_for() -> None:
    """A carrier that numbers both tracks with one counter leaves every second number out of ours."""
    buffer: ReorderBuffer[int] = ReorderBuffer()
    passed(buffer, list(range(0, 80, 2)))
    assert [buffer.push(number, number) for number in (80, 82, 84)] == [[80], [82], [84]]
    assert buffer.waiting == 0


def test_a_late_frame_makes_it_wait_again() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    passed(buffer, list(range(0, 80, 2)))
    assert passed(buffer, [77]) == []
    assert buffer.late == 1
    assert buffer.push(80, 80) == []
    assert buffer.push(79, 79) == [79, 80]


def test_a_sender_that_counts_anew_is_heard_again() -> None:
    buffer: ReorderBuffer[int] = ReorderBuffer()
    passed(buffer, list(range(1000, 1010)))
    out = passed(buffer, list(range(20)))
    assert out == list(range(10, 20))
    assert buffer.waiting == 0


def test_a_buffer_without_depth_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least one"):
        ReorderBuffer(0)
