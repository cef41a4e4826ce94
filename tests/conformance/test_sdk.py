"""LiveKit's published SDKs, unmodified, with the connector where they expect LiveKit's own service."""

from __future__ import annotations

import json
from typing import Any

import pytest
from livekit import api

from connector.app import Connector
from demo.ports import PortLease
from tests.conformance.programs import Program, run
from tests.conformance.talk import dispatched, talk_both_ways
from tests.integration.harness import Stage, place

WITHOUT_STATUS = ("go", "rust")
"""SDKs that do not tell the HTTP status."""
REFUSED_CONNECTION = {
    "python": "Cannot connect to host",
    "node": "fetch failed",
    "go": "connection refused",
    "kotlin": "Failed to connect to",
    "rust": "error sending request",
}


def settings(connector: Connector) -> dict[str, str]:
    """What a user of the SDK sets. A LIVEKIT_URL is mostly written with ws: the SDKs turn it into http."""
    return {
        "LIVEKIT_URL": connector.settings.public_origin.replace("http", "ws", 1),
        "LIVEKIT_API_KEY": connector.settings.livekit_api_key,
        "LIVEKIT_API_SECRET": connector.settings.livekit_api_secret.get_secret_value(),
    }


async def test_an_outbound_call_with_an_agent(sdk: Program, stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    values = {"room": room, "country": "US", "identity": "test", "name": "Test", "agent": "my-agent"}
    answer = await run(sdk, "outbound", values, settings(connector))

    participant = (await stage.participants(room))["test"]
    assert participant.permission.hidden
    assert participant.name == "Test"
    assert participant.kind == api.ParticipantInfo.CONNECTOR
    assert await dispatched(stage, room) == [("my-agent", "")]

    guest = await stage.guest(room)
    call = place(twilio, answer["connect_url"])
    await talk_both_ways(guest, call, "test")


async def test_an_agent_gets_its_metadata(sdk: Program, stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    metadata = '{"language": "en", "queue": "technical"}'
    values = {"room": room, "identity": "caller-123", "agent": "customer-support-bot", "agent.metadata": metadata}
    answer = await run(sdk, "outbound", values, settings(connector))

    assert await dispatched(stage, room) == [("customer-support-bot", metadata)]

    guest = await stage.guest(room)
    call = place(twilio, answer["connect_url"])
    await talk_both_ways(guest, call, "caller-123")


async def test_others_see_who_calls(sdk: Program, stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    metadata = json.dumps({"account": "Ünïcode & <tags>"}, ensure_ascii=False)
    values = {
        "room": room,
        "identity": "caller-123",
        "name": "Zoë",
        "metadata": metadata,
        "attribute.crm.id": "4711",
        "attribute.tier": "gold",
    }
    answer = await run(sdk, "outbound", values, settings(connector))

    guest = await stage.guest(room)
    call = place(twilio, answer["connect_url"])
    await talk_both_ways(guest, call, "caller-123")
    ((caller,),) = guest.saw("participant_connected")
    assert (caller.name, caller.metadata) == ("Zoë", metadata)
    assert caller.attributes["crm.id"] == "4711"
    assert caller.attributes["tier"] == "gold"
    assert caller.attributes["twilio.callSid"] == call.sid


async def test_the_document_s_own_words_in_node_ask_for_an_inbound_call(stage: Stage, room: str, node: Program) -> None:
    """An enum's values have no prefix in JavaScript: what the document writes is undefined there, so the direction
    is not sent, and 0 is inbound. The call is made all the same; only, nobody waits hidden for the answer."""
    connector = await stage.connector()
    twilio = await stage.twilio()
    answer = await run(node, "as-documented", {"room": room, "identity": "test"}, settings(connector))

    assert await stage.participants(room) == {}

    guest = await stage.guest(room)
    call = place(twilio, answer["connect_url"])
    await talk_both_ways(guest, call, "test")


async def test_an_inbound_call(sdk: Program, stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    values = {"room": room, "identity": "+15552223333", "name": "+15552223333", "agent": "support-agent"}
    answer = await run(sdk, "inbound", values, settings(connector))

    assert await stage.participants(room) == {}

    guest = await stage.guest(room)
    # The connect_url answers with TwiML itself: here it is the number's webhook.
    call = twilio.inbound_call(answer["connect_url"].replace("ws", "http", 1))
    await talk_both_ways(guest, call, "+15552223333")
    assert await dispatched(stage, room) == [("support-agent", "")]


def refusal(sdk: Program, answer: Any, code: str, status: int) -> str:
    """The message of an answer that tells this error, and tells it whole."""
    error = answer["error"]
    assert error["code"] == code
    assert error["status"] == (None if sdk.language in WITHOUT_STATUS else status)
    message: str = error["message"]
    return message


async def test_a_missing_room_is_an_invalid_argument(sdk: Program, stage: Stage) -> None:
    connector = await stage.connector()
    before = await stage.rooms()
    answer = await run(sdk, "outbound", {"identity": "test"}, settings(connector))
    assert refusal(sdk, answer, "invalid_argument", 400) == "room_name: is required"
    assert not await stage.rooms() - before


async def test_a_wrong_secret_is_unauthenticated(sdk: Program, stage: Stage, room: str) -> None:
    connector = await stage.connector()
    wrong = settings(connector) | {"LIVEKIT_API_SECRET": "a-secret-of-another-server-altogether"}
    answer = await run(sdk, "outbound", {"room": room}, wrong)
    assert "secret" in refusal(sdk, answer, "unauthenticated", 401)
    assert room not in await stage.rooms()


async def test_a_token_without_the_grant_is_denied(sdk: Program, stage: Stage, room: str) -> None:
    connector = await stage.connector()
    answer = await run(sdk, "without-grant", {"room": room}, settings(connector))
    assert "roomCreate" in refusal(sdk, answer, "permission_denied", 403)
    assert room not in await stage.rooms()


async def test_when_livekit_is_down_the_service_is_unavailable(sdk: Program, stage: Stage, room: str) -> None:
    lease = PortLease()
    try:
        connector = await stage.connector(livekit_url=f"ws://127.0.0.1:{lease.port}")
        answer = await run(sdk, "outbound", {"room": room}, settings(connector))
    finally:
        lease.close()
    assert "livekit-server" in refusal(sdk, answer, "unavailable", 503)


@pytest.mark.parametrize("scenario", ["outbound", "inbound"])
async def test_a_connector_that_is_down_is_told_as_such(sdk: Program, stage: Stage, room: str, scenario: str) -> None:
    connector = await stage.connector()
    await connector.stop(0.0)
    answer = await run(sdk, scenario, {"room": room}, settings(connector))
    # Only Go's Twirp client makes an error of its own of it; the others pass on their HTTP client's.
    assert answer["error"]["code"] == ("internal" if sdk.language == "go" else None)
    assert answer["error"]["status"] is None
    assert REFUSED_CONNECTION[sdk.language] in answer["error"]["message"]
