"""The verdict of `make soak` over the sizes of a service."""

from __future__ import annotations

from dataclasses import replace

import pytest

from demo.soak import CLOSING, GROWTH, Options, Size, faults_of, growth

OPTIONS = Options(calls=100, at_once=4, workers=2, recycle_after=40)
IDLE = Size(calls=0, megabytes=300, threads=20, descriptors=60, processes=3)
BUSY = replace(IDLE, megabytes=380, threads=42, descriptors=100)
MARGIN = CLOSING * 6


def run(*after: Size) -> list[Size]:
    """Sizes after each tenth of the calls; `after`: the last two."""
    samples = [replace(BUSY, calls=calls) for calls in range(10, 101, 10)]
    return [IDLE, *samples[:-2], *(replace(size, calls=90 + 10 * place) for place, size in enumerate(after))]


def test_a_service_that_stays_as_it_was_has_no_fault() -> None:
    assert faults_of(run(BUSY, BUSY), OPTIONS) == []
    assert growth(run(BUSY, BUSY)) == 1.0


@pytest.mark.parametrize("place", [0, 1])
def test_memory_that_grows_is_a_fault_with_recycling_only(place: int) -> None:
    large = replace(BUSY, megabytes=BUSY.megabytes * (GROWTH + 0.01))
    sizes = run(*((large, BUSY), (BUSY, large))[place])
    assert [fault.split(",")[0] for fault in faults_of(sizes, OPTIONS)] == ["memory grew by the factor 1.31"]
    assert faults_of(sizes, replace(OPTIONS, recycle_after=0)) == []


@pytest.mark.parametrize("name", ["threads", "descriptors"])
def test_threads_and_descriptors_that_stay_are_faults(name: str) -> None:
    most = getattr(BUSY, name) + MARGIN
    assert faults_of(run(BUSY, replace(BUSY, **{name: most})), OPTIONS) == []
    assert faults_of(run(BUSY, replace(BUSY, **{name: most + 1})), OPTIONS) == [f"{most + 1} {name}, more than {most}"]


def test_a_worker_that_does_not_end_is_a_fault() -> None:
    assert faults_of(run(BUSY, replace(BUSY, processes=4)), OPTIONS) == ["4 processes instead of 3"]
