"""Starts the connector like its users: `python -m connector serve`, configured by the environment."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from demo.ports import PortLease
from demo.process import ChildProcess, Server

_START_PATIENCE = 40.0
_OURS = ("CONNECTOR_", "LIVEKIT_", "TWILIO_", "TELNYX_", "PLIVO_")


def clean_environment() -> dict[str, str]:
    """Returns this process's environment without variables that configure a connector, an agent or a server."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}


class ConnectorProcess(Server):
    """Use as `async with ConnectorProcess(environment)`; its calls are stored in its own directory.

    `environment` must name the LiveKit server and may set any other variable of `connector serve`. `module`: the
    module to run, with its arguments.
    """

    def __init__(self, environment: Mapping[str, str], module: Sequence[str] = ("connector", "serve")) -> None:
        self._lease = PortLease()
        directory = tempfile.TemporaryDirectory(prefix="connector-demo-")
        self.environment = {
            "CONNECTOR_HOST": "127.0.0.1",
            "CONNECTOR_PORT": str(self._lease.port),
            "CONNECTOR_GRPC_PORT": "0",
            "CONNECTOR_STORE": f"sqlite:///{Path(directory.name) / 'calls.db'}",
            "CONNECTOR_DRAIN_TIMEOUT": "1",
            **environment,
        }
        argv = [sys.executable, "-m", *module]
        process = ChildProcess("connector", argv, {**clean_environment(), **self.environment})
        super().__init__(process, self._lease.close, directory.cleanup)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._lease.port}"

    async def _until_ready(self) -> None:
        await self._process.until_answers(self.url + "/readyz", _START_PATIENCE)
