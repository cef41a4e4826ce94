"""What ConnectTwilioCall refuses, who may call it, and that a refusal leaves nothing behind."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import jwt
import pytest
from livekit import api

from connectorpb.v1 import connector_pb2 as pb
from tests.integration.harness import OUTBOUND, Stage, connect_call
from tests.integration.wire import PROTOBUF, claims, token, wire_to

ATTRIBUTES = 60 * 1024
"""LiveKit takes 64 KiB of keys and values; the connector keeps 4 of them for its own."""

BAD_ARGUMENTS: list[tuple[str, dict[str, Any], str]] = [
    ("no room", {"room_name": ""}, "room_name"),
    ("room too long", {"room_name": "r" * 257}, "room_name"),
    ("room too long in bytes", {"room_name": "é" * 129}, "room_name"),
    ("room with a line break", {"room_name": "a\nb"}, "room_name"),
    ("room with a NUL", {"room_name": "a\x00b"}, "room_name"),
    ("identity too long", {"participant_identity": "i" * 257}, "participant_identity"),
    ("identity with a control character", {"participant_identity": "\x7f"}, "participant_identity"),
    ("unknown direction as a number", {"twilio_call_direction": 7}, "twilio_call_direction"),
    ("negative direction", {"twilio_call_direction": -1}, "twilio_call_direction"),
    ("unknown direction as a name", {"twilio_call_direction": "SIDEWAYS"}, "twilio_call_direction"),
    ("unknown direction, other spelling", {"twilioCallDirection": "OUTBOUND"}, "twilio_call_direction"),
    ("country that does not exist", {"destination_country": "XX"}, "destination_country"),
    ("country in three letters", {"destination_country": "USA"}, "destination_country"),
    ("country by its name", {"destination_country": "Germany"}, "destination_country"),
    ("attributes too large", {"participant_attributes": {"k": "v" * ATTRIBUTES}}, "participant_attributes"),
    (
        "attributes too large together",
        {"participant_attributes": {f"k{n}": "v" * 1000 for n in range(65)}},
        "participant_attributes",
    ),
    (
        "attributes too large in bytes",
        {"participant_attributes": {"k": "é" * (ATTRIBUTES // 2)}},
        "participant_attributes",
    ),
    ("attribute without a name", {"participant_attributes": {"": "v"}}, "participant_attributes"),
    ("attribute of ours", {"participant_attributes": {"connector.callId": "v"}}, "participant_attributes"),
    ("too many agents", {"agents": [{"agent_name": str(n)} for n in range(33)]}, "agents"),
    ("agent's name too long", {"agents": [{"agent_name": "a" * 257}]}, "agents"),
    ("agent's restart policy as a number", {"agents": [{"restart_policy": 9}]}, "agents"),
    ("agent's restart policy as a name", {"agents": [{"restartPolicy": "JRP_MAYBE"}]}, "restart_policy"),
]


@pytest.mark.parametrize(("changes", "field"), [case[1:] for case in BAD_ARGUMENTS], ids=[c[0] for c in BAD_ARGUMENTS])
async def test_a_bad_argument_is_named_and_nothing_created(
    stage: Stage, room: str, changes: dict[str, Any], field: str
) -> None:
    wire = await wire_to(stage)
    request = {"room_name": room, "participant_identity": "caller"}
    direction = {} if "twilioCallDirection" in changes else {"twilio_call_direction": 1}
    reply = await wire.send_json(request | direction | changes)
    assert (reply.status, reply.code, reply.field) == (400, "invalid_argument", field), reply.body
    assert reply.message.startswith(f"{field}: ")
    await wire.assert_nothing_created(room, changes.get("room_name", room))


async def test_an_unknown_direction_in_protobuf_is_named_too(stage: Stage, room: str) -> None:
    wire = await wire_to(stage)
    request = pb.ConnectTwilioCallRequest(room_name=room)
    body = request.SerializeToString() + b"\x08\x07"  # field 1, varint 7
    reply = await wire.send(body, PROTOBUF)
    assert (reply.status, reply.code, reply.field) == (400, "invalid_argument", "twilio_call_direction")
    await wire.assert_nothing_created(room)


async def test_arguments_at_their_limits_are_taken(stage: Stage, room: str) -> None:
    wire = await wire_to(stage)
    long_room = room + "r" * (256 - len(room))
    request: dict[str, Any] = {
        "room_name": long_room,
        "twilio_call_direction": "TWILIO_CALL_DIRECTION_OUTBOUND",
        "participant_identity": "ü" * 128,
        "participant_name": "x" + "ü" * 299,
        "participant_metadata": "m" * (100 * 1024),
        "participant_attributes": {"k": "v" * (ATTRIBUTES - 1)},
        "destination_country": "de",
    }
    assert (await wire.send_json(request)).status == 200
    caller = (await stage.participants(long_room))["ü" * 128]
    # A display name is cut, where it is too long: in bytes, and between characters.
    assert caller.name == "x" + "ü" * 127
    assert len(caller.metadata) == 100 * 1024
    assert caller.attributes["k"] == "v" * (ATTRIBUTES - 1)


TOKENS: list[tuple[str, Callable[[Stage], str], str]] = [
    ("none", lambda _: "", "unauthenticated"),
    ("empty bearer", lambda _: "Bearer ", "unauthenticated"),
    ("garbage", lambda _: "Bearer garbage", "unauthenticated"),
    ("garbage with dots", lambda _: "Bearer a.b.c", "unauthenticated"),
    ("without Bearer", lambda stage: token(stage), "unauthenticated"),
    ("basic", lambda _: "Basic ZGV2a2V5OnNlY3JldA==", "unauthenticated"),
    ("very long", lambda _: "Bearer " + "a" * 7000, "unauthenticated"),
    ("signed with another secret", lambda s: f"Bearer {token(s, secret='x' * 40)}", "unauthenticated"),
    ("of another key", lambda s: f"Bearer {token(s, iss='otherkey')}", "unauthenticated"),
    ("of no key", lambda s: f"Bearer {_without(s, 'iss')}", "unauthenticated"),
    ("expired", lambda s: f"Bearer {token(s, exp=int(time.time()) - 120)}", "unauthenticated"),
    ("not valid yet", lambda s: f"Bearer {token(s, nbf=int(time.time()) + 300)}", "unauthenticated"),
    ("without an expiry", lambda s: f"Bearer {_without(s, 'exp')}", "unauthenticated"),
    ("alg none", lambda s: f"Bearer {token(s, algorithm='none')}", "unauthenticated"),
    ("alg HS384", lambda s: f"Bearer {token(s, algorithm='HS384')}", "unauthenticated"),
    ("claims of the wrong type", lambda s: f"Bearer {token(s, video='all')}", "unauthenticated"),
    ("no grants", lambda s: f"Bearer {token(s, video={})}", "permission_denied"),
    ("room configuration of the wrong type", lambda s: f"Bearer {token(s, roomConfig=5)}", "unauthenticated"),
    ("room configuration of nonsense", lambda s: f"Bearer {token(s, roomConfig={'agents': 5})}", "unauthenticated"),
    ("no video", lambda s: f"Bearer {_without(s, 'video')}", "permission_denied"),
    ("another grant", lambda s: f"Bearer {token(s, video={'roomJoin': True, 'room': 'r'})}", "permission_denied"),
    ("grant refused", lambda s: f"Bearer {token(s, video={'roomCreate': False})}", "permission_denied"),
    ("grant as a word", lambda s: f"Bearer {token(s, video={'roomCreate': 'yes'})}", "permission_denied"),
]


def _without(stage: Stage, claim: str) -> str:
    said = claims(stage)
    del said[claim]
    return jwt.encode(said, stage.livekit.api_secret, algorithm="HS256")


@pytest.mark.parametrize(("header", "code"), [case[1:] for case in TOKENS], ids=[case[0] for case in TOKENS])
async def test_a_token_that_does_not_hold_opens_nothing(
    stage: Stage, room: str, header: Callable[[Stage], str], code: str
) -> None:
    wire = await wire_to(stage)
    body = api.ConnectTwilioCallRequest(twilio_call_direction=OUTBOUND, room_name=room).SerializeToString()
    reply = await wire.send(body, PROTOBUF, headers={"Authorization": header(stage)})
    assert (reply.status, reply.code) == ({"unauthenticated": 401, "permission_denied": 403}[code], code)
    await wire.assert_nothing_created(room)


async def test_the_token_is_looked_at_before_the_body(stage: Stage) -> None:
    wire = await wire_to(stage)
    reply = await wire.send(b"\xff", PROTOBUF, headers={"Authorization": ""})
    assert reply.code == "unauthenticated"


async def test_the_scheme_of_the_header_has_no_case(stage: Stage, room: str) -> None:
    wire = await wire_to(stage)
    body = pb.ConnectTwilioCallRequest(room_name=room).SerializeToString()
    reply = await wire.send(body, PROTOBUF, headers={"Authorization": f"bearer {token(stage)}"})
    assert reply.status == 200


async def test_more_calls_than_configured_are_refused_until_one_ends(stage: Stage, room: str) -> None:
    connector = await stage.connector(max_calls=2)
    client = stage.client(connector)
    for number in range(2):
        await connect_call(client, room, participant_identity=f"caller-{number}")
    with pytest.raises(api.TwirpError) as caught:
        await connect_call(client, f"{room}-more")
    assert (caught.value.status, caught.value.code) == (429, "resource_exhausted")
    assert "2 calls" in caught.value.message
    assert f"{room}-more" not in await stage.rooms()
    assert len(await connector.store.list_calls()) == 2

    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    for call in connector.calls.live():
        await call.finished.wait()
    await connect_call(client, room, OUTBOUND)


async def test_requests_at_once_cannot_pass_the_limit(stage: Stage, room: str) -> None:
    connector = await stage.connector(max_calls=3)
    client = stage.client(connector)
    attempts = [connect_call(client, room, participant_identity=f"caller-{n}") for n in range(8)]
    outcomes = await asyncio.gather(*attempts, return_exceptions=True)
    refused = [outcome for outcome in outcomes if isinstance(outcome, api.TwirpError)]
    assert [error.code for error in refused] == ["resource_exhausted"] * 5
    assert len(connector.calls.live()) == 3
    assert len(await stage.participants(room)) == 3
