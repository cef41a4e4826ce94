"""What calls may leave over: callers that LiveKit still has, and records that are not ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta

import aiohttp
from livekit import api

from demo.livekit_server import LiveKitServer

_OPEN = ("STATE_PENDING", "STATE_RINGING", "STATE_ACTIVE")


def room_token(livekit: LiveKitServer, identity: str, room: str) -> str:
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_identity(identity)
    grants = api.VideoGrants(room_join=True, room=room, room_create=True)
    return token.with_ttl(timedelta(hours=1)).with_grants(grants).to_jwt()


async def callers_in(livekit: LiveKitServer, rooms: Iterable[str], prefix: str) -> int:
    """Number of participants in `rooms`, hidden ones included, with an identity that begins with `prefix`."""
    found = 0
    async with api.LiveKitAPI(livekit.http_url, livekit.api_key, livekit.api_secret) as client:
        for room in rooms:
            answer = await client.room.list_participants(api.ListParticipantsRequest(room=room))
            found += sum(participant.identity.startswith(prefix) for participant in answer.participants)
    return found


async def open_records(livekit: LiveKitServer, service_url: str) -> int:
    """Number of calls that have not ended, according to the service."""
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_grants(api.VideoGrants(room_create=True)).to_jwt()
    url = f"{service_url}/twirp/connector.v1.Connector/ListCalls"
    found = 0
    async with aiohttp.ClientSession(headers={"Authorization": f"Bearer {token}"}) as session:
        for state in _OPEN:
            async with session.post(url, json={"state": state}) as answer:
                answer.raise_for_status()
                found += len((await answer.json()).get("calls", []))
    return found


async def until_none(count: Callable[[], Awaitable[int]], patience: float) -> int:
    """Wait until `count` returns 0, at most `patience` seconds; return its last answer."""
    deadline = time.monotonic() + patience
    while (found := await count()) and time.monotonic() < deadline:  # noqa: ASYNC110 - of other processes
        await asyncio.sleep(0.2)
    return found
