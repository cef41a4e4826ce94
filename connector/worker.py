"""A worker's link to its supervisor (`connector serve --workers`).

One socket pair for each worker, one line of text for each message. A worker writes `ready` and `recycle <why>`. The
supervisor writes `workers <ready> <all>`; `replaced`, when the worker's successor serves; `stopping` before SIGTERM,
when the whole service stops; `hurry`, when the calls that are left are to end at once. The end of the link tells each
side that the other one has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import Callable, MutableMapping
from pathlib import Path

import structlog

log = structlog.get_logger()

LINK = "CONNECTOR_WORKER_LINK"
"""Environment variable with the number of the worker's file descriptor; set by the supervisor."""
FOLDER = "CONNECTOR_WORKER_FOLDER"
"""Environment variable with a folder of the service's workers, readable by their user only; set by the supervisor."""
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus-client: all workers write their metrics into this folder."""
ASK_AGAIN = 120.0
"""Seconds after which a worker that got no successor asks again; more than the supervisor's time limit for a start. The
time doubles with each request."""
LONGEST_PAUSE = 1800.0


class WorkerLink:
    """The worker's side."""

    def __init__(self, link: socket.socket, folder: Path | None = None) -> None:
        self._link = link
        self.folder = folder
        """A folder of the service's workers, readable by their user only."""
        self._link.setblocking(False)
        self._received = b""
        self._broken = asyncio.Event()
        self._is_replaced = self._service_stops = False
        self.ready_workers = self.all_workers = 0
        """Number of workers that are ready, and of all workers of the service; 0 until the supervisor has sent them."""
        self.on_replaced: Callable[[], None] = lambda: None
        """Called when this worker must drain."""
        self.on_hurry: Callable[[], None] = lambda: None
        """Called when the calls that are left are to end at once."""

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> WorkerLink | None:
        """The link of this process, or None if it has no supervisor. Removes the variables: this process's children
        have no link."""
        descriptor, folder = environment.pop(LINK, ""), environment.pop(FOLDER, "")
        return cls(socket.socket(fileno=int(descriptor)), Path(folder) if folder else None) if descriptor else None

    # Read at once: the supervisor writes before it sends SIGTERM, and the signal may be handled first.

    @property
    def is_replaced(self) -> bool:
        """A successor serves on the same ports: this worker drains."""
        self._read()
        return self._is_replaced

    @property
    def service_stops(self) -> bool:
        """All workers of the service stop, or are about to."""
        self._read()
        return self._service_stops

    @property
    def is_broken(self) -> bool:
        """The supervisor has died."""
        self._read()
        return self._broken.is_set()

    def is_ready(self) -> None:
        """Tell the supervisor that this worker serves."""
        self._send("ready")

    def ask_for_successor(self, why: str) -> None:
        """Ask the supervisor to start another worker, and then to stop this one."""
        self._send(f"recycle {why}")

    def _send(self, line: str) -> None:
        # An error means that the supervisor has died: `follow` returns.
        with contextlib.suppress(OSError):
            self._link.send(f"{line}\n".encode())

    async def follow(self) -> None:
        """Read the supervisor's messages until it has died."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._link, self._read)
        try:
            await self._broken.wait()
        finally:
            loop.remove_reader(self._link)

    def _read(self) -> None:
        while not self._broken.is_set():
            try:
                data = self._link.recv(4096)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._broken.set()
            *lines, self._received = (self._received + data).split(b"\n")
            for line in lines:
                self._heed(line.decode())

    def _heed(self, line: str) -> None:
        match line.split():
            case ["workers", ready, count]:
                self.ready_workers, self.all_workers = int(ready), int(count)
            case ["replaced"]:
                self._is_replaced = True
                self.on_replaced()
            case ["stopping"]:
                self._service_stops = True
            case ["hurry"]:
                self.on_hurry()


class Recycling:
    """Asks for a successor when this worker has held enough calls or has become too large, and again from time to time
    if none comes. LiveKit's SDK keeps about half a megabyte of each call in whose room somebody else publishes
    (livekit/rust-sdks issue 1378)."""

    def __init__(
        self, max_calls: int, max_megabytes: float, link: WorkerLink, now: Callable[[], float] = time.monotonic
    ) -> None:
        """0: no limit."""
        self._max_calls = max_calls
        self._max_megabytes = max_megabytes
        self._link = link
        self._now = now
        self._pause = ASK_AGAIN
        self._asked_at: float | None = None

    async def look(self, calls: int, megabytes: float) -> None:
        """`calls`: held since the start. To be called every few seconds."""
        why = ""
        if 0 < self._max_calls <= calls:
            why = f"{calls} calls"
        elif 0 < self._max_megabytes <= megabytes:
            why = f"{megabytes:.0f} MB of memory"
        if not why or self._link.is_replaced or self._link.service_stops:
            return
        if self._asked_at is not None:
            if self._now() < self._asked_at + self._pause:
                return
            log.warning("this worker has got no successor: it asks again", why=why, after_seconds=self._pause)
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        self._asked_at = self._now()
        self._link.ask_for_successor(why)


def resident_megabytes() -> float:
    """Resident memory of this process in megabytes; 0.0 where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0
