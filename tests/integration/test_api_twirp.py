"""Twirp as LiveKit's SDKs speak it: both names of the service, both encodings, and every way to miss it."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator

import pytest
from livekit import api
from livekit.protocol import connector_twilio

from connectorpb.v1 import connector_pb2 as pb
from tests.integration.harness import OUTBOUND, Stage
from tests.integration.wire import JSON, LIVEKIT_PATH, OUR_PATH, PROTOBUF, wire_to

LIMIT = 256 * 1024
WHATSAPP = ("DialWhatsAppCall", "DisconnectWhatsAppCall", "ConnectWhatsAppCall", "AcceptWhatsAppCall")


@pytest.mark.parametrize("path", [LIVEKIT_PATH, OUR_PATH])
async def test_protobuf_is_answered_in_protobuf_under_both_names(stage: Stage, room: str, path: str) -> None:
    wire = await wire_to(stage)
    request = api.ConnectTwilioCallRequest(twilio_call_direction=OUTBOUND, room_name=room)
    reply = await wire.send(request.SerializeToString(), PROTOBUF, path)
    assert (reply.status, reply.content_type) == (200, PROTOBUF)
    response = connector_twilio.ConnectTwilioCallResponse.FromString(reply.body)
    assert response.connect_url.startswith(f"ws://127.0.0.1:{wire.connector.port}/twilio/")
    assert room in await stage.rooms()


@pytest.mark.parametrize("path", [LIVEKIT_PATH, OUR_PATH])
@pytest.mark.parametrize(
    ("direction", "room_name", "identity"),
    [
        ("twilio_call_direction", "room_name", "participant_identity"),
        ("twilioCallDirection", "roomName", "participantIdentity"),
    ],
)
async def test_json_is_read_in_both_spellings(
    stage: Stage, room: str, path: str, direction: str, room_name: str, identity: str
) -> None:
    wire = await wire_to(stage)
    reply = await wire.send_json(
        {direction: "TWILIO_CALL_DIRECTION_OUTBOUND", room_name: room, identity: "somebody"}, path
    )
    assert (reply.status, reply.content_type) == (200, JSON)
    assert reply.document.keys() == {"connect_url"}
    assert "somebody" in await stage.participants(room)


@pytest.mark.parametrize("content_type", [JSON, f"{JSON}; charset=utf-8", "Application/JSON", PROTOBUF])
async def test_media_types_may_have_parameters_and_capitals(stage: Stage, room: str, content_type: str) -> None:
    wire = await wire_to(stage)
    request = pb.ConnectTwilioCallRequest(room_name=room)
    body = request.SerializeToString() if content_type == PROTOBUF else json.dumps({"room_name": room}).encode()
    assert (await wire.send(body, content_type)).status == 200


async def test_unknown_fields_are_ignored_in_both_encodings(stage: Stage, room: str) -> None:
    wire = await wire_to(stage)
    reply = await wire.send_json({"room_name": room, "from_the_future": {"a": [1]}, "agents": [{"new": 1}]})
    assert reply.status == 200
    unknown_field = bytes([0xFA, 0x07, 3]) + b"new"  # field 127, length-delimited
    body = pb.ConnectTwilioCallRequest(room_name=room).SerializeToString() + unknown_field
    assert (await wire.send(body, PROTOBUF)).status == 200


OURS = "/twirp/connector.v1.Connector"


@pytest.mark.parametrize(
    ("method", "body", "field"),
    [
        ("EndCall", {"call_id": "call_1", "reason": "x"}, "reason"),
        ("GetCall", {"callID": "call_1"}, "callID"),
        ("ListCalls", {"roomId": "r"}, "roomId"),
        ("TransferCall", {"callId": "call_1", "to": "+15551234567", "callerID": "+15557654321"}, "callerID"),
        ("SwitchRoom", {"call_id": "call_1", "room_name": "r", "agents": [{"name": "a"}]}, "name"),
        ("ConnectTelnyxCall", {"room_name": "r", "agents": [{"agent_name": "a"}, {"new": 1}]}, "new"),
        ("ConnectPlivoCall", {"room_name": "r", "twilio_call_direction": 1}, "twilio_call_direction"),
        ("PlaceTwilioCall", {"to": "+15551234567", "from": "+15557654321", "room": "r"}, "room"),
    ],
)
async def test_an_unknown_field_of_our_own_service_is_refused_with_its_name(
    stage: Stage, room: str, method: str, body: dict[str, object], field: str
) -> None:
    wire = await wire_to(stage)
    reply = await wire.send_json(body, f"{OURS}/{method}")
    assert (reply.status, reply.code, reply.field) == (400, "invalid_argument", field)
    assert "is not a field of this request" in reply.message
    assert not wire.connector.calls.live()


@pytest.mark.parametrize("direction", [{}, {"twilio_call_direction": None}, {"twilio_call_direction": 0}])
async def test_a_call_without_a_direction_is_inbound(stage: Stage, room: str, direction: dict[str, object]) -> None:
    wire = await wire_to(stage)
    assert (await wire.send_json({"room_name": room, **direction})).status == 200
    (record,) = await wire.connector.store.list_calls()
    assert record.direction.value == "inbound"


async def test_a_direction_may_come_as_a_number(stage: Stage, room: str) -> None:
    wire = await wire_to(stage)
    assert (await wire.send_json({"room_name": room, "twilioCallDirection": 1})).status == 200
    (record,) = await wire.connector.store.list_calls()
    assert record.direction.value == "outbound"


@pytest.mark.parametrize("method", WHATSAPP)
@pytest.mark.parametrize(("body", "content_type"), [(b"{}", JSON), (b"", PROTOBUF)])
async def test_whatsapp_is_known_but_not_served(stage: Stage, method: str, body: bytes, content_type: str) -> None:
    wire = await wire_to(stage)
    reply = await wire.send(body, content_type, f"/twirp/livekit.Connector/{method}")
    assert (reply.status, reply.code) == (501, "unimplemented")
    assert "WhatsApp" in reply.message


@pytest.mark.parametrize(
    "path",
    [
        "/twirp/livekit.Connector/NoSuchMethod",
        "/twirp/livekit.Connector/connectTwilioCall",
        "/twirp/livekit.Connector/ConnectTwilioCall/",
        "/twirp/livekit.Connector/",
        "/twirp/livekit.Connector",
        "/twirp/livekit.RoomService/CreateRoom",
        "/twirp/connector.v1.Connector/DialWhatsAppCall",
        "/twirp/",
    ],
)
async def test_a_path_that_leads_nowhere_is_a_bad_route(stage: Stage, room: str, path: str) -> None:
    wire = await wire_to(stage)
    reply = await wire.send(json.dumps({"room_name": room}).encode(), path=path)
    assert (reply.status, reply.code) == (404, "bad_route")
    assert reply.document["meta"] == {"twirp_invalid_route": f"POST {path}"}
    await wire.assert_nothing_created(room)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH"])
async def test_only_post_is_a_route(stage: Stage, method: str) -> None:
    wire = await wire_to(stage)
    reply = await wire.send(b"", method=method)
    assert (reply.status, reply.code) == (404, "bad_route")
    assert reply.document["meta"] == {"twirp_invalid_route": f"{method} {LIVEKIT_PATH}"}


@pytest.mark.parametrize(
    "content_type", ["", "text/plain", "application/x-www-form-urlencoded", "application/x-protobuf", "nonsense"]
)
async def test_another_content_type_is_a_bad_route(stage: Stage, room: str, content_type: str) -> None:
    wire = await wire_to(stage)
    reply = await wire.send(json.dumps({"room_name": room}).encode(), content_type)
    assert (reply.status, reply.code) == (404, "bad_route")
    assert "Content-Type" in reply.message
    await wire.assert_nothing_created(room)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [
        (PROTOBUF, b"\xff\xff\xff"),
        (PROTOBUF, b"\x12\x05ab"),
        (PROTOBUF, b"\x12\x02\xff\xfe"),
        (PROTOBUF, b"{}"),
        (JSON, b""),
        (JSON, b"{"),
        (JSON, b"null"),
        (JSON, b"[]"),
        (JSON, b'"room"'),
        (JSON, b"\xff\xfe"),
        (JSON, b'{"room_name": 5}'),
        (JSON, b'{"room_name": NaN}'),
        (JSON, b'{"room_name": "\\ud800"}'),
        (JSON, b'{"room_name": {"a": 1}}'),
        (JSON, b'{"room_name": "r", "agents": {}}'),
        (JSON, b'{"room_name": "r", "agents": [5]}'),
        (JSON, b'{"room_name": "r", "agents": [null]}'),
        (JSON, b'{"room_name": "r", "participant_attributes": []}'),
        (JSON, b'{"room_name": "r", "participant_attributes": {"a": 1}}'),
        (JSON, b'{"room_name": "r", "participant_attributes": {"a": null}}'),
        (JSON, b'{"room_name": "r", "twilio_call_direction": true}'),
        (JSON, b'{"room_name": "r", "twilio_call_direction": 0.5}'),
        (JSON, b'{"room_name": "r", "twilio_call_direction": 99999999999}'),
        (JSON, b'{"room_name": "r", "twilio_call_direction": []}'),
        (JSON, b'{"x": ' + b"9" * 5000 + b"}"),
        (JSON, b'{"x": ' + b"[" * 100_000 + b"}"),
        (JSON, b'{"x": ' + b"[" * 50_000 + b"]" * 50_000 + b"}"),
        (JSON, b'{"agents": ' + b'[{"agents": ' * 10_000 + b"1" + b"}]" * 10_000 + b"}"),
    ],
    ids=lambda value: repr(value)[:40],
)
async def test_a_body_that_cannot_be_decoded_is_malformed(stage: Stage, content_type: str, body: bytes) -> None:
    wire = await wire_to(stage)
    reply = await wire.send(body, content_type)
    assert (reply.status, reply.code) == (400, "malformed"), reply.body
    await wire.assert_nothing_created("r")


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 64 * 1024):
        yield body[start : start + 64 * 1024]


def _padded(room: str, size: int) -> bytes:
    head = json.dumps({"room_name": room, "padding": ""}).encode()[:-2]
    return head + b"x" * (size - len(head) - 2) + b'"}'


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_body_over_256_kib_is_refused(stage: Stage, room: str, chunked: bool) -> None:
    wire = await wire_to(stage)
    body = _padded(room, LIMIT + 1)
    reply = await wire.send(_chunks(body) if chunked else body)
    assert (reply.status, reply.code, reply.field) == (400, "invalid_argument", "body")
    await wire.assert_nothing_created(room)


@pytest.mark.parametrize("chunked", [False, True], ids=["with a length", "in chunks"])
async def test_a_body_of_256_kib_is_taken(stage: Stage, room: str, chunked: bool) -> None:
    wire = await wire_to(stage)
    body = _padded(room, LIMIT)
    assert len(body) == LIMIT
    assert (await wire.send(_chunks(body) if chunked else body)).status == 200


async def test_a_compressed_body_is_bounded_by_what_it_holds(stage: Stage, room: str) -> None:
    wire = await wire_to(stage)
    body = gzip.compress(_padded(room, 50 * LIMIT))
    assert len(body) < LIMIT
    reply = await wire.send(body, headers={"Content-Encoding": "gzip"})
    assert (reply.status, reply.code, reply.field) == (400, "invalid_argument", "body")
    await wire.assert_nothing_created(room)


async def test_the_connection_survives_a_refusal(stage: Stage, room: str) -> None:
    """What is left of a refused body must not be read as the next request."""
    wire = await wire_to(stage)
    for _ in range(2):
        assert (await wire.send(b"{")).code == "malformed"
        assert (await wire.send(_padded(room, LIMIT + 1))).code == "invalid_argument"
        assert (await wire.send_json({"room_name": room})).status == 200
