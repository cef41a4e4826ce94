"""The gRPC port from start to drain: addresses, a port that is taken, health while calls finish."""

from __future__ import annotations

import asyncio
import socket
from contextlib import closing

import aiohttp
import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from connector.app import Connector
from connectorpb.v1 import connector_pb2 as pb
from connectorpb.v1 import connector_pb2_grpc as pb_grpc
from tests.integration.harness import OUTBOUND, PATIENCE, Stage, connect_call
from tests.integration.rpc import bearer, grpc_connector, open_channel

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def check(target: str) -> int:
    async with grpc.aio.insecure_channel(target) as channel:
        response = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        return int(response.status)


@pytest.mark.parametrize("host", ["::1", "127.0.0.1"])
async def test_an_address_of_either_family_is_served(stage: Stage, host: str) -> None:
    connector = await grpc_connector(stage, host=host)
    assert await check(f"[{host}]:{connector.grpc.port}" if ":" in host else f"{host}:{connector.grpc.port}") == SERVING


async def test_port_0_leaves_grpc_off(stage: Stage) -> None:
    connector = await stage.connector(grpc_port=0)
    assert connector.grpc.port == 0


async def test_a_port_that_is_taken_is_named_and_everything_is_closed_again(stage: Stage) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        connector = Connector(stage.settings(grpc_port=port))
        before = asyncio.all_tasks()
        with pytest.raises(OSError, match=f"127.0.0.1:{port}.*CONNECTOR_GRPC_PORT"):
            await connector.start()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError):
            await session.get(f"http://127.0.0.1:{connector.settings.port}/healthz")
    assert asyncio.all_tasks() <= before
    again = Connector(stage.settings(grpc_port=port, port=connector.settings.port))
    await again.start()
    await again.stop(0)


async def test_two_connectors_do_not_share_a_port(stage: Stage) -> None:
    """Linux would let them, and deal the requests to either."""
    first = await grpc_connector(stage)
    with pytest.raises(OSError, match="CONNECTOR_GRPC_PORT"):
        await Connector(stage.settings(grpc_port=first.grpc.port)).start()
    assert await check(f"127.0.0.1:{first.grpc.port}") == SERVING


async def test_a_drain_is_seen_by_health_watchers_while_calls_can_still_be_ended(stage: Stage, room: str) -> None:
    connector = Connector(stage.settings(grpc_port=stage.free_port()))
    await connector.start()
    await connect_call(stage.client(connector), room, OUTBOUND)
    async with open_channel(connector) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest(service="connector.v1.Connector"))
        assert (await watch.read()).status == SERVING
        stopping = asyncio.create_task(connector.stop(30))
        assert (await watch.read()).status == NOT_SERVING
        assert (await health.Check(health_pb2.HealthCheckRequest())).status == NOT_SERVING

        stub = pb_grpc.ConnectorStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.ConnectTwilioCall(pb.ConnectTwilioCallRequest(room_name=room), metadata=bearer(stage))
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert "shutting down" in (caught.value.details() or "")

        (call,) = (await stub.ListCalls(pb.ListCallsRequest(), metadata=bearer(stage))).calls
        await stub.EndCall(pb.EndCallRequest(call_id=call.call_id), metadata=bearer(stage))
        watch.cancel()
    async with asyncio.timeout(PATIENCE):
        await stopping
