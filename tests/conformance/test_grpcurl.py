"""gRPC as a stranger finds it: grpcurl, which knows nothing of the service but what reflection says."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from connector.app import Connector
from tests.conformance.programs import ROOT
from tests.integration.harness import Stage
from tests.integration.rpc import grpc_connector
from tests.integration.wire import token


@pytest.fixture(scope="session")
def program(request: pytest.FixtureRequest) -> str:
    """Built once; the build says what it does on stderr."""
    capture = request.config.pluginmanager.getplugin("capturemanager")
    with capture.global_and_fixture_disabled():
        built = subprocess.run(
            [sys.executable, str(ROOT / "scripts" / "grpcurl.py")], stdout=subprocess.PIPE, text=True, check=False
        )
    if built.returncode:
        pytest.fail("grpcurl cannot be built; the reason is above", pytrace=False)
    return built.stdout.strip()


@dataclass
class Grpcurl:
    program: str
    stage: Stage
    connector: Connector

    async def run(self, *words: str, options: tuple[str, ...] = ()) -> tuple[int, str]:
        """Exit status, and all it printed. `words` follow the address."""
        process = await asyncio.create_subprocess_exec(
            *(self.program, "-plaintext", *options, f"127.0.0.1:{self.connector.grpc.port}", *words),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        out, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, out.decode()

    async def call(self, method: str, request: dict[str, Any], *options: str) -> tuple[int, str]:
        """An authorised request."""
        header = ("-H", f"authorization: Bearer {token(self.stage)}", "-d", json.dumps(request))
        return await self.run(method, options=(*header, *options))


@pytest.fixture
async def grpcurl(program: str, stage: Stage) -> Grpcurl:
    return Grpcurl(program, stage, await grpc_connector(stage))


async def test_the_services_are_listed(grpcurl: Grpcurl) -> None:
    status, out = await grpcurl.run("list")
    assert (status, out.split()) == (
        0,
        [
            "connector.v1.Connector",
            "grpc.health.v1.Health",
            "grpc.reflection.v1alpha.ServerReflection",
            "livekit.Connector",
        ],
    )


async def test_the_services_are_described(grpcurl: Grpcurl) -> None:
    status, ours = await grpcurl.run("describe", "connector.v1.Connector")
    assert status == 0
    assert "rpc EndCall ( .connector.v1.EndCallRequest ) returns ( .connector.v1.EndCallResponse );" in ours
    status, livekits = await grpcurl.run("describe", "livekit.Connector")
    assert status == 0
    assert "rpc ConnectTwilioCall ( .livekit.ConnectTwilioCallRequest )" in livekits
    status, message = await grpcurl.run("describe", "connector.v1.Call")
    assert status == 0
    assert ".google.protobuf.Timestamp created_at = 11;" in message


@pytest.mark.parametrize("service", ["livekit.Connector", "connector.v1.Connector"])
async def test_a_call_is_connected_shown_and_ended(grpcurl: Grpcurl, room: str, service: str) -> None:
    request = {"twilio_call_direction": "TWILIO_CALL_DIRECTION_OUTBOUND", "room_name": room}
    status, out = await grpcurl.call(f"{service}/ConnectTwilioCall", request)
    assert status == 0, out
    assert json.loads(out)["connect_url"].startswith("ws://127.0.0.1:")
    assert room in await grpcurl.stage.rooms()

    status, out = await grpcurl.call("connector.v1.Connector/ListCalls", {"room_name": room})
    (listed,) = json.loads(out)["calls"]
    status, out = await grpcurl.call("connector.v1.Connector/EndCall", {"call_id": listed["call_id"]})
    assert (status, json.loads(out)["call"]["end_reason"]) == (0, "ended_by_api")
    assert room not in await grpcurl.stage.rooms()


async def test_what_is_wrong_is_said(grpcurl: Grpcurl) -> None:
    status, out = await grpcurl.call("connector.v1.Connector/GetCall", {"call_id": "call_nobody"})
    assert status != 0
    assert "Code: NotFound\n  Message: no such call" in out
    status, out = await grpcurl.run("connector.v1.Connector/ListCalls")
    assert status != 0
    assert "Code: Unauthenticated" in out
    status, out = await grpcurl.call("livekit.Connector/DialWhatsAppCall", {})
    assert status != 0
    assert "Code: Unimplemented" in out


async def test_its_health_is_asked_as_load_balancers_ask(grpcurl: Grpcurl) -> None:
    status, out = await grpcurl.run("grpc.health.v1.Health/Check")
    assert (status, json.loads(out)) == (0, {"status": "SERVING"})
