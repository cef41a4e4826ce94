"""Compares the measurements with the targets: rows for the table, a document for bench.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import mean
from typing import Any

from rich.table import Table

from bench.analysis import median, percentile, slope
from bench.lists import PER_PAGE, RECORDS, Lists
from bench.measure import BARE, BURST, Cost, RoundTrips, Setup
from bench.stage import DEFAULT_QUEUE, OURS, PLAIN
from bench.workers import MANY, PAIR, Workers

MOST_OF_PLAIN = 0.5
MOST_OF_ONE_CALL = 1.3
MOST_OF_BARE = 1.0
MOST_OF_ONE_PROCESS = 1.5
MOST_OF_A_WORKER = 1.1
MOST_OF_A_PAGE = 0.010
"""Target for the median response time of a page, in seconds."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `met` is None without a target."""

    what: str
    ours: str
    baseline: str = ""
    ratio: float | None = None
    target: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Section:
    title: str
    rows: list[Row]


def judged(what: str, ours: str, baseline: str, ratio: float, most: float) -> Row:
    """A row with a target: `ratio`, rounded to two decimals as printed, must be at most `most`."""
    return Row(what, ours, baseline, ratio, f"≤ {times(most)}", round(ratio, 2) <= most)


def round_trip_rows(trips: dict[str, dict[int, RoundTrips]]) -> list[Row]:
    ours, queue, plain = trips[OURS], trips[DEFAULT_QUEUE], trips[PLAIN]
    one, many = sorted(ours)
    single, crowd = median(ours[one].all), median(ours[many].all)
    rows = [
        _against(f"median, {_calls(one)}", single, median(queue[one].all)),
        # The target's baseline is the plain bridge, since most bridges are written this way. The default-queue variant
        # still drops late audio, which keeps its queue empty: that row shows the cost of a queue without a backlog.
        _against("  against the plain bridge", single, median(plain[one].all), MOST_OF_PLAIN),
        _against(f"median, {_calls(many)}", crowd, median(queue[many].all)),
        judged("  against ours at 1 call", _ms(crowd), _ms(single), crowd / single, MOST_OF_ONE_CALL),
    ]
    for count in (one, many):
        worst = percentile(ours[count].all, 0.99)
        rows.append(_against(f"p99, {_calls(count)}", worst, percentile(queue[count].all, 0.99)))
    rows += [
        Row(f"median of the first 5 → last 5, {_calls(count)}", _first_last(ours[count]), _first_last(queue[count]))
        for count in (one, many)
    ]
    rows.append(Row("  the plain bridge's", "", _first_last(plain[one])))
    for count in (one, many):
        for leg, name in _LEGS.items():
            rows.append(Row(f"{name}, {_calls(count)}", _leg(ours[count], leg), _leg(queue[count], leg)))
    return [*rows, Row("bursts lost", _lost(ours), _lost(queue))]


_LEGS = {
    "to_agent": "of that: phone → agent",
    "to_phone": "  agent → phone",
    "in_phone": "  in the phone's buffer",
}


def _leg(trip: RoundTrips, leg: str) -> str:
    values = getattr(trip, leg)
    return _ms(median(values)) if values else ""


def _against(what: str, ours: float, baseline: float, most: float | None = None) -> Row:
    ratio = ours / baseline
    if most is None:
        return Row(what, _ms(ours), _ms(baseline), ratio)
    return judged(what, _ms(ours), _ms(baseline), ratio, most)


def _lost(trips: dict[int, RoundTrips]) -> str:
    return str(sum(trip.lost for trip in trips.values()))


def _first_last(trip: RoundTrips) -> str:
    return f"{_ms(median(trip.first))} → {_ms(median(trip.last))}"


def cost_rows(costs: dict[str, Cost]) -> list[Row]:
    rows = []
    for count, values in costs[OURS].cores.items():
        ours, bare = median(values), median(costs[BARE].cores[count])
        rows.append(judged(f"cores per call, {_calls(count)}", f"{ours:.4f}", f"{bare:.4f}", ours / bare, MOST_OF_BARE))
    return rows


def memory_rows(costs: dict[str, Cost]) -> list[Row]:
    most = max(costs[OURS].cores)
    ours, bare = costs[OURS].memory, costs[BARE].memory
    return [
        Row("idle, MB", f"{_at(ours, 0):.0f}", f"{_at(bare, 0):.0f}"),
        Row(f"at {most} calls, MB", f"{_at(ours, most):.0f}", f"{_at(bare, most):.0f}"),
        Row(f"each call, MB (slope 0 to {most})", f"{slope(ours):.2f}", f"{slope(bare):.2f}"),
        Row(f"each further call, MB (slope 1 to {most})", f"{_further(ours):.2f}", f"{_further(bare):.2f}"),
    ]


def setup_rows(setup: Setup) -> list[Row]:
    measured = {
        "ConnectTwilioCall": setup.connect,
        "start → first audio in the room": setup.first_audio,
    }
    rows = [
        Row(f"{what}, {direction}: median, p99", f"{_ms(median(values))}, {_ms(percentile(values, 0.99))}")
        for what, by_direction in measured.items()
        for direction, values in by_direction.items()
    ]
    return [*rows, *(_burst_row(direction, burst) for direction, burst in setup.bursts.items())]


def _burst_row(direction: str, burst: dict[str, float]) -> Row:
    what = f"{BURST} calls at once, {direction}: served, in"
    served = round(burst["served"])
    return Row(what, f"{served}, {burst['seconds']:.1f} s", target=f"{BURST}", met=served == BURST)


def list_rows(lists: Lists) -> list[Row]:
    """Rows for response times of pages and for the longest stall of the event loop, with and without requests."""
    rows = [_page_row(name, median(seconds)) for name, seconds in lists.pages.items()]
    ours, plain = median(lists.stalls), median(lists.plain_stalls)
    return [*rows, Row("longest stall of the event loop", _ms(ours), _ms(plain), ours / plain if plain else None)]


def _page_row(name: str, seconds: float) -> Row:
    return Row(f"{name}: median", _ms(seconds), target=f"< {_ms(MOST_OF_A_PAGE)}", met=seconds < MOST_OF_A_PAGE)


def worker_sections(found: Workers) -> list[Section]:
    first = [_first_audio_row(found, name, of) for name, of in (("mean", mean), ("median", median))]
    first.append(
        Row(
            "  p99",
            _ms(percentile(found.first_audio[MANY], 0.99)),
            _ms(percentile(found.first_audio[1], 0.99)),
        )
    )
    costs = []
    for calls, values in found.cores[PAIR].items():
        ours, one = median(values), median(found.cores[1][calls])
        costs += [
            judged(f"cores per call, {_calls(calls)}", f"{ours:.4f}", f"{one:.4f}", ours / one, MOST_OF_A_WORKER),
            Row("  calls per core", f"{1 / ours:.1f}", f"{1 / one:.1f}"),
            Row("  sound that came back", _share(found, PAIR, calls), _share(found, 1, calls)),
        ]
    return [
        Section(f"start → first audio in the room, outbound: {MANY} workers (baseline: one process)", first),
        Section(f"CPU time of the whole service: {PAIR} workers (baseline: one process)", costs),
    ]


def _first_audio_row(found: Workers, name: str, of: Callable[[list[float]], float]) -> Row:
    ours, one = of(found.first_audio[MANY]), of(found.first_audio[1])
    if of is mean:
        return judged(name, _ms(ours), _ms(one), ours / one, MOST_OF_ONE_PROCESS)
    return Row(f"  {name}", _ms(ours), _ms(one), ours / one)


def _share(found: Workers, workers: int, calls: int) -> str:
    return f"{median(found.shares[workers][calls]):.0%}"


def sections(
    trips: dict[str, dict[int, RoundTrips]], costs: dict[str, Cost], setup: Setup, lists: Lists
) -> list[Section]:
    return [
        Section(f"Round trip of a tone burst (baseline: {DEFAULT_QUEUE})", round_trip_rows(trips)),
        Section(f"CPU time (baseline: {BARE})", cost_rows(costs)),
        Section(f"Memory (baseline: {BARE})", memory_rows(costs)),
        Section("Set-up of a call", setup_rows(setup)),
        Section(f"A page of {PER_PAGE} among {RECORDS:,} calls (baseline: a plain loop)", list_rows(lists)),
    ]


def table(section: Section) -> Table:
    result = Table(title=section.title, title_justify="left", title_style="bold", pad_edge=False, min_width=96)
    result.add_column("", min_width=44)
    for column in ("ours", "baseline", "ratio", "target", "verdict"):
        result.add_column(column, justify="right")
    for row in section.rows:
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[row.met]
        result.add_row(row.what, row.ours, row.baseline, times(row.ratio), row.target, verdict)
    return result


def missed(found: list[Section]) -> list[Row]:
    return [row for section in found for row in section.rows if row.met is False]


def document(machine: dict[str, Any], found: list[Section], **results: Any) -> dict[str, Any]:
    """All results, including the single values, in seconds, cores and megabytes."""
    return {"machine": machine, "table": [asdict(section) for section in found]} | results


def values(
    trips: dict[str, dict[int, RoundTrips]], costs: dict[str, Cost], setup: Setup, lists: Lists
) -> dict[str, Any]:
    """The measurements of `sections`, for `document`."""
    return {
        "round_trips": {name: {count: asdict(trip) for count, trip in of.items()} for name, of in trips.items()},
        "costs": {name: asdict(cost) for name, cost in costs.items()},
        "setup": asdict(setup),
        "lists": asdict(lists),
    }


def _further(points: list[tuple[int, float]]) -> float:
    return slope([(calls, megabytes) for calls, megabytes in points if calls])


def _at(points: list[tuple[int, float]], calls: int) -> float:
    return median([megabytes for count, megabytes in points if count == calls])


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count} calls"


def times(ratio: float | None) -> str:
    return f"{ratio:.2f}x" if ratio is not None else ""


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms"
