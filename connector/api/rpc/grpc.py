"""The same methods over gRPC, with health and reflection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from connector.api.auth import Authorizer
from connector.api.refusals import Refusals
from connector.api.resume_urls import header_of
from connector.api.rpc.methods import Method
from connector.deadlines import deadline
from connector.errors import ConnectorError
from connector.urls import bracketed

log = structlog.get_logger()

MAX_MESSAGE = 256 * 1024
LONGEST_REQUEST = 700.0
"""Seconds. TransferCall may wait for an answer for ten minutes."""

_Call = Callable[[bytes, "grpc.aio.ServicerContext[bytes, bytes]"], Awaitable[bytes]]


class GrpcServer:
    """Serves a table of methods on one port. Lifecycle: `start`, `not_serving` when a drain begins, `stop`."""

    def __init__(
        self, table: Sequence[Method], authorizer: Authorizer, refusals: Refusals, *, shares_port: bool = False
    ) -> None:
        """`shares_port`: other processes may listen on the same port."""
        self._shares_port = shares_port
        self._table = table
        self._authorizer = authorizer
        self._refusals = refusals
        self._health = health.aio.HealthServicer()
        self._services = sorted({method.service for method in table})
        self._server: grpc.aio.Server | None = None
        self._leaving: asyncio.Task[None] | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        """Raises OSError if the port is not available; then nothing is left listening."""
        server = grpc.aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE),
                ("grpc.max_metadata_size", 32 * 1024),
                ("grpc.so_reuseport", int(self._shares_port)),
            ]
        )
        server.add_generic_rpc_handlers(tuple(self._handlers()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)
        for name in ("", *self._services):
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        address = f"{bracketed(host)}:{port}"
        try:
            self.port = server.add_insecure_port(address)
        except RuntimeError:
            # grpc's message is mainly C++ internals, and the actual reason is only in grpc's own log.
            raise OSError(
                f"gRPC cannot listen on {address}: is CONNECTOR_GRPC_PORT taken by another program?"
            ) from None
        self._server = server
        await server.start()

    async def not_serving(self) -> None:
        """Reports NOT_SERVING to health checks: no new calls are accepted."""
        if self._server is not None:
            await self._health.enter_graceful_shutdown()

    async def stop_listening(self) -> None:
        """Accept no new connection and no new request; open requests go on until `stop`. Clients reconnect."""
        if self._server is not None and self._leaving is None:
            self._leaving = asyncio.create_task(self._server.stop(grace=LONGEST_REQUEST))

    async def stop(self) -> None:
        server, self._server = self._server, None
        if server is not None:
            await server.stop(grace=1.0)
        if self._leaving is not None:
            await self._leaving

    def _handlers(self) -> Iterable[grpc.GenericRpcHandler]:
        for service in self._services:
            yield grpc.method_handlers_generic_handler(
                service,
                {
                    method.name: grpc.unary_unary_rpc_method_handler(self._unary(method))
                    for method in self._table
                    if method.service == service
                },
            )

    def _unary(self, method: Method) -> _Call:
        """Wraps a method to take and return bytes, so that a body that cannot be decoded gets one of our errors."""

        path = f"{method.service}/{method.name}"

        async def call(body: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
            try:
                self._authorizer.require_room_create(_authorization(context))
                request = method.request()
                request.ParseFromString(body)
                # If the deadline passes or the client disconnects, this is cancelled, and the method undoes its work.
                async with deadline(context.time_remaining()):
                    response = await method.handler(request)
                await context.send_initial_metadata([(name.lower(), url) for name, url in header_of(response).items()])
                return response.SerializeToString()
            except ConnectorError as error:
                self._refusals.note(path, error.twirp_code, error.message)
                await context.abort(getattr(grpc.StatusCode, error.grpc_code), error.message)
            except DecodeError:
                self._refusals.note(path, "malformed", "the body is not the request's protobuf")
                await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "the body is not the request's protobuf")
            except Exception:
                log.exception("request failed", service=method.service, method=method.name)
                self._refusals.note(path, "internal", "internal error")
                await context.abort(grpc.StatusCode.INTERNAL, "internal error")
            raise AssertionError("abort raises")

        return call


def _authorization(context: grpc.aio.ServicerContext[bytes, bytes]) -> str | None:
    for key, value in context.invocation_metadata() or ():
        if key == "authorization":
            return value if isinstance(value, str) else None
    return None
