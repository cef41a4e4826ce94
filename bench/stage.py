"""The processes of a run: their start, and their CPU and memory use."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import psutil

from bench.worker import Worker
from demo.connector_process import clean_environment
from demo.livekit_server import LiveKitServer
from demo.ports import PortLease
from demo.process import ChildProcess

OURS = "ours"
DEFAULT_QUEUE = "default queue"
"""The connector with only its audio source replaced by the SDK's, with its default queue."""
PLAIN = "plain bridge"
"""Like `DEFAULT_QUEUE`, but audio from before the track was published is not dropped, as in most bridges."""
_COMMANDS = {
    OURS: ("connector", "serve"),
    DEFAULT_QUEUE: ("bench.serve", "default-queue"),
    PLAIN: ("bench.serve", "plain"),
}
_START_PATIENCE = 20.0
TWILIO_TOKEN = "twilio-auth-token-of-the-benchmark"


class Stage:
    """livekit-server, the echo agent and the telephones; they run during the whole benchmark."""

    def __init__(self, livekit: LiveKitServer, livekit_pid: int, echo: Worker, callers: Worker) -> None:
        self.livekit = livekit
        self._livekit_pid = livekit_pid
        self.echo = echo
        self.callers = callers
        self._numbers = itertools.count(1)

    @property
    def keys(self) -> dict[str, Any]:
        return {"url": self.livekit.url, "key": self.livekit.api_key, "secret": self.livekit.api_secret}

    def room_names(self, count: int) -> list[str]:
        """Returns new names each time: a room of an earlier call may still be closing."""
        return [f"bench-{next(self._numbers)}" for _ in range(count)]

    async def echo_rooms(self, count: int) -> list[str]:
        """Creates rooms with the echo agent in them."""
        rooms = self.room_names(count)
        await self.echo.ask("join", rooms=rooms, **self.keys)
        return rooms

    def helpers(self) -> dict[str, int]:
        """All processes except the one under test: name -> pid."""
        return {
            "livekit-server": self._livekit_pid,
            "echo agent": self.echo.pid,
            "telephones": self.callers.pid,
        }

    @asynccontextmanager
    async def connector(self, variant: str, workers: int = 1) -> AsyncIterator[int]:
        """Starts a connector in a new process and gives the telephones its address; yields its pid. With several
        `workers` that is their supervisor."""
        lease = PortLease()
        with tempfile.TemporaryDirectory(prefix="bench-") as folder, contextlib.closing(lease):
            environment = {
                **clean_environment(),
                **self.livekit.environment,
                "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
                "CONNECTOR_PORT": str(lease.port),
                "CONNECTOR_GRPC_PORT": "0",
                "CONNECTOR_STORE": f"sqlite:///{Path(folder) / 'calls.db'}",
                "CONNECTOR_DRAIN_TIMEOUT": "0",
                "CONNECTOR_AGENT_TIMEOUT": "0",
                "CONNECTOR_WORKERS": str(workers),
            }
            command = _COMMANDS[variant]
            if variant == OURS and "BENCH_PROFILE" in os.environ:
                command = ("bench.serve", "as-is")
            process = ChildProcess(f"connector ({variant})", [sys.executable, "-m", *command], environment)
            process.spawn()
            try:
                url = f"http://127.0.0.1:{lease.port}"
                await process.until_answers(f"{url}/readyz", _START_PATIENCE)
                if workers > 1:
                    await _until_all_ready(f"{url}/readyz", workers)
                await self.callers.ask("meet", connector=url, twilio_token=TWILIO_TOKEN, **self.keys)
                yield process.pid
            finally:
                await process.stop(grace=10.0)
                process.close()


@asynccontextmanager
async def open_stage() -> AsyncIterator[Stage]:
    async with LiveKitServer() as livekit, Worker("bench.echo") as echo, Worker("bench.callers") as callers:
        yield Stage(livekit, livekit.pid, echo, callers)


async def _until_all_ready(url: str, workers: int) -> None:
    """The first worker that is ready answers at once."""
    async with asyncio.timeout(_START_PATIENCE), aiohttp.ClientSession() as session:
        while True:
            async with session.get(url) as answer:
                if (await answer.json()).get("workers") == {"ready": workers, "all": workers}:
                    return
            await asyncio.sleep(0.1)


async def cpu_cores(pids: Sequence[int], seconds: float) -> list[float]:
    """User and system time of each process during the next `seconds`, in cores."""
    processes = [psutil.Process(pid) for pid in pids]
    started, before = time.monotonic(), [_cpu_seconds(process) for process in processes]
    await asyncio.sleep(seconds)
    span, after = time.monotonic() - started, [_cpu_seconds(process) for process in processes]
    return [(late - early) / span for early, late in zip(before, after, strict=True)]


def _cpu_seconds(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def rss_megabytes(pid: int) -> float:
    return float(psutil.Process(pid).memory_info().rss / 1e6)
