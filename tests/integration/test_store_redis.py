"""The service with its store in Redis: calls of several processes, a Redis that goes away, what an operator sees."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from carrier_simulator import Document, TwilioSimulator
from connector.app import Connector
from connector.cli.doctor import examine
from connector.cli.findings import Finding
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from connector.storage.base import StoreError
from demo.livekit_server import LiveKitServer
from demo.redis_server import RedisServer
from tests.integration.harness import (
    OUTBOUND,
    PATIENCE,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    stage_on,
    until,
)
from tests.integration.rpc import RpcFailed, rpc_over

PASSWORD = "word-of-the-store"


@pytest.fixture
async def redis(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(password=PASSWORD, folder=tmp_path) as server:
        yield server


@pytest.fixture
async def stage(redis: RedisServer, livekit: LiveKitServer, tmp_path: Path) -> AsyncIterator[Stage]:
    """Over before Redis: its connectors would wait for it."""
    async with stage_on(livekit, tmp_path) as stage:
        yield stage


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


async def process(stage: Stage, redis: RedisServer, twilio: TwilioSimulator, name: str) -> Connector:
    return await stage.connector(
        store=redis.url, instance=name, twilio_account_sid=twilio.account_sid, twilio_api_url=twilio.base_url
    )


async def test_a_call_made_by_one_process_is_carried_by_another(
    stage: Stage, room: str, redis: RedisServer, twilio: TwilioSimulator
) -> None:
    maker, taker = [await process(stage, redis, twilio, name) for name in ("maker", "taker")]
    guest = await stage.guest(room)
    url = await connect_call(stage.client(maker), room, OUTBOUND)
    elsewhere = url.replace(f":{maker.port}/", f":{taker.port}/")
    former = only_session(maker)
    inline = f'<Response><Connect><Stream url="{elsewhere}"/></Connect></Response>'
    call = twilio.dial("+15551234567", "+15557654321", Document(inline=inline))
    await guest.event("track_subscribed")
    await until(lambda: [each.state for each in taker.calls.live()] == [CallState.ACTIVE])
    await former.finished.wait()
    # Written in the background: what another process needs to carry the active call on.
    async with asyncio.timeout(PATIENCE):
        while not (entries := await maker.store.waiting.list()):  # noqa: ASYNC110 - the store announces nothing
            await asyncio.sleep(0.01)
    assert [(entry.owner, entry.served, entry.stream) for entry in entries] == [("taker", True, 2)]
    (record,) = await maker.store.list_calls()
    assert (record.owner, record.state) == ("taker", CallState.ACTIVE)
    await call.hangup()
    record = await ended(taker)
    assert record.end_reason is EndReason.CARRIER_HANGUP
    assert await maker.store.get_call(record.call_id) == record


async def test_while_redis_is_away_a_call_goes_on_and_a_new_one_is_refused(
    stage: Stage, room: str, redis: RedisServer, twilio: TwilioSimulator, log: list[Any]
) -> None:
    connector = await process(stage, redis, twilio, "only")
    guest = await stage.guest(room)
    call = place(twilio, await connect_call(stage.client(connector), room))
    await guest.event("track_subscribed")
    await until(lambda: only_session(connector).state is CallState.ACTIVE)
    await redis.kill()
    async with rpc_over("twirp json", stage, connector) as rpc:
        with pytest.raises(RpcFailed) as refused:
            await rpc.get("call_nobody")
    assert refused.value.code == "unavailable"
    assert only_session(connector).state is CallState.ACTIVE
    await redis.start()
    await call.hangup()
    assert (await ended(connector)).end_reason is EndReason.CARRIER_HANGUP
    url = await connect_call(stage.client(connector), f"{room}-after")
    assert url
    assert PASSWORD not in repr(log)


async def test_a_process_that_cannot_reach_its_redis_does_not_start(
    stage: Stage, redis: RedisServer, twilio: TwilioSimulator
) -> None:
    await redis.kill()
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        await process(stage, redis, twilio, "only")
    assert PASSWORD not in caught.value.message


async def findings(stage: Stage, store: str) -> list[Finding]:
    found = await examine(stage.settings(store=store))
    assert PASSWORD not in repr(found)
    return [finding for finding in found if finding.subject == "store"]


async def test_the_doctor_checks_redis(stage: Stage, redis: RedisServer) -> None:
    shown = f"redis://{redis.address}/0"
    assert await findings(stage, redis.url) == [Finding("ok", "store", shown)]
    (refused,) = await findings(stage, redis.url.replace(PASSWORD, "another"))
    assert refused.level == "problem"
    assert "refused this user" in refused.text
    await redis.kill()
    (gone,) = await findings(stage, redis.url)
    assert f"the store {shown} cannot be reached" in gone.text
    assert "CONNECTOR_STORE" in gone.mend


async def test_the_doctor_warns_of_a_redis_that_forgets(stage: Stage) -> None:
    async with RedisServer() as forgetful:
        _, warning = await findings(stage, forgetful.url)
    assert warning.level == "warning"
    assert "appendonly yes" in warning.mend
