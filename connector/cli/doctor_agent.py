"""Checks whether a worker is registered under an agent's name. LiveKit does not list workers, but reports whether a
worker took a dispatch. So the check creates a dispatch, in a room that it deletes right after."""

from __future__ import annotations

import asyncio
import secrets

from livekit import api

from connector.cli.findings import Finding
from connector.config import Settings
from connector.errors import ConnectorError
from connector.livekit_errors import translated

PATIENCE = 6.0
"""Seconds for a worker to take the job."""


async def agent_findings(settings: Settings, agent: str) -> list[Finding]:
    """No findings without a name. The agent's job starts and ends: its entrypoint sees an empty room."""
    if not agent:
        return []
    subject, secret = "agent", settings.livekit_api_secret.get_secret_value()
    room = f"connector-doctor-{secrets.token_hex(4)}"
    try:
        async with (
            api.LiveKitAPI(settings.livekit_http_url, settings.livekit_api_key, secret, failover=False) as livekit,
            translated(settings.livekit_http_url, PATIENCE + 5.0),
        ):
            await livekit.room.create_room(
                api.CreateRoomRequest(name=room, empty_timeout=30, agents=[api.RoomAgentDispatch(agent_name=agent)])
            )
            try:
                taken = await _is_taken(livekit, room)
            finally:
                await livekit.room.delete_room(api.DeleteRoomRequest(room=room))
    except ConnectorError as error:
        return [Finding("warning", subject, f"whether {agent} is registered cannot be asked: {error.message}")]
    if taken:
        return [Finding("ok", subject, f"a worker has registered as {agent}, and took a job")]
    text = f"no worker has taken a job of {agent} in {PATIENCE:g} s"
    return [Finding("problem", subject, text, "start the agent, with this LIVEKIT_URL and this agent_name")]


async def _is_taken(livekit: api.LiveKitAPI, room: str) -> bool:
    for _ in range(round(PATIENCE / 0.2)):
        dispatches = await livekit.agent_dispatch.list_dispatch(room)
        if any(dispatch.state.jobs for dispatch in dispatches):
            return True
        await asyncio.sleep(0.2)
    return False
