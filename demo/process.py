"""A server of the demo as a child process: its output is kept, and it does not outlive its owner's `stop`."""

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
"""Where `python -m demo.…` finds this package, which is not installed."""


class ProcessFailed(RuntimeError):
    """It ended, or did not get ready; the message holds the end of its output."""


def text_of(output: IO[bytes]) -> str:
    """What a child has written into this file until now. It shares our place in it: after a seek here it would write
    over what it has written."""
    return os.pread(output.fileno(), os.fstat(output.fileno()).st_size, 0).decode(errors="replace")


class ChildProcess:
    """Bound to no event loop: a fixture may start it in one and stop it in another."""

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
        """0 when it is not running."""
        return self._process.pid if self._process and self._process.poll() is None else 0

    @property
    def is_running(self) -> bool:
        return self.pid != 0

    def log(self, lines: int = 0) -> str:
        """All it has printed since its first start, or its last `lines`."""
        text = self._text()
        return "\n".join(text.splitlines()[-lines:]) if lines else text

    def _text(self) -> str:
        if not self._output.closed:
            self._last_text = text_of(self._output)
        return self._last_text

    def spawn(self) -> None:
        """Start it; ready or not."""
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
            # A Ctrl-C is for the owner, who stops its children in the right order.
            process_group=0,
        )

    async def until_answers(self, url: str, patience: float) -> None:
        """Return when `url` answers 200; raise ProcessFailed when it ends or does not within `patience` s."""
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
        """Return when its output holds `text`; raise ProcessFailed like `until_answers`."""
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            if text in self.log():
                return
            self._check_alive()
            await asyncio.sleep(0.02)
        raise self._failed(f"did not print {text!r} within {patience:g} s")

    async def stop(self, grace: float = 5.0) -> None:
        """SIGTERM, and SIGKILL for what has not ended within `grace` seconds. Does nothing when not running."""
        process = self._process
        if process and process.poll() is None:
            process.terminate()
            try:
                await asyncio.to_thread(process.wait, grace)
            except subprocess.TimeoutExpired:
                await self.kill()

    async def kill(self) -> None:
        """SIGKILL: no goodbye to anybody."""
        process = self._process
        if process and process.poll() is None:
            process.kill()
            await asyncio.to_thread(process.wait)

    def close(self) -> None:
        """Let the file of the output go; the text can still be read. The process must have ended."""
        self._text()
        self._output.close()

    def _check_alive(self) -> None:
        if not self.is_running:
            status = self._process.returncode if self._process else None
            raise self._failed(f"ended with status {status}")

    def _failed(self, what: str) -> ProcessFailed:
        return ProcessFailed(f"{self.name} {what}; it printed:\n{self.log(40)}")


class Server(ABC):
    """A server as a child process: `async with` starts it, and stops it. It may be started again after a `kill`."""

    grace = 5.0
    """Seconds it gets to stop by itself."""

    def __init__(self, process: ChildProcess, *gives_back: Callable[[], object]) -> None:
        """`gives_back` let go, when it has ended for good, of the ports and folders it was given."""
        self._process = process
        self._gives_back = gives_back

    @abstractmethod
    async def _until_ready(self) -> None:
        """Return when it can be used. Raises ProcessFailed, with its output."""

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
        """Return when it can be used; raise ProcessFailed, with its output, when it does not get there."""
        self._process.spawn()
        try:
            await self._until_ready()
        except BaseException:
            await self._process.kill()
            raise

    async def kill(self) -> None:
        """SIGKILL, as a crash: nobody is told."""
        await self._process.kill()

    async def restart(self) -> None:
        """Kill it and start it again, in the same place."""
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        """SIGTERM, and the end of it: its ports are free afterwards."""
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
