"""ConnectTwilioCall with livekit-api; see ../README.md for how it is called."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

import aiohttp
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch

INBOUND = api.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_INBOUND
OUTBOUND = api.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND
PREFIX = "attribute."


def client(scenario: str) -> api.LiveKitAPI:
    if scenario != "without-grant":
        return api.LiveKitAPI()
    grants = api.VideoGrants(room_list=True)
    # The key and secret come from the environment, as for the client itself.
    return api.LiveKitAPI.with_token(api.AccessToken().with_grants(grants).to_jwt(), os.environ["LIVEKIT_URL"])


def request(scenario: str, values: dict[str, str]) -> api.ConnectTwilioCallRequest:
    agents = []
    if "agent" in values:
        agents = [RoomAgentDispatch(agent_name=values["agent"], metadata=values.get("agent.metadata", ""))]
    return api.ConnectTwilioCallRequest(
        twilio_call_direction=INBOUND if scenario == "inbound" else OUTBOUND,
        room_name=values.get("room", ""),
        destination_country=values.get("country", ""),
        participant_identity=values.get("identity", ""),
        participant_name=values.get("name", ""),
        participant_metadata=values.get("metadata", ""),
        participant_attributes={
            key.removeprefix(PREFIX): value for key, value in values.items() if key.startswith(PREFIX)
        },
        agents=agents,
    )


async def run(scenario: str, values: dict[str, str]) -> dict[str, Any]:
    async with client(scenario) as lkapi:
        try:
            response = await lkapi.connector.connect_twilio_call(request(scenario, values))
        except api.TwirpError as error:
            return {"error": {"code": error.code, "message": error.message, "status": error.status}}
        except aiohttp.ClientError as error:
            return {"error": {"code": None, "message": str(error), "status": None}}
        return {"connect_url": response.connect_url}


if __name__ == "__main__":
    scenario, *pairs = sys.argv[1:]
    print(json.dumps(asyncio.run(run(scenario, dict(pair.split("=", 1) for pair in pairs)))))
