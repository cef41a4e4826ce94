"""Twirp over aiohttp: the `twirp` package routes, decodes and encodes; this module gives it an ASGI scope.

This module corrects the package where it differs from LiveKit's SDKs and the Twirp specification: unknown JSON fields
are ignored, an unknown method is `bad_route`, and a media type may have parameters.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import structlog
from aiohttp import web
from google.protobuf import json_format
from google.protobuf.message import Message
from twirp.asgi import TwirpASGIApp
from twirp.base import Endpoint
from twirp.context import Context
from twirp.errors import Errors
from twirp.exceptions import TwirpServerException
from twirp.server import TwirpServer

from connector.api.auth import Authorizer
from connector.api.bodies import bounded_body
from connector.api.refusals import Refusals
from connector.api.resume_urls import header_of
from connector.api.rpc.methods import Method
from connector.api.timeouts import client_timeout
from connector.deadlines import deadline
from connector.errors import ConnectorError, DeadlineExceeded, InvalidArgument, Malformed

log = structlog.get_logger()

MAX_BODY = 256 * 1024


class _App(TwirpASGIApp):  # type: ignore[misc]  # the package has no types
    def _get_endpoint(self, path: str) -> Any:
        try:
            return super()._get_endpoint(path)
        except TwirpServerException:
            raise TwirpServerException(
                code=Errors.BadRoute,
                message=f"no handler for path {path}",
                meta={"twirp_invalid_route": f"POST {path}"},
            ) from None

    @staticmethod
    def json_decoder(body: bytes, data_obj: type[Message]) -> Message:
        message = data_obj()
        try:
            document = json.loads(body)
            _check_enums(document, message.DESCRIPTOR.fields)
            if not _is_livekits(message):
                _check_known(document, message.DESCRIPTOR)
            json_format.ParseDict(document, message, ignore_unknown_fields=True)
        except (json_format.ParseError, ValueError, RecursionError, TypeError, AttributeError):
            raise to_twirp(Malformed("the body is not JSON of the request's shape")) from None
        except InvalidArgument as error:
            raise to_twirp(error) from None
        return message


def _is_livekits(message: Message) -> bool:
    """LiveKit's SDKs may know fields that this connector does not."""
    return message.DESCRIPTOR.file.package == "livekit" or message.DESCRIPTOR.name == "ConnectTwilioCallRequest"


def _check_known(document: Any, descriptor: Any) -> None:
    """Raises InvalidArgument, which names the field, if a field does not exist."""
    if not isinstance(document, dict):
        raise ValueError("a message is a JSON object")
    known = {name: field for field in descriptor.fields for name in (field.name, field.json_name)}
    for name, value in document.items():
        field = known.get(name)
        if field is None:
            raise InvalidArgument(name[:64], "is not a field of this request")
        if field.message_type is not None and not _has_json_of_its_own(field.message_type):
            for item in value if isinstance(value, list) else [value]:
                if item is not None:
                    _check_known(item, field.message_type)


def _check_enums(document: Any, fields: Iterable[Any]) -> None:
    """Checks enum values before the parser does. A parser that ignores unknown fields also replaces an unknown enum
    name by the default value, and it accepts `true` and 0.5 as numbers."""
    if not isinstance(document, dict):
        raise ValueError("a message is a JSON object")
    for field in fields:
        for value in (document.get(field.name), document.get(field.json_name)):
            if field.enum_type is not None:
                _check_enum(value, field)
            elif field.message_type is not None and not _has_json_of_its_own(field.message_type):
                for item in value if isinstance(value, list) else [value]:
                    if item is not None:
                        _check_enums(item, field.message_type.fields)


def _has_json_of_its_own(message: Any) -> bool:
    """Whether the JSON form differs from the fields: maps and protobuf's well-known types (a Timestamp is a string)."""
    return bool(message.GetOptions().map_entry) or message.file.package == "google.protobuf"


def _check_enum(value: Any, field: Any) -> None:
    if isinstance(value, str) and value not in field.enum_type.values_by_name:
        raise InvalidArgument(field.name, f"{value[:64]!r} does not exist")
    if isinstance(value, bool | float):
        raise ValueError("an enum is a name or a whole number")


def to_twirp(error: ConnectorError) -> TwirpServerException:
    meta = {"argument": error.field} if isinstance(error, InvalidArgument) else {}
    return TwirpServerException(code=Errors(error.twirp_code), message=error.message, meta=meta)


class _Service(TwirpServer):  # type: ignore[misc]
    def __init__(self, name: str) -> None:
        super().__init__(service=None)
        self._prefix = f"/twirp/{name}"

    def add(self, method: Method) -> None:
        async def call(context: Context, message: Message) -> Message:
            try:
                response = await method.handler(message)
            except ConnectorError as error:
                raise to_twirp(error) from error
            except Exception:
                log.exception("request failed", service=method.service, method=method.name)
                raise TwirpServerException(code=Errors.Internal, message="internal error") from None
            for name, value in header_of(response).items():
                context.set_response_header(name, value)
            return response

        self._endpoints[method.name] = Endpoint(method.service, method.name, call, method.request, method.response)


class _Context(Context):  # type: ignore[misc]
    def __init__(self) -> None:
        # Without a logger, the package would configure structlog for the whole process.
        super().__init__(logger=log)


def _twirp_app(table: Iterable[Method]) -> _App:
    app = _App(max_receive_message_length=MAX_BODY, ctx_class=_Context)
    servers: dict[str, _Service] = {}
    for method in table:
        servers.setdefault(method.service, _Service(method.service)).add(method)
    for server in servers.values():
        app.add_service(server)
    return app


class TwirpRoutes:
    """`POST /twirp/<service>/<method>` as an aiohttp handler."""

    def __init__(self, table: Iterable[Method], authorizer: Authorizer, refusals: Refusals) -> None:
        self._app = _twirp_app(table)
        self._authorizer = authorizer
        self._refusals = refusals

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_route("*", "/twirp/{tail:.*}", self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        """Routes, authorises, then reads and decodes: the body of an unauthorised request is never parsed."""
        response = await self._answer(request)
        if response.status != 200:
            assert isinstance(response.body, bytes)
            error = json.loads(response.body)
            self._refusals.note(request.path.removeprefix("/twirp/"), error["code"], error["msg"])
        return response

    async def _answer(self, request: web.Request) -> web.Response:
        try:
            if request.method == "POST":
                self._app._get_endpoint(request.path)
                self._authorizer.require_room_create(request.headers.get("Authorization"))
            body = await _read(request)
        except TwirpServerException as error:
            return _error(error)
        except ConnectorError as error:
            return _error(to_twirp(error))
        return await self._run(request, body)

    async def _run(self, request: web.Request, body: bytes) -> web.Response:
        scope = {
            "type": "http",
            "method": request.method,
            "path": request.path,
            "headers": [(b"content-type", request.content_type.encode())],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        try:
            async with deadline(client_timeout(request)):
                await self._app(scope, receive, send)
        except DeadlineExceeded as error:
            return _error(to_twirp(error))
        start, content = sent
        headers = {name.decode(): value.decode() for name, value in start["headers"]}
        headers.pop("Content-Length", None)
        return web.Response(status=start["status"], body=content["body"], headers=headers)


async def _read(request: web.Request) -> bytes:
    try:
        return await bounded_body(request, MAX_BODY)
    except web.HTTPRequestEntityTooLarge:
        raise InvalidArgument("body", f"is larger than {MAX_BODY} bytes") from None


def _error(error: TwirpServerException) -> web.Response:
    return web.Response(
        status=Errors.get_status_code(error.code), body=error.to_json_bytes(), content_type="application/json"
    )
