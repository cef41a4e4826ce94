"""Everything the demo needs, started and stopped together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from livekit import api

from connector.demo.carrier import Outcome, TwilioSimulator
from connector.demo.connector_process import ConnectorProcess
from connector.demo.echo_agent import EchoAgent
from connector.demo.livekit_server import LiveKitServer


@dataclass(frozen=True, slots=True)
class World:
    livekit: LiveKitServer
    connector: ConnectorProcess
    agent: EchoAgent
    carrier: TwilioSimulator
    connector_api: api.LiveKitAPI
    """LiveKit's own SDK, pointed at the connector: there its connector service lives."""
    livekit_api: api.LiveKitAPI


@asynccontextmanager
async def whole_world() -> AsyncIterator[World]:
    """LiveKit first, then side by side what needs it. Raises ProcessFailed or ServerMissing."""
    async with AsyncExitStack() as stack:
        livekit = await stack.enter_async_context(LiveKitServer())
        # People take a moment to pick up: long enough to be seen ringing.
        carrier = await stack.enter_async_context(TwilioSimulator(outcome=Outcome(after=0.5)))
        connector = ConnectorProcess(
            {
                **livekit.environment,
                "TWILIO_ACCOUNT_SID": carrier.account_sid,
                "TWILIO_AUTH_TOKEN": carrier.auth_token,
            }
        )
        agent = EchoAgent(livekit.environment)
        stack.push_async_callback(_stop_both, connector, agent)
        await asyncio.gather(connector.start(), agent.start())
        connector_api = api.LiveKitAPI(connector.url, livekit.api_key, livekit.api_secret)
        stack.push_async_callback(connector_api.aclose)
        livekit_api = api.LiveKitAPI(livekit.http_url, livekit.api_key, livekit.api_secret)
        stack.push_async_callback(livekit_api.aclose)
        yield World(livekit, connector, agent, carrier, connector_api, livekit_api)


async def _stop_both(connector: ConnectorProcess, agent: EchoAgent) -> None:
    await asyncio.gather(connector.stop(), agent.stop())
