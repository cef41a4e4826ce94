"""connector.v1 as its clients call it: Twirp in both encodings and gRPC, behind one face."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp
import grpc
from google.protobuf import json_format
from google.protobuf.message import Message

from connector.app import Connector
from connectorpb.v1 import connector_pb2 as pb
from connectorpb.v1 import connector_pb2_grpc as pb_grpc
from tests.integration.harness import Stage
from tests.integration.wire import token

TRANSPORTS = ("twirp protobuf", "twirp json", "grpc")
M = TypeVar("M", bound=Message)


class RpcFailed(Exception):
    """`code` in Twirp's words (which are gRPC's in lower case)."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.message = message


Send = Callable[[str, Message, type[Message]], Awaitable[Message]]


class Rpc:
    """Typed methods over whatever `send` speaks; every refusal is RpcFailed."""

    def __init__(self, send: Send) -> None:
        self._send = send

    async def _call(self, name: str, request: Message, response: type[M]) -> M:
        answer = await self._send(name, request, response)
        assert isinstance(answer, response)
        return answer

    async def connect(self, **fields: Any) -> pb.ConnectTwilioCallResponse:
        request = pb.ConnectTwilioCallRequest(**fields)
        return await self._call("ConnectTwilioCall", request, pb.ConnectTwilioCallResponse)

    async def place(self, to: str, from_: str, room: str, **fields: Any) -> pb.Call:
        fields |= {"to": to, "from": from_, "room_name": room}
        request = pb.PlaceTwilioCallRequest(**fields)
        return (await self._call("PlaceTwilioCall", request, pb.PlaceTwilioCallResponse)).call

    async def list_calls(self, **fields: Any) -> pb.ListCallsResponse:
        return await self._call("ListCalls", pb.ListCallsRequest(**fields), pb.ListCallsResponse)

    async def get(self, call_id: str) -> pb.Call:
        return (await self._call("GetCall", pb.GetCallRequest(call_id=call_id), pb.GetCallResponse)).call

    async def end(self, call_id: str) -> pb.Call:
        return (await self._call("EndCall", pb.EndCallRequest(call_id=call_id), pb.EndCallResponse)).call

    async def dtmf(self, call_id: str, digits: str) -> None:
        await self._call("SendDtmf", pb.SendDtmfRequest(call_id=call_id, digits=digits), pb.SendDtmfResponse)

    async def bridge(self, **fields: Any) -> pb.BridgeTwilioConferenceResponse:
        request = pb.BridgeTwilioConferenceRequest(**fields)
        return await self._call("BridgeTwilioConference", request, pb.BridgeTwilioConferenceResponse)

    async def unbridge(self, **fields: Any) -> pb.UnbridgeTwilioConferenceResponse:
        request = pb.UnbridgeTwilioConferenceRequest(**fields)
        return await self._call("UnbridgeTwilioConference", request, pb.UnbridgeTwilioConferenceResponse)

    async def clear(self, call_id: str) -> None:
        await self._call("ClearAudio", pb.ClearAudioRequest(call_id=call_id), pb.ClearAudioResponse)

    async def switch(self, call_id: str, room: str, *agents: str) -> pb.Call:
        wanted = [pb.RoomAgentDispatch(agent_name=name) for name in agents]
        request = pb.SwitchRoomRequest(call_id=call_id, room_name=room, agents=wanted)
        return (await self._call("SwitchRoom", request, pb.SwitchRoomResponse)).call

    async def transfer(self, call_id: str, to: str, **more: Any) -> pb.Call:
        request = pb.TransferCallRequest(call_id=call_id, to=to, **more)
        return (await self._call("TransferCall", request, pb.TransferCallResponse)).call


def _twirp(stage: Stage, connector: Connector, session: aiohttp.ClientSession, in_json: bool) -> Send:
    async def send(name: str, request: Message, response: type[Message]) -> Message:
        body = json_format.MessageToJson(request).encode() if in_json else request.SerializeToString()
        headers = {
            "Authorization": f"Bearer {token(stage)}",
            "Content-Type": "application/json" if in_json else "application/protobuf",
        }
        url = f"http://127.0.0.1:{connector.port}/twirp/connector.v1.Connector/{name}"
        async with session.post(url, data=body, headers=headers) as reply:
            answer = await reply.read()
        if reply.status != 200:
            error = json.loads(answer)
            raise RpcFailed(error["code"], error["msg"])
        return json_format.Parse(answer, response()) if in_json else response.FromString(answer)

    return send


def _grpc(stage: Stage, stub: pb_grpc.ConnectorStub) -> Send:
    async def send(name: str, request: Message, response: type[Message]) -> Message:
        try:
            answer: Message = await getattr(stub, name)(request, metadata=bearer(stage))
        except grpc.aio.AioRpcError as error:
            raise RpcFailed(error.code().name.lower(), error.details() or "") from error
        return answer

    return send


def bearer(stage: Stage, **claims: Any) -> tuple[tuple[str, str], ...]:
    """The metadata of an authorised request."""
    return (("authorization", f"Bearer {token(stage, **claims)}"),)


async def grpc_connector(stage: Stage, **settings: Any) -> Connector:
    """A connector with gRPC on a port of its own."""
    return await stage.connector(**{"grpc_port": stage.free_port()} | settings)


@asynccontextmanager
async def open_channel(connector: Connector) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{connector.grpc.port}") as channel:
        yield channel


@asynccontextmanager
async def rpc_over(transport: str, stage: Stage, connector: Connector) -> AsyncIterator[Rpc]:
    """`transport` is one of TRANSPORTS."""
    if transport == "grpc":
        async with open_channel(connector) as channel:
            yield Rpc(_grpc(stage, pb_grpc.ConnectorStub(channel)))
    else:
        async with aiohttp.ClientSession() as session:
            yield Rpc(_twirp(stage, connector, session, transport == "twirp json"))
