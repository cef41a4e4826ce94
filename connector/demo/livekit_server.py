"""A private livekit-server on the loopback, for the demo and the tests."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path
from types import TracebackType
from typing import Self

from connector.demo.ports import PortLease
from connector.demo.process import ChildProcess

_START_PATIENCE = 20.0


class ServerMissing(RuntimeError):
    """There is no livekit-server program to start."""


def find_binary() -> Path:
    """`LIVEKIT_SERVER_BIN`, else `.tools/livekit-server` in the working directory or beside the package."""
    named = os.environ.get("LIVEKIT_SERVER_BIN")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise ServerMissing(f"LIVEKIT_SERVER_BIN names {named}, which is not a program")
    for root in (Path.cwd(), Path(__file__).resolve().parents[2]):
        binary = root / ".tools" / "livekit-server"
        if os.access(binary, os.X_OK):
            return binary
    raise ServerMissing("there is no .tools/livekit-server: run `make setup` (or set LIVEKIT_SERVER_BIN)")


class LiveKitServer:
    """Use as `async with LiveKitServer() as livekit`. Its ports are the same for its whole life."""

    def __init__(self, *, redis: str | None = None, binary: Path | None = None, log_level: str = "warn") -> None:
        """`redis` is `host:port`; LiveKit's SIP API and several nodes need one."""
        self.api_key = "devkey"
        self.api_secret = secrets.token_hex(24)
        self._leases = [PortLease(), PortLease()]
        config = self._config(redis, log_level)
        self._process = ChildProcess(
            "livekit-server", [str(binary or find_binary()), "--config-body", json.dumps(config)]
        )

    def _config(self, redis: str | None, log_level: str) -> dict[str, object]:
        config: dict[str, object] = {
            "port": self._leases[0].port,
            "bind_addresses": ["127.0.0.1"],
            "rtc": {
                "tcp_port": 0,
                "udp_port": self._leases[1].port,
                "node_ip": "127.0.0.1",
                "use_external_ip": False,
                "enable_loopback_candidate": True,
                "interfaces": {"includes": ["lo"]},
                # Without this its clients are sent to public STUN servers, and where names cannot be resolved
                # each of their connections keeps some thirty threads waiting for an answer.
                "stun_servers": ["127.0.0.1:9"],
            },
            "keys": {self.api_key: self.api_secret},
            "logging": {"level": log_level},
        }
        if redis:
            config["redis"] = {"address": redis}
        return config

    @property
    def port(self) -> int:
        return self._leases[0].port

    @property
    def url(self) -> str:
        """What LIVEKIT_URL should be."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which LiveKit's tools and this project find a server."""
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": self.api_key,
            "LIVEKIT_API_SECRET": self.api_secret,
        }

    @property
    def is_running(self) -> bool:
        return self._process.is_running

    @property
    def pid(self) -> int:
        return self._process.pid

    def log(self, lines: int = 0) -> str:
        return self._process.log(lines)

    async def start(self) -> None:
        """Return when it answers; raise ProcessFailed, with its output, when it does not."""
        self._process.spawn()
        try:
            await self._process.until_answers(self.http_url, _START_PATIENCE)
        except BaseException:
            await self._process.kill()
            raise

    async def kill(self) -> None:
        """As a crash: nobody in its rooms is told."""
        await self._process.kill()

    async def restart(self) -> None:
        """Kill it and start it again on the same ports."""
        await self.kill()
        await self.start()

    async def stop(self) -> None:
        """End it and give its ports back."""
        # A SIGTERM makes it wait for its rooms to empty; nothing here is worth waiting for.
        await self._process.stop(grace=0.3)
        for lease in self._leases:
            lease.close()
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
