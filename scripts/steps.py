"""What every set-up script needs: logged commands, several at a time, with one progress display; a lock.

Standard library only: this runs before anything is installed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ROOT / ".tools"
LOGS = TOOLS / "logs"
HEARTBEAT_SECONDS = 15.0
POLL_SECONDS = 0.5


class StepFailed(Exception):
    """A step ended badly; the message says what to do, for a person at a terminal."""


class CommandFailed(StepFailed):
    """A command ended with another exit code than 0, by itself."""


def say(line: str) -> None:
    """One progress line, on stderr so that a target's own output stays clean."""
    print(line, file=sys.stderr, flush=True)


class _Progress:
    """The commands that run now. One line names them all, every HEARTBEAT_SECONDS, however many there are."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[str, float] = {}
        self._said = 0.0
        self.stop = threading.Event()
        """Set when one of several commands has failed: the others are stopped, not waited for."""

    def begins(self, title: str) -> None:
        with self._lock:
            self._running[title] = self._said = time.monotonic()

    def ends(self, title: str) -> None:
        with self._lock:
            self._running.pop(title, None)

    def tick(self) -> None:
        """Called by each command that is waited for; one of them speaks."""
        with self._lock:
            now = time.monotonic()
            if now - self._said < HEARTBEAT_SECONDS:
                return
            self._said = now
            say(" · ".join(f"{title} ... {now - since:.0f} s" for title, since in self._running.items()))


_progress = _Progress()


def run_logged(title: str, command: Sequence[str], env: Mapping[str, str] | None = None, expect: str = "") -> None:
    """Run a command with its output in a log file; say how long it takes while it does.

    expect: how long it may take, for a person who waits.
    Raises CommandFailed when the command fails, and prints its whole log; StepFailed when it is stopped.
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
        _progress.begins(title)
        try:
            _wait_for(title, process)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            _progress.ends(title)
    took = time.monotonic() - started
    if process.returncode != 0:
        say(log.read_text(errors="replace"))
        raise CommandFailed(
            f"{title}: failed after {took:.0f} s with exit code {process.returncode} "
            f"(the output above is kept in {log.relative_to(ROOT)})"
        )
    say(f"{title}: done in {took:.0f} s")


def _wait_for(title: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        try:
            process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            _progress.tick()
        if _progress.stop.is_set():
            raise StepFailed(f"{title}: stopped, because another step failed")


def run_together(*works: Callable[[], None]) -> None:
    """Run each in a thread of its own until all are done. The first error stops the others' commands and is raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        running = [pool.submit(work) for work in works]
        try:
            done, _ = wait(running, return_when=FIRST_EXCEPTION)
            for future in done:
                future.result()
        except BaseException:
            _progress.stop.set()
            wait(running)
            raise
        finally:
            _progress.stop.clear()


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
    """Turn SIGTERM and SIGHUP into SystemExit, so that the processes of a step are stopped with it."""

    def stop(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, stop)
