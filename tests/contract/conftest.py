"""Each store, under one name: what a test asks of `store` it asks of all."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from redis import Redis

from connector.storage.base import Store
from demo.redis_server import RedisServer
from tests.contract.racer import store_from


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One for all tests of a process: each begins with an empty one."""
    server = RedisServer()
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(params=["sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty store is, as CONNECTOR_STORE has it. A new store joins by a name and an address here.

    In Redis it has a prefix of its own: a key that is built without it fails here, and would not with the default one,
    which tests/unit/storage/test_redis.py has."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'calls.db'}"
    server: RedisServer = request.getfixturevalue("redis_server")
    with Redis.from_url(server.url) as client:
        client.flushall()
    return f"{server.url}#tests:{{1}}:"


@pytest.fixture
def make(address: str) -> Callable[[], Store]:
    """Each store it makes sees what the others wrote."""
    return lambda: store_from(address)


@pytest.fixture
async def store(make: Callable[[], Store]) -> AsyncIterator[Store]:
    store = make()
    await store.open()
    yield store
    await store.close()
