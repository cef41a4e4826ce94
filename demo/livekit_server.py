"""A private livekit-server on the loopback, for the demo and the tests."""

from __future__ import annotations

import json
import os
import secrets
from pathlib import Path

from demo.ports import PortLease
from demo.process import ChildProcess, Server

_START_PATIENCE = 20.0


class ServerMissing(RuntimeError):
    """No livekit-server program was found."""


def find_binary() -> Path:
    """Returns `LIVEKIT_SERVER_BIN`, else `.tools/livekit-server` in the working directory or next to the package."""
    named = os.environ.get("LIVEKIT_SERVER_BIN")
    if named:
        if os.access(named, os.X_OK):
            return Path(named)
        raise ServerMissing(f"LIVEKIT_SERVER_BIN names {named}, which is not an executable file")
    for root in (Path.cwd(), Path(__file__).resolve().parents[1]):
        binary = root / ".tools" / "livekit-server"
        if os.access(binary, os.X_OK):
            return binary
    raise ServerMissing("there is no .tools/livekit-server: run `make setup` (or set LIVEKIT_SERVER_BIN)")


class LiveKitServer(Server):
    """Use as `async with LiveKitServer() as livekit`. Its ports do not change during its lifetime."""

    grace = 0.3
    """Seconds. On SIGTERM the server waits until its rooms are empty; the demo need not wait for that."""

    def __init__(self, *, redis: str | None = None, binary: Path | None = None, log_level: str = "warn") -> None:
        """`redis` is `host:port`; LiveKit's SIP API and several nodes need one."""
        self.api_key = "devkey"
        self.api_secret = secrets.token_hex(24)
        self._leases = [PortLease(), PortLease()]
        config = self._config(redis, log_level)
        argv = [str(binary or find_binary()), "--config-body", json.dumps(config)]
        super().__init__(ChildProcess("livekit-server", argv), *(lease.close for lease in self._leases))

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
                # Otherwise its clients use public STUN servers. Without name resolution, each of their connections
                # then keeps about thirty threads waiting for an answer.
                "stun_servers": ["127.0.0.1:9"],
            },
            # Lets an admin unmute a caller that the admin has muted.
            "room": {"enable_remote_unmute": True},
            "keys": {self.api_key: self.api_secret},
            # Each closed connection makes the transport log three warnings, which would hide all other warnings.
            "logging": {"level": log_level, "component_levels": {"transport": "error"}},
        }
        if redis:
            config["redis"] = {"address": redis}
        return config

    @property
    def port(self) -> int:
        return self._leases[0].port

    @property
    def url(self) -> str:
        """The value for LIVEKIT_URL."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables with which LiveKit's tools and this project find the server."""
        return {
            "LIVEKIT_URL": self.url,
            "LIVEKIT_API_KEY": self.api_key,
            "LIVEKIT_API_SECRET": self.api_secret,
        }

    async def _until_ready(self) -> None:
        await self._process.until_answers(self.http_url, _START_PATIENCE)
