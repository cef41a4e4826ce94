"""Each of our errors has its status code in gRPC; needs no LiveKit, the methods here are made to fail."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import structlog
from livekit import api

from connector import errors
from connector.api.auth import Authorizer
from connector.api.refusals import Refusals
from connector.api.rpc.grpc import GrpcServer
from connector.api.rpc.methods import Method
from connector.errors import ConnectorError
from connector.metrics import Metrics
from connector.storage.base import StoreError
from connectorpb.v1 import connector_pb2 as pb

KEY, SECRET = "key", "a secret of more than thirty-two bytes"
TOKEN = api.AccessToken(KEY, SECRET).with_grants(api.VideoGrants(room_create=True)).to_jwt()
CODES = {
    errors.InvalidArgument: "INVALID_ARGUMENT",
    errors.Malformed: "INVALID_ARGUMENT",
    errors.Unauthenticated: "UNAUTHENTICATED",
    errors.PermissionDenied: "PERMISSION_DENIED",
    errors.NotFound: "NOT_FOUND",
    errors.FailedPrecondition: "FAILED_PRECONDITION",
    errors.Aborted: "ABORTED",
    errors.ResourceExhausted: "RESOURCE_EXHAUSTED",
    errors.Unavailable: "UNAVAILABLE",
    errors.DeadlineExceeded: "DEADLINE_EXCEEDED",
    errors.Unimplemented: "UNIMPLEMENTED",
    errors.Internal: "INTERNAL",
    errors.CredentialsRefused: "INTERNAL",
    errors.CarrierCallOver: "NOT_FOUND",
    errors.ConnectUrlError: "NOT_FOUND",
    errors.TokenInvalid: "NOT_FOUND",
    errors.TokenExpired: "NOT_FOUND",
    errors.TokenUsed: "NOT_FOUND",
    errors.SignatureInvalid: "NOT_FOUND",
    errors.CarrierProtocolError: "INTERNAL",
    StoreError: "UNAVAILABLE",
}


def every_error(base: type[ConnectorError] = ConnectorError) -> Iterator[type[ConnectorError]]:
    for error in base.__subclasses__():
        if error.__module__.startswith("connector.errors"):
            yield error
            yield from every_error(error)


def made(error: type[ConnectorError]) -> ConnectorError:
    return errors.InvalidArgument("field", "why") if error is errors.InvalidArgument else error("field: why")


async def outcome_of(raised: Exception) -> grpc.aio.AioRpcError:
    async def fail(_: Any) -> pb.GetCallResponse:
        raise raised

    method = Method("connector.v1.Connector", "GetCall", fail, pb.GetCallRequest, pb.GetCallResponse)
    server = GrpcServer([method], Authorizer(KEY, SECRET), Refusals(Metrics()))
    await server.start("127.0.0.1", 0)
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{server.port}") as channel:
            call: Any = channel.unary_unary("/connector.v1.Connector/GetCall")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call(b"", metadata=(("authorization", f"Bearer {TOKEN}"),))
            return caught.value
    finally:
        await server.stop()


def test_the_table_names_every_error() -> None:
    assert {*every_error(), StoreError} == CODES.keys()


@pytest.mark.parametrize("error", CODES, ids=lambda error: error.__name__)
async def test_an_error_has_its_code_and_keeps_its_message(error: type[ConnectorError]) -> None:
    outcome = await outcome_of(made(error))
    assert (outcome.code().name, outcome.details()) == (CODES[error], "field: why")


async def test_a_bug_of_ours_is_logged_and_tells_the_client_nothing() -> None:
    with structlog.testing.capture_logs() as log:
        outcome = await outcome_of(ZeroDivisionError("with something secret"))
    assert (outcome.code(), outcome.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert [(line["event"], line["method"]) for line in log] == [
        ("request failed", "GetCall"),
        ("API request refused", "connector.v1.Connector/GetCall"),
    ]
