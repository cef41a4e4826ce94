"""A connector that is killed in a call, and its successor."""

from __future__ import annotations

import aiohttp
import pytest
from livekit import api

from carrier_simulator import CallStatus, Document, TelnyxSimulator
from demo.connector_process import ConnectorProcess
from tests.integration.carriers import CALLEE, OURS
from tests.integration.harness import Stage


@pytest.mark.timeout(120)
async def test_a_phone_that_telnyx_holds_is_hung_up_by_the_successor(stage: Stage, room: str) -> None:
    """Its document's pause of a day keeps the phone when the stream has broken."""
    telnyx = TelnyxSimulator()
    await stage.enter(telnyx)
    account = {
        "TELNYX_PUBLIC_KEY": telnyx.public_key,
        "TELNYX_API_KEY": telnyx.api_key,
        "TELNYX_API_URL": telnyx.base_url,
        "CONNECTOR_RESUME_GRACE": "0",
    }
    process = ConnectorProcess({**stage.livekit.environment, **account})
    await stage.enter(process)
    guest = await stage.guest(room)
    call = telnyx.dial(CALLEE, OURS, Document(await connect(stage, process, room)))
    await guest.event("track_subscribed")
    await call.stream_started.wait()
    await process.kill()
    await call.stream.ended.wait()
    assert not call.ended.has_come()
    await process.start()
    await call.ended.wait()
    assert call.status is CallStatus.COMPLETED


async def connect(stage: Stage, process: ConnectorProcess, room: str) -> str:
    grant = api.VideoGrants(room_create=True)
    token = api.AccessToken(stage.livekit.api_key, stage.livekit.api_secret).with_grants(grant).to_jwt()
    fields = {"direction": "CALL_DIRECTION_OUTBOUND", "room_name": room, "participant_identity": "caller"}
    url = process.url + "/twirp/connector.v1.Connector/ConnectTelnyxCall"
    headers = {"Authorization": f"Bearer {token}"}
    async with aiohttp.ClientSession() as http, http.post(url, json=fields, headers=headers) as reply:
        assert reply.status == 200
        return str((await reply.json())["connect_url"]).replace("ws", "http", 1)
