"""The connection to one Redis server: reconnection, translated errors, the version of the schema."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import AuthenticationError, BusyLoadingError, NoPermissionError, RedisError
from redis.exceptions import ConnectionError as RedisGone
from redis.exceptions import TimeoutError as RedisSlow

from connector.logs import never_log
from connector.storage.base import DEFAULT_PREFIX, StoreError, StoreTooNew

PATIENCE = 3.0
"""Seconds to retry the connection to the server before an operation fails."""
ANSWER_TIMEOUT = 2.0
"""Seconds. Every script takes milliseconds."""
IDLE = 15.0
"""Seconds after which an idle connection is tested before use: a firewall may have dropped it silently."""
CONNECTIONS = 16
PREFIX = "@prefix@"
"""Placeholder in scripts and keys for the configured prefix of every key."""


class RedisServer:
    """Runs Lua scripts, which are atomic: the server runs one script at a time.

    A script is sent only once. If its response is lost, we cannot know whether it ran, and the retry of a claim would
    report that somebody else won it. Only connecting to the server is retried, for `PATIENCE` seconds."""

    def __init__(self, url: str, migrations: Mapping[int, str], prefix: str = DEFAULT_PREFIX) -> None:
        """`url`: redis[s]://[[user]:password@]host[:port][/db]. `migrations`: version of the schema -> Lua code that
        upgrades from the previous version. `prefix`: see PREFIX; without quotes, backslashes and control characters."""
        self._prefix = prefix
        parts = urlsplit(url)
        self.name = f"{parts.scheme}://{parts.hostname}:{parts.port or 6379}{parts.path.rstrip('/')}"
        self._password = unquote(parts.password or "")
        never_log(self._password)
        self._arguments: dict[str, Any] = {
            "connection_class": SSLConnection if parts.scheme == "rediss" else Connection,
            "host": parts.hostname,
            "port": parts.port or 6379,
            "db": int(parts.path.strip("/") or 0),
            "username": unquote(parts.username or "") or None,
            "password": self._password or None,
        }
        self._migrations = migrations
        self._client: Redis | None = None
        self._scripts: dict[str, AsyncScript] = {}

    async def open(self) -> None:
        """Connects to the server and upgrades the schema; a newer schema is refused."""
        self._client = Redis.from_pool(_Pool(**self._arguments))
        try:
            version = int(await self.run(_migration(self._migrations), [f"{PREFIX}schema"]))
            if version > max(self._migrations):
                raise StoreTooNew(
                    f"{self.name} has schema {version}, this connector knows {max(self._migrations)}; "
                    "use a newer connector"
                )
        except BaseException:
            await self.close()
            raise

    async def close(self) -> None:
        client, self._client = self._client, None
        self._scripts.clear()
        if client is not None:
            await client.aclose()

    async def run(self, script: str, keys: Iterable[str] = (), values: Iterable[str | float] = ()) -> Any:
        """Runs a script with `keys` as KEYS and `values` as ARGV. Numbers are passed in Python's format. A script must
        not convert a number to a string: Lua formats a Unix time with too few digits."""
        if self._client is None:
            raise StoreError(f"the store {self.name} is not open")
        if script not in self._scripts:
            self._scripts[script] = self._client.register_script(script.replace(PREFIX, self._prefix))
        keys = [key.replace(PREFIX, self._prefix, 1) for key in keys]
        texts = [value if isinstance(value, str) else repr(value) for value in values]
        async with self._translated():
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    return await self._scripts[script](keys, texts)
                except BusyLoadingError:
                    # The script did not run: a starting server first loads its data. A retry is safe.
                    if time.monotonic() > deadline:
                        raise
                    await asyncio.sleep(0.05)

    @asynccontextmanager
    async def _translated(self) -> AsyncIterator[None]:
        try:
            yield
        except (AuthenticationError, NoPermissionError) as error:
            raise StoreError(f"the store {self.name} refused this user: {self._said(error)}") from error
        except (RedisGone, RedisSlow) as error:
            raise StoreError(f"the store {self.name} cannot be reached: {self._said(error)}") from error
        except (RedisError, OSError, ValueError) as error:
            raise StoreError(f"the store {self.name} failed: {self._said(error)}") from error

    def _said(self, error: Exception) -> str:
        text = str(error).rstrip(".")
        return text.replace(self._password, "[secret]") if self._password else text


class _Pool(BlockingConnectionPool):
    """Hands out only working connections, even after an outage of the server if it returns within `PATIENCE`."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(
            max_connections=CONNECTIONS,
            timeout=PATIENCE,
            socket_timeout=ANSWER_TIMEOUT,
            socket_connect_timeout=ANSWER_TIMEOUT,
            socket_keepalive=True,
            health_check_interval=IDLE,
            decode_responses=True,
            protocol=2,
            retry=Retry(NoBackoff(), 0),
            **arguments,
        )

    async def ensure_connection(self, connection: Any) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                await super().ensure_connection(connection)
                await connection.check_health()
            except (RedisGone, RedisSlow) as error:
                if time.monotonic() > deadline or _waiting_is_in_vain(error):
                    raise
                await asyncio.sleep(0.05)
            else:
                return


def _waiting_is_in_vain(error: Exception) -> bool:
    return isinstance(error, AuthenticationError) or isinstance(error.__context__, ssl.SSLCertVerificationError)


def _migration(migrations: Mapping[int, str]) -> str:
    """Joins all migrations into one script, so that they are atomic if several processes start at the same time."""
    steps = [f"if version < {number} then\n{migrations[number]}\nend" for number in sorted(migrations)]
    newest = max(migrations)
    return "\n".join(
        (
            "local version = tonumber(redis.call('GET', KEYS[1]) or '0')",
            *steps,
            f"if version < {newest} then redis.call('SET', KEYS[1], '{newest}') end",
            f"return math.max(version, {newest})",
        )
    )
