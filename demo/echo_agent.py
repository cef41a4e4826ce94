"""Starts the echo agent as a process and waits until LiveKit may send it jobs."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from demo import script
from demo.connector_process import clean_environment
from demo.process import CHECKOUT, ChildProcess, Server

_START_PATIENCE = 30.0


class EchoAgent(Server):
    """Use as `async with EchoAgent(livekit.environment)`: `demo.agent` in its own process.

    An empty `greeting` means none: the echo begins at once. `options`: further command-line flags of the agent.
    """

    grace = 2.0
    """Seconds. On SIGTERM the agent waits for jobs with closing rooms; the demo need not wait for them."""

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        name: str = script.AGENT_NAME,
        greeting: str = script.GREETING,
        options: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        argv = [sys.executable, "-m", "demo.agent", "--name", name, "--url", environment["LIVEKIT_URL"]]
        argv += ["--greeting", greeting, *options]
        super().__init__(ChildProcess("echo agent", argv, {**clean_environment(), **environment}, CHECKOUT))

    async def _until_ready(self) -> None:
        await self._process.until_prints(f"agent {self.name} registered", _START_PATIENCE)
