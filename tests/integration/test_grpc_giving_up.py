"""A client that no longer waits, over gRPC and over HTTP: its request stops and leaves nothing behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import grpc
import pytest

from connector.app import Connector
from connector.model.end_reason import EndReason
from connectorpb.v1 import connector_pb2 as pb
from connectorpb.v1 import connector_pb2_grpc as pb_grpc
from demo.livekit_server import LiveKitServer
from tests.integration.gate import Gate, gate_to
from tests.integration.harness import PATIENCE, Stage, until
from tests.integration.rpc import bearer, grpc_connector, open_channel

GIVES_UP = 1.0
"""Seconds; the request must have reached the connector by then. Far less than the connector would wait for LiveKit (3 s
for a request, 4 s for a join)."""


@pytest.fixture
async def gate(livekit: LiveKitServer) -> AsyncIterator[Gate]:
    async with gate_to(livekit.port) as gate:
        yield gate


def request(room: str) -> pb.ConnectTwilioCallRequest:
    return pb.ConnectTwilioCallRequest(
        twilio_call_direction=pb.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND,
        room_name=room,
        participant_identity="caller",
    )


async def deadline_passes(stage: Stage, connector: Connector, room: str) -> None:
    async with open_channel(connector) as channel:
        stub = pb_grpc.ConnectorStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ConnectTwilioCall(request(room), metadata=bearer(stage), timeout=GIVES_UP)
        assert caught.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def grpc_cancelled(stage: Stage, connector: Connector, room: str) -> None:
    async with open_channel(connector) as channel:
        call = pb_grpc.ConnectorStub(channel).ConnectTwilioCall(request(room), metadata=bearer(stage))
        waiting = asyncio.ensure_future(call)
        await until(lambda: bool(connector.calls.live()))
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def http_hung_up(stage: Stage, connector: Connector, room: str) -> None:
    url = f"http://127.0.0.1:{connector.port}/twirp/connector.v1.Connector/ConnectTwilioCall"
    headers = {"Content-Type": "application/protobuf"} | {key.title(): value for key, value in bearer(stage)}
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(GIVES_UP)) as session:
        with pytest.raises(TimeoutError):
            await session.post(url, data=request(room).SerializeToString(), headers=headers)


GiveUp = Callable[[Stage, Connector, str], Awaitable[None]]


@pytest.mark.parametrize("give_up", [deadline_passes, grpc_cancelled, http_hung_up], ids=lambda f: f.__name__)
@pytest.mark.parametrize("hangs", ["api", "signalling"])
async def test_what_livekit_holds_up_is_taken_back(
    gate: Gate, stage: Stage, room: str, give_up: GiveUp, hangs: str
) -> None:
    connector = await grpc_connector(stage, livekit_url=gate.url)
    setattr(gate, hangs, "hang")
    await give_up(stage, connector, room)
    await until(lambda: not connector.calls.live())
    assert {task.get_name() for task in asyncio.all_tasks() if "call_" in task.get_name()} == set()
    (record,) = await connector.store.list_calls()
    assert (record.end_reason, record.end_detail) == (EndReason.ENDED_BY_API, "the client cancelled the request")
    gate.api = "pass"
    # LiveKit may still have been making it when the request was given up.
    async with asyncio.timeout(PATIENCE):
        while room in await stage.rooms():  # noqa: ASYNC110 - LiveKit announces nothing
            await asyncio.sleep(0.02)
    gate.opened.set()


async def test_a_request_in_time_is_answered(gate: Gate, stage: Stage, room: str) -> None:
    connector = await grpc_connector(stage, livekit_url=gate.url)
    async with open_channel(connector) as channel:
        stub = pb_grpc.ConnectorStub(channel)
        assert await stub.ConnectTwilioCall(request(room), metadata=bearer(stage), timeout=PATIENCE)
    assert len(connector.calls.live()) == 1
