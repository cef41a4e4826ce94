"""Starts the connector as its users do: `python -m connector serve`, set up by the environment."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from connector.demo.ports import PortLease
from connector.demo.process import ChildProcess

_START_PATIENCE = 20.0
_OURS = ("CONNECTOR_", "LIVEKIT_", "TWILIO_", "TELNYX_", "PLIVO_")


def clean_environment() -> dict[str, str]:
    """This process's environment without anything that would set up a connector, an agent or a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


class ConnectorProcess:
    """Use as `async with ConnectorProcess(environment)`; its calls are kept in a directory of its own.

    `environment` must name the LiveKit server and may set anything else `connector serve` reads.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._lease = PortLease()
        self._directory = tempfile.TemporaryDirectory(prefix="connector-demo-")
        self.environment = {
            "CONNECTOR_HOST": "127.0.0.1",
            "CONNECTOR_PORT": str(self._lease.port),
            "CONNECTOR_GRPC_PORT": "0",
            "CONNECTOR_STORE": f"sqlite:///{Path(self._directory.name) / 'calls.db'}",
            "CONNECTOR_DRAIN_TIMEOUT": "1",
            **environment,
        }
        self._process = ChildProcess(
            "connector", [sys.executable, "-m", "connector", "serve"], {**clean_environment(), **self.environment}
        )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._lease.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self, lines: int = 0) -> str:
        return self._process.log(lines)

    async def start(self) -> None:
        """Return when it is ready for calls; raise ProcessFailed, with its output, when it does not get there."""
        self._process.spawn()
        try:
            await self._process.until_answers(self.url + "/readyz", _START_PATIENCE)
        except BaseException:
            await self._process.kill()
            raise

    async def kill(self) -> None:
        """SIGKILL, as a crash; `start` starts it again, with the same calls in its store."""
        await self._process.kill()

    async def stop(self) -> None:
        """SIGTERM: the service drains and ends."""
        await self._process.stop()
        self._process.close()
        self._lease.close()
        self._directory.cleanup()

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
