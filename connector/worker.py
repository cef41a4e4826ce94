"""A worker's link to its supervisor (`connector serve --workers`).

One socket pair for each worker, one line of text for each message. A worker writes `ready` and `recycle <why>`; the
supervisor writes `workers <ready> <all>` and, when the worker's successor serves, `replaced`. The end of the link tells
each side that the other one has died.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, MutableMapping
from pathlib import Path

LINK = "CONNECTOR_WORKER_LINK"
"""Environment variable with the number of the worker's file descriptor; set by the supervisor."""
METRICS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
"""Environment variable of prometheus-client: all workers write their metrics into this folder."""


class WorkerLink:
    """The worker's side."""

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._link.setblocking(False)
        self.ready_workers = self.all_workers = 0
        """Number of workers that are ready, and of all workers of the service; 0 until the supervisor has sent them."""
        self.is_replaced = False
        """A successor serves on the same ports: this worker drains."""

    @classmethod
    def of(cls, environment: MutableMapping[str, str]) -> WorkerLink | None:
        """The link of this process, or None if it has no supervisor. Removes the variable: this process's children
        have no link."""
        descriptor = environment.pop(LINK, "")
        return cls(socket.socket(fileno=int(descriptor))) if descriptor else None

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

    async def follow(self, on_replaced: Callable[[], None]) -> None:
        """Read the supervisor's messages until it has died. `on_replaced`: this worker must drain."""
        reader, writer = await asyncio.open_connection(sock=self._link)
        try:
            while line := await reader.readline():
                match line.decode().split():
                    case ["workers", ready, count]:
                        self.ready_workers, self.all_workers = int(ready), int(count)
                    case ["replaced"]:
                        self.is_replaced = True
                        on_replaced()
        except ConnectionError:
            pass
        finally:
            writer.close()


class Recycling:
    """Asks for a successor once, when this worker has held enough calls or has become too large. LiveKit's SDK keeps
    about half a megabyte of each call in whose room somebody else publishes (livekit/rust-sdks issue 1378)."""

    def __init__(self, max_calls: int, max_megabytes: float, link: WorkerLink) -> None:
        """0: no limit."""
        self._max_calls = max_calls
        self._max_megabytes = max_megabytes
        self._link = link
        self._asked = False

    async def look(self, calls: int, megabytes: float) -> None:
        """`calls`: held since the start. To be called every few seconds."""
        why = ""
        if 0 < self._max_calls <= calls:
            why = f"{calls} calls"
        elif 0 < self._max_megabytes <= megabytes:
            why = f"{megabytes:.0f} MB of memory"
        if why and not self._asked:
            self._asked = True
            self._link.ask_for_successor(why)


def resident_megabytes() -> float:
    """Resident memory of this process in megabytes; 0.0 where the system has no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    except OSError:
        return 0.0
