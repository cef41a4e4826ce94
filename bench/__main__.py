"""`python -m bench [--quick] [--strict] [--only workers]`.

Exit status 1 if a measurement failed or, with `--strict`, if a target was missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import signal
import sys
import time
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from bench.lists import lists
from bench.measure import FULL, QUICK, Say, costs, round_trips, setups
from bench.report import Section, document, missed, sections, table, times, values, worker_sections
from bench.stage import Stage, open_stage
from bench.workers import FULL as FULL_WORKERS
from bench.workers import QUICK as QUICK_WORKERS
from bench.workers import workers
from demo.livekit_server import ServerMissing
from demo.process import ProcessFailed

LONGEST = 1200.0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the connector's speed and cost.")
    parser.add_argument("--quick", action="store_true", help="quick and less precise: about two minutes")
    parser.add_argument(
        "--only", choices=["workers"], help="workers: several workers against one process, and nothing else"
    )
    parser.add_argument("--strict", action="store_true", help="exit status 1 if a target is missed")
    parser.add_argument(
        "--out", type=Path, default=Path("bench-out"), help="the folder for bench.json (default: bench-out)"
    )
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        found = asyncio.run(_run(options, console))
    except (RuntimeError, ServerMissing, ProcessFailed, TimeoutError) as error:
        print(f"bench: {error or 'took too long'}", file=sys.stderr)
        raise SystemExit(1) from None
    except asyncio.CancelledError:
        raise SystemExit(130) from None
    failed = missed(found)
    for row in failed:
        print(f"bench: target missed: {row.what.strip()}: {times(row.ratio)}, {row.target}")
    raise SystemExit(1 if failed and options.strict else 0)


async def _run(options: argparse.Namespace, console: Console) -> list[Section]:
    machine = _machine()
    started = time.monotonic()

    def say(what: str) -> None:
        console.print(f"[dim]{time.monotonic() - started:5.0f} s  {what}[/]", highlight=False)

    # SIGINT and SIGTERM cancel the run, so that all processes are stopped in every case.
    measuring = asyncio.current_task()
    assert measuring is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, measuring.cancel)
    found: list[Section] = []
    results: dict[str, Any] = {}
    async with asyncio.timeout(LONGEST), open_stage() as stage:
        if options.only is None:
            await _measure_calls(stage, options, say, found, results)
        of_workers = await workers(stage, QUICK_WORKERS if options.quick else FULL_WORKERS, say)
    found += worker_sections(of_workers)
    results["workers"] = asdict(of_workers)
    machine |= {"seconds": round(time.monotonic() - started), "load_after": os.getloadavg()}
    for section in found:
        console.print()
        console.print(table(section), highlight=False)
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / "bench.json"
    file.write_text(json.dumps(document(machine, found, **results), indent=1) + "\n", encoding="utf-8")
    console.print(f"\n{machine['cores']} cores, Python {machine['python']}, {machine['seconds']} s; all values: {file}")
    if machine["load_before"][0] > 0.5:
        console.print("The machine was not idle before the run: repeat it when it is.", style="yellow")
    return found


async def _measure_calls(
    stage: Stage, options: argparse.Namespace, say: Say, found: list[Section], results: dict[str, Any]
) -> None:
    plan = QUICK if options.quick else FULL
    trips = await round_trips(stage, plan, say)
    cost = await costs(stage, plan, say)
    setup = await setups(stage, plan, say)
    say("lists of calls")
    listed = await lists(plan.pages)
    found += sections(trips, cost, setup, listed)
    results |= values(trips, cost, setup, listed)


def _machine() -> dict[str, Any]:
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": psutil.cpu_count(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "load_before": os.getloadavg(),
    }


if __name__ == "__main__":
    main()
