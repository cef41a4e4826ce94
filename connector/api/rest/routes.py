"""The REST API under `/v2`: processes the requests for all operations in its table.

Each request is authorised, read, checked by its pydantic model, and handled. All errors have the form
`{"message", "code"}`. The OpenAPI document is made from the same table (`connector.api.rest.openapi`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence

import structlog
from aiohttp import web
from pydantic import BaseModel, ValidationError

from connector.api.auth import Authorizer
from connector.api.bodies import bounded_body
from connector.api.refusals import Refusals
from connector.api.rest.models import Asked, in_words
from connector.api.rest.openapi import document
from connector.api.rest.operation import Access, Operation
from connector.api.timeouts import client_timeout
from connector.deadlines import deadline
from connector.errors import ConnectorError, DeadlineExceeded, FailedPrecondition, InvalidArgument, Malformed
from connector.spelling import nearest

log = structlog.get_logger()

MAX_BODY = 128 * 1024
DOCUMENT_PATH = "/v2/openapi.json"
_STATUSES = {
    # HTTP 412 is only for conditions in the request's headers; a wrong state of the call is a conflict.
    FailedPrecondition.twirp_code: 409,
    # After a 408, clients and proxies send the request again by themselves; it may have succeeded.
    DeadlineExceeded.twirp_code: 504,
}


class RestRoutes:
    """See the module's docstring."""

    def __init__(self, operations: Sequence[Operation], authorizer: Authorizer, refusals: Refusals) -> None:
        self._operations = operations
        self._authorizer = authorizer
        self._refusals = refusals
        self._document: asyncio.Future[bytes] | None = None

    def add_to(self, router: web.UrlDispatcher) -> None:
        paths: dict[str, list[str]] = {}
        # Fixed paths are registered first, because a path with a variable in the same place would match them.
        for operation in sorted(self._operations, key=lambda operation: "{" in operation.path):
            router.add_route(operation.method, operation.path, self._handler(operation))
            paths.setdefault(operation.path, []).append(operation.method)
        router.add_route("GET", DOCUMENT_PATH, self._openapi)
        paths[DOCUMENT_PATH] = ["GET"]
        for path, methods in paths.items():
            router.add_route("*", path, self._not_allowed(methods))
        # Carriers' webhooks are also below /v2; they have their own handlers.
        router.add_route("*", "/v2/{tail:(?!hooks/).*}", self._unknown)

    async def _unknown(self, request: web.Request) -> web.Response:
        return problem(404, "not_found", f"{request.path} is not a path of this connector; see {DOCUMENT_PATH}")

    async def _openapi(self, _: web.Request) -> web.Response:
        """Serves the OpenAPI document. It is made once, at the first request, because this is the slowest step of a
        start; and in a thread, because live calls must not wait for it."""
        if self._document is None:
            making = asyncio.to_thread(lambda: json.dumps(document(self._operations)).encode())
            self._document = asyncio.ensure_future(making)
        try:
            text = await asyncio.shield(self._document)
        except Exception:
            self._document = None
            raise
        return web.Response(body=text, content_type="application/json", charset="utf-8")

    def _handler(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handle(request: web.Request) -> web.Response:
            try:
                answer = await self._answer(operation, request)
            except ConnectorError as error:
                return self._refused(operation, error)
            except web.HTTPRequestEntityTooLarge:
                return self._problem(operation, 413, "too_large", f"the body is larger than {MAX_BODY} bytes")
            except Exception:
                log.exception(
                    "REST request failed with an unexpected error", method=operation.method, path=operation.path
                )
                return self._problem(operation, 500, "internal", "internal error; the connector's log has the details")
            return web.Response(
                text=answer.model_dump_json(by_alias=True), status=operation.status, content_type="application/json"
            )

        return handle

    async def _answer(self, operation: Operation, request: web.Request) -> BaseModel:
        if operation.access is Access.TOKEN:
            self._authorizer.require_rest(request.headers.get("Authorization"))
        query = checked(operation.query, dict(request.query)) if operation.query else None
        body = checked(operation.body, await bounded_body(request, MAX_BODY)) if operation.body else None
        async with deadline(client_timeout(request)):
            return await operation.handler(Asked(dict(request.match_info), body, query))

    def _refused(self, operation: Operation, error: ConnectorError) -> web.Response:
        status = _STATUSES.get(error.twirp_code, error.http_status)
        return self._problem(operation, status, error.twirp_code, error.message)

    def _problem(self, operation: Operation, status: int, code: str, message: str) -> web.Response:
        self._refusals.note(f"{operation.method} {operation.path}", code, message)
        return problem(status, code, message)

    def _not_allowed(self, methods: Sequence[str]) -> Callable[[web.Request], Awaitable[web.Response]]:
        allowed = ", ".join(methods)

        async def refuse(request: web.Request) -> web.Response:
            answer = problem(405, "method_not_allowed", f"this path takes {allowed}, not {request.method}")
            answer.headers["Allow"] = allowed
            return answer

        return refuse


def problem(status: int, code: str, message: str) -> web.Response:
    """Returns an error response in the API's form."""
    return web.json_response({"message": message, "code": code}, status=status)


def checked(model: type[BaseModel], given: bytes | dict[str, str]) -> BaseModel:
    """Parses a JSON body or a query. Raises Malformed, or InvalidArgument, which names the field."""
    try:
        return model.model_validate_json(given) if isinstance(given, bytes) else model.model_validate(given)
    except ValidationError as error:
        raise _explained(error, model) from None


def _explained(error: ValidationError, model: type[BaseModel]) -> ConnectorError:
    """Returns the first error, with the client's name of the field; the value is not repeated."""
    problem = error.errors(include_url=False, include_input=False)[0]
    if problem["type"] == "json_invalid":
        return Malformed("the body is not JSON")
    if not problem["loc"]:
        return Malformed("the body must be a JSON object")
    field = ".".join(str(part) for part in problem["loc"])
    said = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "string_pattern_mismatch":
        return InvalidArgument(field, in_words(problem["ctx"]["pattern"]))
    if problem["type"] == "missing":
        return InvalidArgument(field, "is required")
    if problem["type"] == "extra_forbidden":
        meant = nearest(field, [each.alias or name for name, each in model.model_fields.items()])
        return InvalidArgument(field, "is not a field of this request" + (f"; did you mean {meant}?" if meant else ""))
    return InvalidArgument(field, said.replace("Input should be", "must be").replace("String should", "must"))
