"""gRPC with the generated stubs: both services, authorisation, what cannot be read, health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor_pool import DescriptorPool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase
from livekit.protocol import connector_twilio, connector_whatsapp

from connector.app import Connector
from connector.carriers.resume_url import resume_url
from connectorpb.v1 import connector_pb2 as pb
from connectorpb.v1 import connector_pb2_grpc as pb_grpc
from tests.integration.harness import OUTBOUND, Stage
from tests.integration.rpc import bearer, grpc_connector, open_channel

LIMIT = 256 * 1024
OURS = "/connector.v1.Connector/ConnectTwilioCall"
LIVEKITS = "/livekit.Connector/ConnectTwilioCall"
WHATSAPP = ("DialWhatsAppCall", "DisconnectWhatsAppCall", "ConnectWhatsAppCall", "AcceptWhatsAppCall")
SERVICES = ["livekit.Connector", "connector.v1.Connector"]


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await grpc_connector(stage)


@pytest.fixture
async def channel(connector: Connector) -> AsyncIterator[grpc.aio.Channel]:
    async with open_channel(connector) as channel:
        yield channel


def raw(channel: grpc.aio.Channel, path: str) -> Any:
    """A method without its messages: bytes in, bytes out."""
    return channel.unary_unary(path)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def assert_nothing_created(stage: Stage, connector: Connector, room: str) -> None:
    assert connector.calls.live() == []
    assert await connector.store.list_calls() == []
    assert room not in await stage.rooms()


async def test_the_generated_stub_connects_a_call(
    stage: Stage, room: str, connector: Connector, channel: grpc.aio.Channel
) -> None:
    stub = pb_grpc.ConnectorStub(channel)
    request = pb.ConnectTwilioCallRequest(
        twilio_call_direction=pb.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND,
        room_name=room,
        participant_identity="caller",
    )
    call = stub.ConnectTwilioCall(request, metadata=bearer(stage))
    response = await call
    assert response.connect_url.startswith(f"ws://127.0.0.1:{connector.port}/twilio/")
    assert dict(await call.initial_metadata())["connector-resume-url"] == resume_url(response.connect_url)
    assert (await stage.participants(room))["caller"].permission.hidden


async def test_livekits_own_messages_connect_a_call_under_livekits_name(
    stage: Stage, room: str, connector: Connector, channel: grpc.aio.Channel
) -> None:
    call = channel.unary_unary(
        LIVEKITS,
        request_serializer=connector_twilio.ConnectTwilioCallRequest.SerializeToString,
        response_deserializer=connector_twilio.ConnectTwilioCallResponse.FromString,
    )
    request = connector_twilio.ConnectTwilioCallRequest(
        twilio_call_direction=OUTBOUND, room_name=room, participant_identity="caller"
    )
    response = await call(request, metadata=bearer(stage))
    assert response.connect_url.startswith(f"ws://127.0.0.1:{connector.port}/twilio/")
    assert "caller" in await stage.participants(room)


@pytest.mark.parametrize(
    ("metadata", "code", "says"),
    [
        ((), "UNAUTHENTICATED", "required"),
        ((("authorization", "Basic abc"),), "UNAUTHENTICATED", "Bearer"),
        ((("authorization", "Bearer not.a.token"),), "UNAUTHENTICATED", "does not verify"),
        ((("x-authorization", "Bearer whatever"),), "UNAUTHENTICATED", "required"),
        ("another secret", "UNAUTHENTICATED", "does not verify"),
        ("expired", "UNAUTHENTICATED", "expired"),
        ("without the grant", "PERMISSION_DENIED", "roomCreate"),
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [OURS, LIVEKITS])
async def test_who_may_not_is_told_so(
    stage: Stage,
    room: str,
    connector: Connector,
    channel: grpc.aio.Channel,
    path: str,
    metadata: Any,
    code: str,
    says: str,
) -> None:
    given = {
        "another secret": lambda: bearer(stage, secret="another-secret-of-thirty-two-bytes!!"),
        "expired": lambda: bearer(stage, nbf=1, exp=2),
        "without the grant": lambda: bearer(stage, video={"roomJoin": True}),
    }
    metadata = given[metadata]() if isinstance(metadata, str) else metadata
    error = await refused(
        raw(channel, path)(pb.ConnectTwilioCallRequest(room_name=room).SerializeToString(), metadata=metadata)
    )
    assert error.code() is grpc.StatusCode[code]
    assert says in (error.details() or "")
    await assert_nothing_created(stage, connector, room)


async def test_nobody_unknown_makes_us_decode_a_body(stage: Stage, channel: grpc.aio.Channel) -> None:
    error = await refused(raw(channel, OURS)(b"\xff\xff\xff"))
    assert error.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_the_message_names_the_field(stage: Stage, room: str, channel: grpc.aio.Channel) -> None:
    stub = pb_grpc.ConnectorStub(channel)
    error = await refused(stub.ConnectTwilioCall(pb.ConnectTwilioCallRequest(), metadata=bearer(stage)))
    assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "room_name: is required")


@pytest.mark.parametrize("path", [OURS, LIVEKITS])
@pytest.mark.parametrize("body", [b"\xff\xff\xff", b"\x12\x05ab", b"\x12\x02\xff\xfe", b"{}"], ids=repr)
async def test_bytes_that_cannot_be_decoded(stage: Stage, channel: grpc.aio.Channel, path: str, body: bytes) -> None:
    error = await refused(raw(channel, path)(body, metadata=bearer(stage)))
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "protobuf" in (error.details() or "")


def _padded(room: str, size: int) -> bytes:
    """A request of exactly so many bytes, most of them in a field that we do not know."""
    head = pb.ConnectTwilioCallRequest(room_name=room).SerializeToString()
    rest = size - len(head) - 5
    length = bytes([rest & 0x7F | 0x80, rest >> 7 & 0x7F | 0x80, rest >> 14])
    return head + bytes([0xFA, 0x07]) + length + b"x" * rest


async def test_a_message_of_256_kib_is_taken_and_a_byte_more_is_not(
    stage: Stage, room: str, connector: Connector, channel: grpc.aio.Channel
) -> None:
    call = raw(channel, OURS)
    body = _padded(room, LIMIT + 1)
    assert len(body) == LIMIT + 1
    error = await refused(call(body, metadata=bearer(stage)))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await assert_nothing_created(stage, connector, room)
    assert await call(_padded(room, LIMIT), metadata=bearer(stage))


async def test_a_compressed_message_is_bounded_by_what_it_holds(
    stage: Stage, room: str, connector: Connector, channel: grpc.aio.Channel
) -> None:
    call = raw(channel, OURS)(_padded(room, 7 * LIMIT), metadata=bearer(stage), compression=grpc.Compression.Gzip)
    assert (await refused(call)).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    await assert_nothing_created(stage, connector, room)


@pytest.mark.parametrize("method", WHATSAPP)
async def test_whatsapp_is_known_but_not_served(stage: Stage, channel: grpc.aio.Channel, method: str) -> None:
    request = getattr(connector_whatsapp, f"{method}Request")()
    call = raw(channel, f"/livekit.Connector/{method}")
    error = await refused(call(request.SerializeToString(), metadata=bearer(stage)))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED
    assert "WhatsApp" in (error.details() or "")


@pytest.mark.parametrize(
    "path",
    ["/connector.v1.Connector/NoSuch", "/livekit.Connector/ListCalls", "/livekit.RoomService/CreateRoom", "/x/y"],
)
async def test_a_method_that_does_not_exist(stage: Stage, channel: grpc.aio.Channel, path: str) -> None:
    error = await refused(raw(channel, path)(b"", metadata=bearer(stage)))
    assert error.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("service", ["", *SERVICES])
async def test_every_service_is_reported_as_serving(channel: grpc.aio.Channel, service: str) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    response = await health.Check(health_pb2.HealthCheckRequest(service=service))
    assert response.status == health_pb2.HealthCheckResponse.SERVING


async def test_the_health_of_an_unknown_service_is_not_found(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    error = await refused(health.Check(health_pb2.HealthCheckRequest(service="nobody")))
    assert error.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_and_describes_the_services(connector: Connector) -> None:
    def look() -> tuple[set[str], dict[str, set[str]]]:
        with grpc.insecure_channel(f"127.0.0.1:{connector.grpc.port}") as channel:
            database = ProtoReflectionDescriptorDatabase(channel)
            pool = DescriptorPool(database)
            methods = {name: {m.name for m in pool.FindServiceByName(name).methods} for name in SERVICES}
            return set(database.get_services()), methods

    # The reflection client is a blocking one.
    services, methods = await asyncio.to_thread(look)
    assert services == {*SERVICES, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert methods["livekit.Connector"] == {"ConnectTwilioCall", *WHATSAPP}
    assert methods["connector.v1.Connector"] == {m.name for m in pb.DESCRIPTOR.services_by_name["Connector"].methods}
