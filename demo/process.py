"""Servers of the demo as child processes: their output is kept, and `stop` always ends them."""

from __future__ import annotations

import asyncio
import os
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import aiohttp

CHECKOUT = Path(__file__).resolve().parents[1]
"""Working directory in which `python -m demo.…` finds this package, which is not installed."""


class ProcessFailed(RuntimeError):
    """The process ended or did not become ready; the message contains the end of its output."""


def text_of(output: IO[bytes]) -> str:
    """Returns a child's output so far. Does not seek: the child shares the file offset and would overwrite its own
    output."""
    return os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0).decode(errors="replace")


class ChildProcess:
    """A child process, independent of event loops: a fixture may start it in one loop and stop it in another."""

    def __init__(
        self, name: str, argv: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self.name = name
        self._argv = list(argv)
        self._env = dict(env) if env is not None else None
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._last_text = ""
        self._output: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the object

    @property
    def pid(self) -> int:
        """0 if it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def is_running(self) -> bool:
        return self.pid != 0

    def log(self, lines: int = 0) -> str:
        """All output since the first start, or the last `lines` lines."""
        text = self._text()
        return "\n".join(text.splitlines()[-lines:]) if lines else text

    def _text(self) -> str:
        if not self._output.closed:
            self._last_text = text_of(self._output)
        return self._last_text

    def spawn(self) -> None:
        """Starts the process; does not wait until it is ready."""
        if self.is_running:
            raise RuntimeError(f"{self.name} is running already")
        self._output.seek(0, 2)
        self._process = subprocess.Popen(
            self._argv,
            env=self._env,
            cwd=self._cwd,
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            # Its own process group, so that Ctrl-C reaches only the owner, which stops its children in order.
            process_group=0,
        )

    async def until_answers(self, url: str, patience: float) -> None:
        """Waits until `url` answers 200. Raises ProcessFailed if the process ends, or after `patience` seconds."""
        deadline = time.monotonic() + patience
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2)) as session:
            while time.monotonic() < deadline:
                self._check_alive()
                try:
                    async with session.get(url) as response:
                        if response.status == 200:
                            return
                except (aiohttp.ClientError, TimeoutError):
                    pass
                await asyncio.sleep(0.02)
        raise self._failed(f"did not answer at {url} within {patience:g} s")

    async def until_prints(self, text: str, patience: float) -> None:
        """Waits until the output contains `text`. Raises ProcessFailed like `until_answers`."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if text in self.log():
                return
            self._check_alive()
            await asyncio.sleep(0.02)
        raise self._failed(f"did not print {text!r} within {patience:g} s")

    async def stop(self, grace: float = 5.0) -> None:
        """Sends SIGTERM, then SIGKILL after `grace` seconds. Does nothing if the process is not running."""
        process = self._process
        if process and process.poll() is None:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, grace)
            except subprocess.TimeoutExpired:
                await self.kill()

    async def kill(self) -> None:
        """Sends SIGKILL: the process cannot close its connections properly."""
        process = self._process
        if process and process.poll() is None:
            process.kill()
            await asyncio.to_thread(process.wait)

    def close(self) -> None:
        """Closes the output file; the text can still be read. The process must have ended."""
        self._text()
        self._output.close()

    def _check_alive(self) -> None:
        if not self.is_running:
            status = self._process.returncode if self._process else None
            raise self._failed(f"ended with status {status}")

    def _failed(self, what: str) -> ProcessFailed:
        return ProcessFailed(f"{self.name} {what}; it printed:\n{self.log(40)}")


class Server(ABC):
    """A server as a child process: `async with` starts and stops it. It can be started again after `kill`."""

    grace = 5.0
    """Seconds between SIGTERM and SIGKILL."""

    def __init__(self, process: ChildProcess, *gives_back: Callable[[], object]) -> None:
        """`gives_back`: functions that release the server's ports and folders, called by `stop`."""
        self._process = process
        self._gives_back = gives_back

    @abstractmethod
    async def _until_ready(self) -> None:
        """Waits until the server is usable. Raises ProcessFailed, with its output."""

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self, lines: int = 0) -> str:
        """See `ChildProcess.log`."""
        return self._process.log(lines)

    async def start(self) -> None:
        """Starts the server and waits until it is usable. Raises ProcessFailed, with its output, on failure."""
        self._process.spawn()
        try:
            await self._until_ready()
        except BaseException:
            await self._process.kill()
            raise

    async def kill(self) -> None:
        """Sends SIGKILL, to simulate a crash."""
        await self._process.kill()

    async def restart(self) -> None:
        """Kills the server and starts it again on the same ports."""
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        """Ends the server with SIGTERM (see `grace`) and releases its ports."""
        await self._process.stop(self.grace)
        self._process.close()
        for give_back in self._gives_back:
            give_back()

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
