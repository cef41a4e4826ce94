"""Checks whether a worker is registered under an agent's name. LiveKit does not list workers, but reports whether a
worker took a dispatch. So the check creates a dispatch, in a room that it deletes right after."""

from __future__ import annotations

import asyncio
import secrets

from livekit import api

from connector.cli.findings import Finding
from connector.errors import ConnectorError
from connector.livekit_api import LiveKitApi

PATIENCE = 6.0
"""Seconds for a worker to take the job."""


async def agent_findings(livekit: LiveKitApi, agent: str) -> list[Finding]:
    """No findings without a name. The agent's job starts and ends: its entrypoint sees an empty room."""
    if not agent:
        return []
    subject = "agent"
    room = f"connector-doctor-{secrets.token_hex(4)}"
    try:
        async with livekit.request(PATIENCE + 5.0) as sdk:
            await sdk.room.create_room(
                api.CreateRoomRequest(name=room, empty_timeout=30, agents=[api.RoomAgentDispatch(agent_name=agent)])
            )
            try:
                taken = await _is_taken(sdk, room)
            finally:
                await sdk.room.delete_room(api.DeleteRoomRequest(room=room))
    except ConnectorError as error:
        return [Finding("warning", subject, f"cannot check whether {agent} is registered: {error.message}")]
    if taken:
        return [Finding("ok", subject, f"a worker is registered as {agent} and took a job")]
    text = f"no worker took a job for {agent} within {PATIENCE:g} s"
    return [Finding("problem", subject, text, "start the agent, with this LIVEKIT_URL and this agent_name")]


async def _is_taken(sdk: api.LiveKitAPI, room: str) -> bool:
    for _ in range(round(PATIENCE / 0.2)):
        dispatches = await sdk.agent_dispatch.list_dispatch(room)
        if any(dispatch.state.jobs for dispatch in dispatches):
            return True
        await asyncio.sleep(0.2)
    return False
