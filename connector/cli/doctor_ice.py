"""Checks that the names of LiveKit's STUN and TURN servers resolve on this host.

livekit-server sends its clients to public STUN servers unless its configuration names others. Where those names do not
resolve, each connection of the SDK keeps some thirty threads that wait for an answer: 20 calls had 1,144 threads and
3,911 open files. LiveKit sends the names in its first answer to a join.
"""

from __future__ import annotations

import asyncio
import datetime
import re
import secrets
import socket
from collections.abc import Iterable

import aiohttp
from livekit import api
from livekit.protocol.rtc import SignalResponse

from connector.cli.findings import Finding
from connector.config import Settings
from connector.errors import ConnectorError
from connector.livekit_api import LiveKitApi

PATIENCE = 5.0
_HOST = re.compile(r"(?:stun|turn)s?:(?P<host>\[[^]]+\]|[^:?]+)", re.IGNORECASE)


async def ice_findings(settings: Settings, livekit: LiveKitApi) -> list[Finding]:
    """No findings when LiveKit refuses the join: another check reports that."""
    subject = "STUN"
    try:
        async with asyncio.timeout(PATIENCE):
            hosts = hosts_of(await _ice_urls(settings, livekit))
        lost = [host for host in hosts if not await _resolves(host)]
    except (ConnectorError, aiohttp.ClientError, TimeoutError, OSError, ValueError):
        return []
    if not lost:
        return [
            Finding(
                "ok",
                subject,
                f"the host names of LiveKit's STUN and TURN servers resolve: {', '.join(hosts) or 'none'}",
            )
        ]
    return [
        Finding(
            "warning",
            subject,
            f"{', '.join(lost)}: this machine cannot resolve these servers of LiveKit, so each call costs some "
            "thirty threads and a hundred open files",
            "set rtc.stun_servers in livekit-server's config to a server whose name resolves here (docs/deploy.md)",
        )
    ]


def hosts_of(urls: Iterable[str]) -> list[str]:
    """The names and addresses in these ICE URLs, each once."""
    found = (match["host"].strip("[]") for url in urls if (match := _HOST.match(url)))
    return list(dict.fromkeys(found))


async def _ice_urls(settings: Settings, livekit: LiveKitApi) -> list[str]:
    """The ICE URLs from the signalling of a join: hidden, in a separate room that is deleted at once."""
    room = f"connector-doctor-{secrets.token_hex(4)}"
    key, secret = settings.livekit_api_key, settings.livekit_api_secret.get_secret_value()
    token = (
        api.AccessToken(key, secret)
        .with_identity("connector-doctor")
        .with_grants(api.VideoGrants(room_join=True, room=room, hidden=True))
        .with_ttl(datetime.timedelta(seconds=60))
    )
    query = {"access_token": token.to_jwt(), "protocol": "15", "auto_subscribe": "0"}
    async with (
        aiohttp.ClientSession() as session,
        session.ws_connect(f"{settings.livekit_ws_url}/rtc", params=query) as websocket,
    ):
        answer = SignalResponse.FromString(await websocket.receive_bytes())
        # Delete it while the participant is connected: a leaving participant keeps LiveKit's room for a moment longer.
        async with livekit.request() as sdk:
            await sdk.room.delete_room(api.DeleteRoomRequest(room=room))
    return [url for server in answer.join.ice_servers for url in server.urls]


async def _resolves(host: str) -> bool:
    try:
        async with asyncio.timeout(PATIENCE):
            await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_DGRAM)
    except (OSError, TimeoutError):
        return False
    return True
