"""The whole service behind its one origin, seen as a customer, a guest and the carrier see it."""

from __future__ import annotations

import contextlib
from typing import Any

import aiohttp
from livekit import api, rtc

from carrier_simulator import TwilioSimulator
from connector.app import Connector
from tests.conformance.deploy.origin import Origin
from tests.integration.harness import Guest, Stage


class Service:
    def __init__(self, stage: Stage, origin: Origin, connector: Connector) -> None:
        self.stage = stage
        self.origin = origin
        self.connector = connector
        self._stack = contextlib.AsyncExitStack()

    async def close(self) -> None:
        await self._stack.aclose()

    async def http(self) -> aiohttp.ClientSession:
        trusting = aiohttp.TCPConnector(ssl=self.origin.authority.context)
        return await self._stack.enter_async_context(aiohttp.ClientSession(connector=trusting))

    async def sdk(self) -> api.LiveKitAPI:
        """LiveKit's SDK with the one URL, for rooms, agents and the connector."""
        livekit = self.stage.livekit
        client = api.LiveKitAPI(
            self.origin.url, livekit.api_key, livekit.api_secret, session=await self.http(), failover=False
        )
        self._stack.push_async_callback(client.aclose)
        return client

    async def twilio(self, **options: Any) -> TwilioSimulator:
        """As strict as Twilio: wss only, and it checks the certificate."""
        twilio = await self.stage.twilio(tls=self.origin.authority.context, **options)
        twilio.web.allow_insecure = False
        return twilio

    async def guest(self, room: str, identity: str = "guest") -> Guest:
        """Joins through the proxy."""
        guest = Guest()
        livekit = self.stage.livekit
        grants = api.VideoGrants(room_join=True, room=room)
        token = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity(identity).with_grants(grants)
        await guest.room.connect(self.origin.url.replace("http", "ws", 1), token.to_jwt(), rtc.RoomOptions())
        self._stack.push_async_callback(guest.leave)
        return guest
