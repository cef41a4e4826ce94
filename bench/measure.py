"""The measurements. Each returns plain numbers; `bench.report` judges them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from bench import sound
from bench.stage import DEFAULT_QUEUE, OURS, PLAIN, Stage, cpu_cores, rss_megabytes
from bench.worker import Worker

BARE = "bare SDK loop"
BURST = 60
"""Number of calls that start at once."""
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """The size of each measurement. `settle` and `window` are in seconds, the others are counts."""

    rounds: int
    calls: tuple[int, ...]
    """Numbers of simultaneous calls for which CPU time is measured."""
    many: int
    """Number of simultaneous calls in the second half of the round trips."""
    bursts_one: int
    bursts_many: int
    settle: float
    window: float
    connects: int
    first_audios: int
    pages: int
    """Number of requests for each page of a list."""


FULL = Plan(
    rounds=3,
    calls=(1, 4, 8),
    many=8,
    bursts_one=30,
    bursts_many=30,
    settle=1.5,
    window=6.0,
    connects=50,
    first_audios=20,
    pages=20,
)
QUICK = Plan(
    rounds=1,
    calls=(1, 8),
    many=8,
    bursts_one=30,
    bursts_many=30,
    settle=1.0,
    window=4.0,
    connects=15,
    first_audios=4,
    pages=5,
)


@dataclass(slots=True)
class RoundTrips:
    """Seconds for every burst heard; `first` and `last`: the first and last five bursts of each call."""

    calls: int
    all: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)
    lost: int = 0
    to_agent: list[float] = field(default_factory=list)
    """From the telephone's mouth to the agent's ear."""
    to_phone: list[float] = field(default_factory=list)
    """From the agent's ear back to the telephone."""
    in_phone: list[float] = field(default_factory=list)
    """In the telephone's buffer, until the telephone plays it."""

    def add(self, call: list[float | None]) -> None:
        heard = [delay for delay in call if delay is not None]
        self.lost += len(call) - len(heard)
        self.all += heard
        self.first += heard[:5]
        self.last += heard[-5:]

    def add_legs(
        self, said: list[tuple[float, float]], heard: list[float | None], back: list[float | None], trips: list[Any]
    ) -> None:
        """Adds, for each burst of a call, the times at which it was said, arrived at the agent and came back, and the
        total delay."""
        for (at, _), there, again, trip in zip(said, heard, back, trips, strict=True):
            if there is not None and again is not None and trip is not None:
                self.to_agent.append(there - at)
                self.to_phone.append(again - there)
                self.in_phone.append(at + trip - again)


async def round_trips(stage: Stage, plan: Plan, say: Say) -> dict[str, dict[int, RoundTrips]]:
    """Round trips of tone bursts through room and echo, with one call and with many, alternating the variants."""
    sizes = {DEFAULT_QUEUE: (1, plan.many), PLAIN: (1,), OURS: (1, plan.many)}
    result = {variant: {n: RoundTrips(n) for n in counts} for variant, counts in sizes.items()}
    for turn in range(plan.rounds):
        for variant, of_variant in result.items():
            say(f"round trip, round {turn + 1} of {plan.rounds}: {variant}")
            async with stage.connector(variant):
                for count in of_variant:
                    rooms = await stage.echo_rooms(count)
                    bursts = plan.bursts_one if count == 1 else plan.bursts_many
                    calls = await stage.callers.ask("bursts", rooms=rooms, count=bursts, seed=turn, patience=60)
                    for room, call in zip(rooms, calls, strict=True):
                        of_variant[count].add(call["delays"])
                        heard = await stage.echo.ask(
                            "when", room=room, bursts=call["said"], longest=sound.LONGEST_DELAY
                        )
                        of_variant[count].add_legs(call["said"], heard, call["back"], call["delays"])
                    await stage.echo.ask("leave")
    return result


@dataclass(slots=True)
class Cost:
    """CPU cores per call, one value per round, by number of calls."""

    cores: dict[int, list[float]]
    helpers: dict[str, list[float]] = field(default_factory=dict)
    """CPU cores of the other processes at the largest number of calls."""
    memory: list[tuple[int, float]] = field(default_factory=list)
    """(calls, resident megabytes)"""


async def costs(stage: Stage, plan: Plan, say: Say) -> dict[str, Cost]:
    """CPU time of the connector and of the bare loop, with speech in both directions, alternating the two."""
    result = {variant: Cost({n: [] for n in plan.calls}) for variant in (BARE, OURS)}
    for turn in range(plan.rounds):
        for variant, cost in result.items():
            say(f"CPU time, round {turn + 1} of {plan.rounds}: {variant}")
            if variant == BARE:
                async with Worker("bench.bare") as bare:
                    await _cost_of(bare, bare.pid, "begin", stage, plan, cost)
            else:
                async with stage.connector(variant) as pid:
                    await _cost_of(stage.callers, pid, "talk", stage, plan, cost)
    return result


async def _cost_of(speakers: Worker, pid: int, begin: str, stage: Stage, plan: Plan, cost: Cost) -> None:
    await _heard(speakers, begin)  # A response means that all modules are loaded.
    cost.memory.append((0, rss_megabytes(pid)))
    standing = 0
    for count in plan.calls:
        rooms = await stage.echo_rooms(count - standing)
        if begin == "talk":
            await speakers.ask("talk", rooms=rooms, seconds=60.0)
        else:
            await speakers.ask("begin", rooms=rooms, **stage.keys)
        standing = count
        # The one-time cost of a new call (join, first packets, start of the encoder) is not a running cost.
        await cpu_cores([pid], plan.settle)
        heard = await _heard(speakers, begin)
        used = await cpu_cores([pid, *stage.helpers().values()], plan.window)
        share = (await _heard(speakers, begin) - heard) * 0.02 / plan.window / count
        if not 0.9 < share < 1.1:
            raise RuntimeError(f"at {count} calls {share:.0%} of the sound came back: too little to compare")
        cost.cores[count].append(used[0] / count)
        cost.memory.append((count, rss_megabytes(pid)))
    for name, cores in zip(stage.helpers(), used[1:], strict=True):
        cost.helpers.setdefault(name, []).append(cores)
    await speakers.ask("hang_up" if begin == "talk" else "end")
    await stage.echo.ask("leave")


async def _heard(speakers: Worker, begin: str) -> int:
    frames = await speakers.ask("frames")
    return int(frames["heard"] if begin == "talk" else frames)


@dataclass(slots=True)
class Setup:
    """Results in seconds, by direction."""

    connect: dict[str, list[float]] = field(default_factory=dict)
    first_audio: dict[str, list[float]] = field(default_factory=dict)
    bursts: dict[str, dict[str, float]] = field(default_factory=dict)
    """`served`: number of served calls of BURST started at once; `seconds`: time until the last one was served."""


async def setups(stage: Stage, plan: Plan, say: Say) -> Setup:
    """Duration of ConnectTwilioCall, and time from `start` to the first sound in the room."""
    result = Setup()
    async with stage.connector(OURS):
        for direction in ("outbound", "inbound"):
            say(f"set-up: {direction}")
            (prefix,) = stage.room_names(1)
            result.connect[direction] = await stage.callers.ask(
                "connect_times", direction=direction, count=plan.connects, prefix=f"{prefix}-c", patience=60
            )
            result.first_audio[direction] = await stage.callers.ask(
                "first_audio", direction=direction, count=plan.first_audios, prefix=f"{prefix}-a", patience=120
            )
    async with stage.connector(OURS):
        for direction in ("outbound", "inbound"):
            say(f"{BURST} calls at once: {direction}")
            (prefix,) = stage.room_names(1)
            result.bursts[direction] = await stage.callers.ask(
                "burst", direction=direction, count=BURST, prefix=f"{prefix}-b", patience=120
            )
    return result
