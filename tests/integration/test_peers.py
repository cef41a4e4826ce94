"""Two real processes on one store: every request is answered at the one that does not hold the call."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urldefrag

import aiohttp
import grpc
import numpy as np
import pytest
from livekit import api

from carrier_simulator import OutboundCall, TwilioSimulator
from connector.api.peer_endpoint import PeerEndpoint
from connector.app import Connector
from connector.metrics import Metrics
from connector.model.call import CallRecord
from connector.peers.commands import CallCommand
from connector.peers.request_tokens import PeerSignatures
from connectorpb.v1 import connector_pb2 as pb
from connectorpb.v1 import connector_pb2_grpc as pb_grpc
from demo.connector_process import ConnectorProcess
from demo.livekit_server import LiveKitServer
from demo.redis_server import RedisServer
from tests.integration.harness import OUTBOUND, PATIENCE, TWILIO_TOKEN, Stage, connect_call, place, stage_on, until
from tests.integration.rest import RestClient
from tests.integration.rpc import TRANSPORTS, Rpc, RpcFailed, bearer, rpc_over
from tests.integration.wire import token

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
TO = "+15550001111"
AT_ONCE = 3.0
"""Seconds; a connection attempt takes one at most."""


@dataclass(frozen=True, slots=True)
class _Grpc:
    port: int


@dataclass(frozen=True, slots=True)
class Process:
    """A connector as the clients of the tests address it."""

    child: ConnectorProcess
    port: int
    grpc: _Grpc
    settings: Any

    @property
    def connector(self) -> Connector:
        return cast(Connector, self)


class Service:
    def __init__(self, stage: Stage, twilio: TwilioSimulator, store: str) -> None:
        self.stage = stage
        self.twilio = twilio
        self.store = store

    @asynccontextmanager
    async def process(self, name: str, **environment: str) -> AsyncIterator[Process]:
        port = self.stage.free_port()
        given = {
            **self.stage.livekit.environment,
            "CONNECTOR_STORE": self.store,
            "CONNECTOR_INSTANCE": name,
            "CONNECTOR_GRPC_PORT": str(port),
            "TWILIO_ACCOUNT_SID": self.twilio.account_sid,
            "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
            "TWILIO_API_URL": self.twilio.base_url,
        }
        async with ConnectorProcess(given | environment) as child:
            try:
                yield Process(child, int(child.url.rpartition(":")[2]), _Grpc(port), self.stage.settings())
            finally:
                if child.pid:
                    os.kill(child.pid, signal.SIGCONT)

    async def active_call(self, holder: Process, room: str) -> tuple[OutboundCall, str]:
        """A phone that talks, and the id of its call."""
        livekit = self.stage.livekit
        client = api.LiveKitAPI(holder.child.url, livekit.api_key, livekit.api_secret, failover=False)
        try:
            phone = place(self.twilio, await connect_call(client, room, OUTBOUND))
        finally:
            await client.aclose()
        async with rpc_over("twirp json", self.stage, holder.connector) as rpc, asyncio.timeout(PATIENCE):
            while True:
                listed = await rpc.list_calls(room_name=room, state=pb.Call.STATE_ACTIVE)
                if listed.calls:
                    return phone, listed.calls[0].call_id
                await asyncio.sleep(0.02)


@pytest.fixture
async def stage(livekit: LiveKitServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_on(livekit, tmp_path) as stage:
        yield stage


@pytest.fixture
async def service(stage: Stage, tmp_path: Path) -> Service:
    return Service(stage, await stage.twilio(), f"sqlite:///{tmp_path / 'shared.db'}")


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    server = RedisServer(folder=tmp_path)
    asyncio.run(server.start())
    yield server.url
    asyncio.run(server.stop())


def is_heard(phone: OutboundCall) -> bool:
    return bool(np.abs(phone.heard.astype(np.int32)).max(initial=0) > 1000)


async def every_request(service: Service, holder: Process, rpc: Rpc, room: str) -> None:
    """The five requests, on two calls."""
    phone, call_id = await service.active_call(holder, room)
    await rpc.dtmf(call_id, "5")
    await until(lambda: is_heard(phone))
    await rpc.clear(call_id)
    moved = await rpc.switch(call_id, f"{room}-next")
    assert moved.room_name == f"{room}-next"
    assert "caller" in await service.stage.participants(f"{room}-next")
    with pytest.raises(RpcFailed) as refused:
        await rpc.transfer(call_id, TO, timeout=1)
    assert (refused.value.code, refused.value.message.split(":")[0]) == ("invalid_argument", "timeout")
    ended = await rpc.end(call_id)
    assert (ended.state, ended.end_reason) == (pb.Call.STATE_ENDED, "ended_by_api")
    await phone.finished()
    for request in (rpc.dtmf(call_id, "1"), rpc.clear(call_id), rpc.switch(call_id, room), rpc.transfer(call_id, TO)):
        with pytest.raises(RpcFailed, match="ended") as refused:
            await request
        assert refused.value.code == "failed_precondition"
    phone, call_id = await service.active_call(holder, f"{room}-transfer")
    transferred = await rpc.transfer(call_id, TO, wait_until_answered=True)
    assert (transferred.end_reason, transferred.transfer_status) == ("transferred", "answered")
    await phone.hangup()
    await phone.finished()


async def every_rest_request(service: Service, holder: Process, asked: Process, room: str) -> None:
    rest = RestClient(await service.stage.http(), asked.connector)
    phone, call_id = await service.active_call(holder, room)
    moved = await rest.ok("POST", "/v2/sip/call/switch-room", {"callId": call_id, "roomId": f"{room}-next"})
    assert moved["data"]["roomId"] == f"{room}-next"
    ended = await rest.ok("POST", "/v2/sip/call/end", {"callId": call_id})
    assert ended["data"]["endReason"] == "ended_by_api"
    await phone.finished()
    status, refused = await rest("POST", "/v2/sip/call/switch-room", {"callId": call_id, "roomId": room})
    assert (status, refused["code"]) == (409, "failed_precondition")
    phone, call_id = await service.active_call(holder, f"{room}-transfer")
    body = {"callId": call_id, "transferTo": TO, "waitUntilAnswered": True}
    transferred = await rest.ok("POST", "/v2/sip/call/transfer", body)
    assert transferred["data"]["endReason"] == "transferred"
    await phone.hangup()
    await phone.finished()


async def test_every_request_is_answered_by_the_process_that_does_not_hold_the_call(
    service: Service, room: str
) -> None:
    async with service.process("holder") as holder, service.process("asked") as asked:
        for number, transport in enumerate(TRANSPORTS):
            async with rpc_over(transport, service.stage, asked.connector) as rpc:
                await every_request(service, holder, rpc, f"{room}-{number}")
        await every_rest_request(service, holder, asked, f"{room}-rest")
        async with (await service.stage.http()).get(f"{asked.child.url}/metrics") as response:
            metrics = await response.text()
    assert 'connector_peer_requests_total{request="SendDtmf",result="done"} 3.0' in metrics
    assert 'connector_peer_requests_total{request="EndCall",result="done"} 4.0' in metrics


async def test_the_same_over_redis(service: Service, redis: str, room: str) -> None:
    service.store = redis
    async with (
        service.process("holder") as holder,
        service.process("asked") as asked,
        rpc_over("grpc", service.stage, asked.connector) as rpc,
    ):
        await every_request(service, holder, rpc, room)


async def assert_unavailable(rpc: Rpc, call_id: str, why: str) -> None:
    """All that steers the call. (EndCall may find that the lease has lapsed already, and end the call.)"""
    for request in (
        rpc.dtmf(call_id, "1"),
        rpc.clear(call_id),
        rpc.switch(call_id, "elsewhere"),
        rpc.transfer(call_id, TO),
    ):
        with pytest.raises(RpcFailed, match=why) as failed:
            await request
        assert failed.value.code == "unavailable"


def peer_port(service: Service, owner: str) -> int:
    with sqlite3.connect(service.store.removeprefix("sqlite:///")) as db:
        (address,) = db.execute("SELECT address FROM leases WHERE owner = ?", (owner,)).fetchone()
    return int(urldefrag(address)[0].rpartition(":")[2])


async def test_an_owner_that_is_stopped_or_dead_keeps_nobody_waiting(service: Service, room: str) -> None:
    stage = service.stage
    async with service.process("holder") as holder, service.process("asked") as asked:
        _, call_id = await service.active_call(holder, room)
        port = peer_port(service, "holder")
        http = await stage.http()
        async with http.post(f"http://127.0.0.1:{port}/peer", json={}) as refused:
            assert refused.status == 403, "without a token nobody is answered"

        os.kill(holder.child.pid, signal.SIGSTOP)
        started = time.monotonic()
        await assert_deadline_kept(stage, asked, call_id, http)
        assert time.monotonic() - started < 4 * AT_ONCE

        await holder.child.kill()
        async with (
            rpc_over("twirp json", stage, asked.connector) as rpc,
            rpc_over("grpc", stage, asked.connector) as over_grpc,
            asyncio.timeout(5 * AT_ONCE),
        ):
            await assert_unavailable(rpc, call_id, "holder, which held the call, is gone")
            rest = RestClient(http, asked.connector)
            status, answer = await rest("POST", "/v2/sip/call/switch-room", {"callId": call_id, "roomId": "elsewhere"})
            assert (status, answer["code"]) == (503, "unavailable")
            # Another process gets the address that still stands in the lease of the dead one.
            usurper = PeerEndpoint("usurper", PeerSignatures(stage.livekit.api_secret), not_to_be_asked, Metrics())
            await usurper.start("127.0.0.1", port)
            try:
                await assert_unavailable(over_grpc, call_id, "another one has its address")
            finally:
                await usurper.stop()
        async with rpc_over("twirp json", stage, asked.connector) as rpc, asyncio.timeout(PATIENCE):
            assert (await end_at_last(rpc, call_id)).end_reason


async def end_at_last(rpc: Rpc, call_id: str) -> pb.Call:
    """As soon as the lease of the dead process has lapsed, the call is another's to end."""
    while True:
        try:
            return await rpc.end(call_id)
        except RpcFailed as failed:
            if failed.code != "unavailable":
                raise
        await asyncio.sleep(0.1)


async def not_to_be_asked(command: CallCommand) -> CallRecord:
    raise AssertionError(f"a request for another process: {command.name}")


async def assert_deadline_kept(stage: Stage, asked: Process, call_id: str, http: aiohttp.ClientSession) -> None:
    """Of a second, on every transport."""
    headers = {"Authorization": f"Bearer {token(stage)}", "X-Twirp-Timeout-Ms": "1000"}
    url = f"http://127.0.0.1:{asked.port}/twirp/connector.v1.Connector/ClearAudio"
    async with http.post(url, json={"call_id": call_id}, headers=headers) as response:
        answer = await response.json()
        assert (response.status, answer["code"]) == (408, "deadline_exceeded")
        assert "the process holder" in answer["msg"]
    url = f"http://127.0.0.1:{asked.port}/v2/sip/call/switch-room"
    async with http.post(url, json={"callId": call_id, "roomId": "elsewhere"}, headers=headers) as response:
        assert (response.status, (await response.json())["code"]) == (504, "deadline_exceeded")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{asked.grpc.port}") as channel:
        stub = pb_grpc.ConnectorStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await stub.SendDtmf(pb.SendDtmfRequest(call_id=call_id, digits="1"), metadata=bearer(stage), timeout=1.0)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
