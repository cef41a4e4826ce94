"""The REST API's OpenAPI 3.1 document, made from the models that check the requests."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from connector import __version__
from connector.api.rest.models import Problem
from connector.api.rest.operation import Access, Operation

_REFUSALS = {
    400: "The request is invalid; the message names the field",
    401: "No token, or an invalid one",
    403: "The token does not permit this",
    404: "Not found",
    409: "Conflict with the current state of the resource",
    413: "The body is too large",
    429: "Too many calls or requests at once",
    501: "Not possible with this carrier or this configuration",
    503: "LiveKit, the store, the carrier or the process that holds the call cannot be reached",
    504: "The deadline in the header X-Twirp-Timeout-Ms passed, or the process that holds the call is too slow",
}
_VARIABLE = re.compile(r"\{(\w+)\}")
_REF = "#/components/schemas/{model}"
_JSON = "application/json"

Schema = dict[str, Any]


def document(operations: Iterable[Operation]) -> Schema:
    """Returns the whole document as plain JSON values."""
    operations = list(operations)
    models = _Models(operations)
    paths: dict[str, Schema] = {}
    for operation in operations:
        described = paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation, models)
        if operation.gives:
            described["responses"][str(operation.status)]["links"] = _links(operation, operations)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "LiveKit telephony connector",
            "version": __version__,
            "description": "Connectors, routing rules, webhooks and calls. Compatible with VideoSDK's server SDKs.",
        },
        "paths": paths,
        "components": {
            "schemas": models.definitions,
            "securitySchemes": {
                "token": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "Authorization",
                    "description": "A LiveKit access token with the roomCreate grant, or a token as VideoSDK's SDKs "
                    "sign it, with or without `Bearer ` before it",
                }
            },
        },
        "security": [{"token": []}],
    }


class _Models:
    """The schemas of every model that the operations name."""

    def __init__(self, operations: list[Operation]) -> None:
        wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
        for operation in operations:
            wanted[operation.answer, "serialization"] = None
            if operation.body is not None:
                wanted[operation.body, "validation"] = None
            if operation.query is not None:
                wanted[operation.query, "validation"] = None
        self._refs, schema = models_json_schema(list(wanted), ref_template=_REF)
        self.definitions: Schema = schema["$defs"]

    def ref(self, model: type[BaseModel], mode: JsonSchemaMode) -> Schema:
        return dict(self._refs[model, mode])

    def parameters(self, model: type[BaseModel]) -> list[Schema]:
        """Returns one parameter for each field of a query."""
        schema = self.definitions[self._refs[model, "validation"]["$ref"].rsplit("/", 1)[1]]
        return [_parameter(name, field) for name, field in schema["properties"].items()]


def _parameter(name: str, field: Schema) -> Schema:
    # A query has no null: a parameter is either present or absent.
    if "anyOf" in field:
        (only,) = [choice for choice in field["anyOf"] if choice.get("type") != "null"]
        field = {key: value for key, value in field.items() if key not in ("anyOf", "default")} | only
    described = {"description": field["description"]} if "description" in field else {}
    return {"name": name, "in": "query", "required": False, "schema": field} | described


def _operation(operation: Operation, models: _Models) -> Schema:
    parameters: list[Schema] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1, "maxLength": 64}}
        for name in _VARIABLE.findall(operation.path)
    ]
    if operation.query is not None:
        parameters += models.parameters(operation.query)
    open_to_all = operation.access is Access.OPEN
    common = (400,) if open_to_all else (400, 401, 403)
    refused = {"content": {_JSON: {"schema": models.ref(Problem, "serialization")}}}
    described: Schema = {
        "operationId": _operation_id(operation),
        "summary": operation.summary,
        "tags": [operation.path.removeprefix("/v2/").removeprefix("sip/").split("/")[0]],
        "parameters": parameters,
        "responses": {
            str(operation.status): {
                "description": "Done",
                "content": {_JSON: {"schema": models.ref(operation.answer, "serialization")}},
            },
            **{
                str(status): {"description": _REFUSALS[status]} | refused
                for status in sorted({*common, *operation.refusals, 503, 504} | ({413} if operation.body else set()))
            },
        },
    }
    if operation.description:
        described["description"] = operation.description
    if operation.body is not None:
        schema = models.ref(operation.body, "validation")
        described["requestBody"] = {"required": True, "content": {_JSON: {"schema": schema}}}
    if open_to_all:
        described["security"] = []
    return described


def _links(giver: Operation, operations: list[Operation]) -> Schema:
    """Returns OpenAPI links to the operations on the object that `giver` creates."""
    below = [each for each in operations if each.path.startswith(f"{giver.path}/{{id}}")]
    parameters = {"id": f"$response.body#{giver.gives}"}
    return {_operation_id(each): {"operationId": _operation_id(each), "parameters": parameters} for each in below}


def _operation_id(operation: Operation) -> str:
    words = [word for word in re.split(r"[^A-Za-z0-9]+", operation.path) if word not in ("", "v2")]
    return operation.method.lower() + "".join(word[0].upper() + word[1:] for word in words)
