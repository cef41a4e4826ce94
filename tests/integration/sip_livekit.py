"""A livekit-server with a Redis, whose SIP API therefore answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest
from livekit import api

from connector.livekit_api import LiveKitApi
from connector.sip.provisioning import SipProvisioning
from demo.livekit_server import LiveKitServer
from demo.redis_server import RedisServer


@pytest.fixture(scope="module")
def sip_livekit() -> Iterator[LiveKitServer]:
    """One for a module's tests: each takes care of its own numbers."""
    redis = RedisServer()
    asyncio.run(redis.start())
    server = LiveKitServer(redis=redis.address)
    try:
        asyncio.run(server.start())
        yield server
    finally:
        asyncio.run(server.stop())
        asyncio.run(redis.stop())


@asynccontextmanager
async def provisioning_at(url: str, api_key: str, api_secret: str) -> AsyncIterator[SipProvisioning]:
    livekit = LiveKitApi(url, api_key, api_secret)
    await livekit.start()
    yield SipProvisioning(livekit)
    await livekit.close()


@pytest.fixture
async def sip(sip_livekit: LiveKitServer) -> AsyncIterator[SipProvisioning]:
    async with provisioning_at(sip_livekit.http_url, sip_livekit.api_key, sip_livekit.api_secret) as sip:
        yield sip


@pytest.fixture
async def lkapi(sip_livekit: LiveKitServer) -> AsyncIterator[api.LiveKitAPI]:
    """LiveKit's own client, emptied of trunks and rules: the other way to see what was set up."""
    client = api.LiveKitAPI(sip_livekit.http_url, sip_livekit.api_key, sip_livekit.api_secret)
    for rule in (await client.sip.list_dispatch_rule(api.ListSIPDispatchRuleRequest())).items:
        await client.sip.delete_dispatch_rule(
            api.DeleteSIPDispatchRuleRequest(sip_dispatch_rule_id=rule.sip_dispatch_rule_id)
        )
    for trunk in (await client.sip.list_inbound_trunk(api.ListSIPInboundTrunkRequest())).items:
        await client.sip.delete_trunk(api.DeleteSIPTrunkRequest(sip_trunk_id=trunk.sip_trunk_id))
    yield client
    await client.aclose()


async def all_trunks(client: api.LiveKitAPI) -> list[api.SIPInboundTrunkInfo]:
    return list((await client.sip.list_inbound_trunk(api.ListSIPInboundTrunkRequest())).items)


async def all_rules(client: api.LiveKitAPI) -> list[api.SIPDispatchRuleInfo]:
    return list((await client.sip.list_dispatch_rule(api.ListSIPDispatchRuleRequest())).items)
