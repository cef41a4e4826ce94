"""The REST API of a running connector, as a client of it."""

from __future__ import annotations

from typing import Any

import aiohttp
from livekit import api

from connector.app import Connector


class RestClient:
    """Use the connector's own address, whatever its public URL is."""

    def __init__(self, http: aiohttp.ClientSession, connector: Connector) -> None:
        settings = connector.settings
        token = api.AccessToken(settings.livekit_api_key, settings.livekit_api_secret.get_secret_value())
        self.token = token.with_grants(api.VideoGrants(room_create=True)).to_jwt()
        self.origin = f"http://127.0.0.1:{connector.port}"
        self._http = http

    async def __call__(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and JSON."""
        url, headers = f"{self.origin}{path}", {"Authorization": self.token}
        async with self._http.request(method, url, json=body, headers=headers) as response:
            return response.status, await response.json()

    async def ok(self, method: str, path: str, body: Any = None) -> Any:
        status, answer = await self(method, path, body)
        assert status in (200, 201), answer
        return answer

    async def connector(self, **fields: Any) -> Any:
        """Make one; its data."""
        return (await self.ok("POST", "/v2/connectors", {"provider": "twilio"} | fields))["data"]

    async def rule(self, **fields: Any) -> Any:
        """Make an inbound one."""
        return await self.ok("POST", "/v2/sip/routing-rule", {"name": "Rule", "type": "inbound"} | fields)
