"""`make demo`: a simulated phone call talks with a real agent in a real LiveKit room."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from livekit import api
from rich.console import Console

from demo import script
from demo.crash import WORKERS, Crash, CrashScene, judge_crash
from demo.keep import keep_running
from demo.livekit_server import ServerMissing
from demo.picture import Delay, Span, draw_call
from demo.process import ProcessFailed
from demo.providers import ACCOUNTS
from demo.scene import RATE, Recording, Scene
from demo.sound import write_wav
from demo.timeline import Timeline
from demo.verdict import Check, Verdict, judge
from demo.world import World, whole_world

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    out: Path
    keep: bool = False
    provider: str = "twilio"
    crash: bool = False


async def run(options: Options, console: Console) -> int:
    """Returns the exit status: 0 if the caller heard the right audio and all other checks passed."""
    try:
        return await until_signal(_run(options, console))
    except asyncio.CancelledError:
        console.print("stopped")
        return 130
    except (ProcessFailed, ServerMissing) as error:
        console.print(f"[red]error:[/] {error}", highlight=False, soft_wrap=True)
        return 1


async def until_signal(work: Awaitable[int]) -> int:
    """The first Ctrl-C, SIGTERM or SIGHUP cancels the work, which then cleans up."""
    task = asyncio.ensure_future(work)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, task.cancel)
    try:
        return await task
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.remove_signal_handler(number)


async def _run(options: Options, console: Console) -> int:
    account = ACCOUNTS[options.provider]()
    name = account.carrier.dialect.name
    console.print(f"starting livekit-server, the connector, an agent and a simulated {name} ...")
    # Both voices are synthesised before the timeline starts: each takes a tenth of a second.
    await asyncio.to_thread(lambda: (script.greeting(), script.sentence()))
    async with whole_world(account, workers=WORKERS if options.crash else 1) as world:
        passed = await (_crash if options.crash else _call)(world, options, console)
        status = 0 if passed else 1
        if status:
            _show_logs(console, world)
        if options.keep:
            await keep_running(world, console)
        return status


async def _call(world: World, options: Options, console: Console) -> bool:
    recording = await _play(Scene(world, Timeline(console)).play(), world, console)
    if recording is None:
        return False
    verdict = await asyncio.to_thread(judge, recording)
    await asyncio.to_thread(_write, options.out, recording, verdict)
    _report(console, verdict.checks, options.out)
    return verdict.passed


async def _crash(world: World, options: Options, console: Console) -> bool:
    crash = await _play(CrashScene(world, Timeline(console)).play_crash(), world, console)
    if crash is None:
        return False
    checks = await asyncio.to_thread(judge_crash, crash)
    await asyncio.to_thread(_write_crash, options.out, crash)
    _report(console, checks, options.out, "crash.png")
    return all(check.passed for check in checks)


async def _play(call: Awaitable[T], world: World, console: Console) -> T | None:
    """Returns None, after an explanation, if the call did not come to its end."""
    try:
        return await call
    except (TimeoutError, api.TwirpError, OSError) as error:
        console.print(f"[red]the call failed:[/] {error or type(error).__name__}", highlight=False)
        for phone in world.carrier.calls.values():
            for fault in phone.errors:
                console.print(
                    f"{world.carrier.dialect.name}'s error {int(fault.code)}: {fault.message}", highlight=False
                )
        return None


def _write(out: Path, recording: Recording, verdict: Verdict) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_wav(out / "said.wav", recording.said, RATE)
    write_wav(out / "heard.wav", recording.heard, RATE)
    said_at, lasts = recording.sentence_at / RATE, len(script.sentence()) / RATE
    greeting = Span("the agent's greeting", verdict.greeting.delay_seconds, len(script.greeting()) / RATE)
    draw_call(
        out / "waveforms.png",
        recording.said,
        recording.heard,
        RATE,
        title=f"A simulated {recording.carrier} call, through LiveKit, to an agent that repeats every sentence",
        delay=Delay(said_at, said_at + verdict.echo.delay_seconds, lasts),
        heard_spans=[greeting],
    )


def _write_crash(out: Path, crash: Crash) -> None:
    out.mkdir(parents=True, exist_ok=True)
    write_wav(out / "said.wav", crash.said, RATE)
    write_wav(out / "heard.wav", crash.heard, RATE)
    draw_call(
        out / "crash.png",
        crash.said,
        crash.heard,
        RATE,
        title=f"The process that carries a simulated {crash.carrier} call is killed; another one goes on",
        gap=Span(f"killed: {crash.gap:.2f} s", crash.silent_from, crash.silent_until - crash.silent_from),
    )


def _report(console: Console, checks: Sequence[Check], out: Path, picture: str = "waveforms.png") -> None:
    console.print()
    for check in checks:
        mark = "[green]ok[/]  " if check.passed else "[red]FAIL[/]"
        console.print(f"{mark} {check.name} ({check.found})", highlight=False)
    console.print(f"\nwrote {out}/heard.wav, {out}/said.wav and {out}/{picture}", highlight=False)


def _show_logs(console: Console, world: World) -> None:
    for name, log in (("connector", world.connector.log(40)), ("agent", world.agent.log(40))):
        console.print(f"\n[bold]the {name}'s last lines[/]")
        console.print(log, highlight=False, markup=False, soft_wrap=True)
