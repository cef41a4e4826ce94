"""All parts of the demo, started and stopped together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from livekit import api

from carrier_simulator import CarrierSimulator
from demo.connector_process import ConnectorProcess
from demo.echo_agent import EchoAgent
from demo.livekit_server import LiveKitServer
from demo.providers import Account


@dataclass(frozen=True, slots=True)
class World:
    livekit: LiveKitServer
    connector: ConnectorProcess
    agent: EchoAgent
    account: Account
    connector_api: api.LiveKitAPI
    """LiveKit's SDK with the connector's URL, since the connector implements LiveKit's connector service."""
    livekit_api: api.LiveKitAPI

    @property
    def carrier(self) -> CarrierSimulator:
        return self.account.carrier


@asynccontextmanager
async def whole_world(account: Account, workers: int = 1) -> AsyncIterator[World]:
    """Starts LiveKit, then concurrently the parts that need it. `workers`: number of the connector's processes. Raises
    ProcessFailed or ServerMissing."""
    async with AsyncExitStack() as stack:
        livekit = await stack.enter_async_context(LiveKitServer())
        await stack.enter_async_context(account.carrier)
        connector = ConnectorProcess(
            {**livekit.environment, **account.environment(), "CONNECTOR_WORKERS": str(workers)}
        )
        agent = EchoAgent(livekit.environment)
        stack.push_async_callback(_stop_both, connector, agent)
        await asyncio.gather(connector.start(), agent.start())
        connector_api = api.LiveKitAPI(connector.url, livekit.api_key, livekit.api_secret)
        stack.push_async_callback(connector_api.aclose)
        livekit_api = api.LiveKitAPI(livekit.http_url, livekit.api_key, livekit.api_secret)
        stack.push_async_callback(livekit_api.aclose)
        yield World(livekit, connector, agent, account, connector_api, livekit_api)


async def _stop_both(connector: ConnectorProcess, agent: EchoAgent) -> None:
    await asyncio.gather(connector.stop(), agent.stop())
