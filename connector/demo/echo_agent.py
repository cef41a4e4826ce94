"""Starts the echo agent as a process and says when LiveKit may send it jobs."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from types import TracebackType
from typing import Self

from connector.demo import script
from connector.demo.connector_process import clean_environment
from connector.demo.process import ChildProcess

_START_PATIENCE = 30.0


class EchoAgent:
    """Use as `async with EchoAgent(livekit.environment)`: `connector.demo.agent` in a process of its own.

    An empty `greeting` means none: the echo begins at once. `options` are more of the agent's flags.
    """

    def __init__(
        self,
        environment: Mapping[str, str],
        *,
        name: str = script.AGENT_NAME,
        greeting: str = script.GREETING,
        options: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        argv = [sys.executable, "-m", "connector.demo.agent", "--name", name, "--url", environment["LIVEKIT_URL"]]
        self._process = ChildProcess(
            "echo agent", [*argv, "--greeting", greeting, *options], {**clean_environment(), **environment}
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self, lines: int = 0) -> str:
        return self._process.log(lines)

    async def start(self) -> None:
        """Return when it is registered; raise ProcessFailed, with its output, when it does not get there."""
        self._process.spawn()
        try:
            await self._process.until_prints(f"agent {self.name} registered", _START_PATIENCE)
        except BaseException:
            await self._process.kill()
            raise

    async def stop(self) -> None:
        # It waits some seconds for jobs whose rooms are being closed; nothing of theirs is worth it.
        await self._process.stop(grace=2.0)
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
