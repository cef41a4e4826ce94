"""What every set-up script needs: a logged command with progress lines, and a lock between two runs.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
LOGS = TOOLS / "logs"
HEARTBEAT_SECONDS = 15.0


class StepFailed(Exception):
    """A step ended badly; the message says what to do, for a person at a terminal."""


def say(line: str) -> None:
    """One progress line, on stderr so that a target's own output stays clean."""
    print(line, file=sys.stderr, flush=True)


def run_logged(title: str, command: Sequence[str], env: Mapping[str, str] | None = None, expect: str = "") -> None:
    """Run a command with its output in a log file; say how long it takes while it does.

    expect: how long it may take, for a person who waits.
    Raises StepFailed with the whole log when the command fails.
    """
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / ("".join(c if c.isalnum() or c in ".-" else "-" for c in title) + ".log")
    started = time.monotonic()
    say(f"{title} ({expect}) ..." if expect else f"{title} ...")
    with log.open("wb") as output:
        # Its own process group: an interrupted set-up must not leave a compiler running behind it.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=None if env is None else dict(env),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            _wait_with_heartbeat(title, process, started)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
    took = time.monotonic() - started
    if process.returncode != 0:
        say(log.read_text(errors="replace"))
        raise StepFailed(
            f"{title}: failed after {took:.0f} s with exit code {process.returncode} "
            f"(the output above is kept in {log.relative_to(ROOT)})"
        )
    say(f"{title}: done in {took:.0f} s")


def _wait_with_heartbeat(title: str, process: subprocess.Popen[bytes], started: float) -> None:
    while True:
        try:
            process.wait(HEARTBEAT_SECONDS)
        except subprocess.TimeoutExpired:
            say(f"{title} ... {time.monotonic() - started:.0f} s")
        else:
            return


@contextlib.contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lock between processes; the kernel releases it however the holder ends."""
    TOOLS.mkdir(exist_ok=True)
    with (TOOLS / f"{name}.lock").open("a") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is running in this checkout; waiting for it ...")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def terminate_on_signals() -> None:
    """Turn SIGTERM and SIGHUP into SystemExit, so that what a step started is stopped with it."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
