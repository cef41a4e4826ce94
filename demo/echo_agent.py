"""Starts the echo agent as a process and says when LiveKit may send it jobs."""

from __future__ import annotations

import sys
from collections.abc import Mapping

from demo import script
from demo.connector_process import clean_environment
from demo.process import CHECKOUT, ChildProcess, Server

_START_PATIENCE = 30.0


class EchoAgent(Server):
    """Use as `async with EchoAgent(livekit.environment)`: `demo.agent` in a process of its own.

    An empty `greeting` means none: the echo begins at once. `options` are more of the agent's flags.
    """

    grace = 2.0
    """It waits some seconds for jobs whose rooms are being closed; nothing of theirs is worth it."""

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
