"""Several workers against one process, alternately in one run: time until a call is heard, and cost of a call."""

from __future__ import annotations

from dataclasses import dataclass, field

import psutil

from bench.measure import Say
from bench.stage import OURS, Stage, cpu_cores

MANY = 4
"""Workers for the time until the first audio."""
PAIR = 2
"""Workers for the cost of a call."""


@dataclass(frozen=True, slots=True)
class WorkersPlan:
    rounds: int
    warm_up: int
    """Calls before those that count: the first call of a process loads modules and starts threads."""
    first_audios: int
    """Calls for each round and number of workers."""
    calls: tuple[int, ...]
    """Numbers of simultaneous calls for which CPU time is measured."""
    settle: float
    window: float


FULL = WorkersPlan(rounds=2, warm_up=12, first_audios=20, calls=(8, 16), settle=2.0, window=6.0)
QUICK = WorkersPlan(rounds=1, warm_up=8, first_audios=16, calls=(8, 16), settle=2.0, window=4.0)


@dataclass(slots=True)
class Workers:
    """Results by number of workers; 1 is a single process without a supervisor."""

    first_audio: dict[int, list[float]] = field(default_factory=lambda: {1: [], MANY: []})
    """Seconds from the carrier's `start` of an outbound call to the first sound in the room. A worker that has not
    created the call takes it over."""
    cores: dict[int, dict[int, list[float]]] = field(default_factory=lambda: {1: {}, PAIR: {}})
    """By number of calls: CPU cores of all processes of the service, for each call. If the machine is too slow for so
    many calls, the calls are counted by the sound that came back."""
    shares: dict[int, dict[int, list[float]]] = field(default_factory=lambda: {1: {}, PAIR: {}})
    """The part of the sound that came back."""


async def workers(stage: Stage, plan: WorkersPlan, say: Say) -> Workers:
    result = Workers()
    for turn in range(plan.rounds):
        for count, times in result.first_audio.items():
            say(f"first audio, round {turn + 1} of {plan.rounds}: {_name(count)}")
            async with stage.connector(OURS, workers=count):
                (prefix,) = stage.room_names(1)
                for number, kept in ((plan.warm_up, False), (plan.first_audios, True)):
                    heard = await stage.callers.ask(
                        "first_audio", direction="outbound", count=number, prefix=f"{prefix}-{kept}", patience=120
                    )
                    if kept:
                        times += heard
    for turn in range(plan.rounds):
        for count in result.cores:
            say(f"cost of a call, round {turn + 1} of {plan.rounds}: {_name(count)}")
            async with stage.connector(OURS, workers=count) as pid:
                await _costs(stage, pid, plan, result.cores[count], result.shares[count])
    return result


async def _costs(
    stage: Stage, pid: int, plan: WorkersPlan, cores: dict[int, list[float]], shares: dict[int, list[float]]
) -> None:
    standing = 0
    for count in plan.calls:
        rooms = await stage.echo_rooms(count - standing)
        await stage.callers.ask("talk", rooms=rooms, seconds=90.0, patience=60)
        standing = count
        service = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
        await cpu_cores(service, plan.settle)
        before = (await stage.callers.ask("frames"))["heard"]
        used = sum(await cpu_cores(service, plan.window))
        share = ((await stage.callers.ask("frames"))["heard"] - before) * 0.02 / plan.window / count
        shares.setdefault(count, []).append(share)
        cores.setdefault(count, []).append(used / count / min(1.0, share))
    await stage.callers.ask("hang_up", patience=60)
    await stage.echo.ask("leave", patience=60)


def _name(count: int) -> str:
    return "1 process" if count == 1 else f"{count} workers"
