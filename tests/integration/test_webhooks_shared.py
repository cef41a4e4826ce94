"""Webhooks of several processes that share a store, and of one whose store fails."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from connector.app import Connector
from connector.model.webhook import LifecycleEvent
from demo.redis_server import RedisServer
from tests.integration.harness import PATIENCE, Stage
from tests.integration.webhooks import Receiver, Rest, happened


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    """It keeps its data over a crash, as one for production has to."""
    server = RedisServer(folder=tmp_path)
    asyncio.run(server.start())
    yield server
    asyncio.run(server.stop())


@pytest.fixture(params=["sqlite", "redis"])
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where both processes keep things, as CONNECTOR_STORE has it."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'shared.db'}"
    server: RedisServer = request.getfixturevalue("redis")
    return server.url


@pytest.fixture
async def two(shared: str, stage: Stage) -> tuple[Connector, Connector]:
    """Two processes of the service, as far as the store can tell. Their store is made before the stage, in the tests
    too: it must outlive them, or they wait for it when they stop."""
    first = await stage.connector(webhook_allow_private=True, store=shared)
    return first, await stage.connector(webhook_allow_private=True, store=shared)


async def test_each_event_is_delivered_once_and_in_order(
    two: tuple[Connector, Connector], stage: Stage, receiver: Receiver
) -> None:
    one, other = two
    http = await stage.http()
    await Rest(http, one.settings).register(receiver.url)
    calls = [f"call_{number}" for number in range(15)]
    for number, call_id in enumerate(calls):
        await happened(two[number % 2], LifecycleEvent.STARTED, call_id=call_id)
        await happened(two[1 - number % 2], LifecycleEvent.HANGUP, call_id=call_id)
    await receiver.count(30)
    for call_id in calls:
        assert receiver.types(call_id) == ["call-started", "call-hangup"]
    public_key = await Rest(http, other.settings).public_key()
    for received in receiver.received:
        received.verify(public_key)


async def test_both_sign_with_the_new_key_at_once(
    two: tuple[Connector, Connector], stage: Stage, receiver: Receiver
) -> None:
    one, other = two
    http = await stage.http()
    await Rest(http, one.settings).register(receiver.url)
    old = await Rest(http, other.settings).public_key()
    assert await Rest(http, one.settings).public_key() == old
    new = await one.webhooks.keys.rotate()
    assert await Rest(http, other.settings).public_key() == new.pem
    await happened(other, LifecycleEvent.STARTED)
    (received,) = await receiver.count(1)
    received.verify(new.pem)
    received.verify(old, "videosdk-signature-retired")


async def test_events_wait_for_a_store_that_has_failed(redis: RedisServer, stage: Stage, receiver: Receiver) -> None:
    connector = await stage.connector(webhook_allow_private=True, store=redis.url)
    await Rest(await stage.http(), connector.settings).register(receiver.url)
    await happened(connector, LifecycleEvent.STARTED)
    await receiver.count(1)
    await settled(connector)
    await redis.kill()
    await happened(connector, LifecycleEvent.ANSWERED, LifecycleEvent.HANGUP)
    assert len(receiver.received) == 1
    await redis.start()
    await receiver.count(3)
    assert receiver.types() == ["call-started", "call-answered", "call-hangup"]


async def settled(connector: Connector) -> None:
    """Until nothing is on its way: what is settled a moment too late is sent once more, after its lease."""
    async with asyncio.timeout(PATIENCE):
        while await connector.store.deliveries.pending():  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0.01)
