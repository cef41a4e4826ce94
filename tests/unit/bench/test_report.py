"""The verdicts: what is met, what is missed, and that a missing value cannot pass for a met target."""

from __future__ import annotations

import pytest

from bench import report
from bench.lists import Lists
from bench.measure import BARE, Cost, RoundTrips
from bench.stage import DEFAULT_QUEUE, OURS, PLAIN
from bench.workers import Workers


def trips(one: float, many: float) -> dict[int, RoundTrips]:
    result = {1: RoundTrips(1), 8: RoundTrips(8)}
    result[1].add([one] * 20)
    result[8].add([many] * 20)
    return result


def verdicts(rows: list[report.Row]) -> dict[str, bool]:
    return {row.what: row.met for row in rows if row.met is not None}


@pytest.mark.parametrize(("ratio", "met"), [(0.499, True), (0.504, True), (0.506, False), (2.0, False)])
def test_a_ratio_is_judged_as_it_is_printed(ratio: float, met: bool) -> None:
    assert report.judged("x", "", "", ratio, 0.5).met is met


@pytest.mark.parametrize(
    ("ours", "queue", "expected"),
    [((0.1, 0.12), (0.25, 0.3), [True, True]), ((0.2, 0.27), (0.25, 0.3), [False, False])],
)
def test_round_trips_are_held_against_the_plain_bridge_and_against_one_call(
    ours: tuple[float, float], queue: tuple[float, float], expected: list[bool]
) -> None:
    measured = {OURS: trips(*ours), DEFAULT_QUEUE: trips(*queue), PLAIN: trips(*queue)}
    assert list(verdicts(report.round_trip_rows(measured)).values()) == expected


@pytest.mark.parametrize(("seconds", "met"), [(0.004, True), (0.0101, False)])
def test_a_page_of_a_list_is_held_against_ten_milliseconds(seconds: float, met: bool) -> None:
    measured = Lists({"the first page": [seconds] * 3}, [0.002], [0.001])
    page, stall = report.list_rows(measured)
    assert page.met is met
    assert (stall.ratio, stall.met) == (2.0, None)


def test_a_lost_burst_counts_as_lost_and_not_as_quick() -> None:
    trip = RoundTrips(1)
    trip.add([None, 0.1, 0.2, None, 0.3])
    assert (trip.lost, trip.all, trip.first) == (2, [0.1, 0.2, 0.3], [0.1, 0.2, 0.3])


def test_the_median_of_the_rounds_is_judged_at_each_number_of_calls() -> None:
    ours = Cost({1: [0.05, 0.06, 0.9], 8: [0.08, 0.08, 0.08]})
    bare = Cost({1: [0.06, 0.06, 0.06], 8: [0.07, 0.07, 0.07]})
    assert list(verdicts(report.cost_rows({OURS: ours, BARE: bare})).values()) == [True, False]
    assert len(report.missed([report.Section("", report.cost_rows({OURS: ours, BARE: bare}))])) == 1


@pytest.mark.parametrize(
    ("first", "cost", "expected"), [(0.15, 0.11, [True, True, True]), (0.152, 0.1106, [False, False, False])]
)
def test_several_workers_are_held_against_one_process(first: float, cost: float, expected: list[bool]) -> None:
    measured = Workers(
        first_audio={1: [0.1] * 4, 4: [first] * 4},
        cores={1: {8: [0.1, 0.1, 0.9], 16: [0.1]}, 2: {8: [cost, cost, 0.9], 16: [cost]}},
        shares={1: {8: [1.0], 16: [0.5]}, 2: {8: [1.0], 16: [0.8]}},
    )
    rows = [row for section in report.worker_sections(measured) for row in section.rows]
    assert [row.met for row in rows if row.met is not None] == expected
    assert [(row.ours, row.baseline) for row in rows if "sound" in row.what] == [("100%", "100%"), ("80%", "50%")]
