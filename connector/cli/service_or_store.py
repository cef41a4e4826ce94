"""Administers connectors, rules and webhooks, through the running service or, if none runs, directly in its store.

The path of the store is relative by default. A command that runs in another folder than the service would therefore
change the wrong file. So the service is asked first, and if the store is used directly, its path is printed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import aiohttp

from connector.cli.common import (
    PATIENCE,
    TOKEN_TTL,
    ConfigFile,
    api_token,
    not_ours,
    run_or_exit,
    service_origin,
    settings_or_exit,
    using_store,
    with_store,
)
from connector.config import Settings
from connector.errors import ConnectorError, Unavailable
from connector.logs import configure_logging
from connector.storage.base import Store

if TYPE_CHECKING:
    from connector.api.rest.operation import Operation

JsonObject = dict[str, Any]


def administer(
    config: ConfigFile,
    url: str,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    query: Mapping[str, str] | None = None,
    **names: str,
) -> JsonObject:
    """The answer to one REST API operation; `names` fill the path. If it is refused, prints one line and exits."""
    settings = settings_or_exit(config)
    configure_logging("warning")
    asked = _Asked(method, path, names, dict(body or {}), dict(query or {}))
    return run_or_exit(lambda: _administer(settings, url, asked))


class _Asked:
    def __init__(self, method: str, path: str, names: dict[str, str], body: JsonObject, query: dict[str, str]) -> None:
        self.method = method
        self.path = path
        self.names = names
        self.body = body
        self.query = query


async def _administer(settings: Settings, url: str, asked: _Asked) -> JsonObject:
    origin = url.rstrip("/") or service_origin(settings)
    try:
        return await _by_service(settings, origin, asked)
    except aiohttp.ClientConnectorError as error:
        if url:
            raise Unavailable(f"no connector answers at {origin} ({type(error).__name__})") from error
    using_store(settings, origin)
    return await with_store(settings, lambda store: _in_store(settings, store, asked), creates=asked.method != "GET")


async def _by_service(settings: Settings, origin: str, asked: _Asked) -> JsonObject:
    path = asked.path.format(**{name: quote(value, safe="") for name, value in asked.names.items()})
    headers = {"Authorization": f"Bearer {api_token(settings, TOKEN_TTL)}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session,
            session.request(
                asked.method,
                origin + path,
                json=None if asked.method in ("GET", "DELETE") else asked.body,
                params=asked.query,
                headers=headers,
            ) as response,
        ):
            text = await response.text()
    except aiohttp.ClientConnectorError:
        raise
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"the connector at {origin} does not answer ({type(error).__name__})") from error
    return _answer(origin, response.status, text)


def _answer(origin: str, status: int, text: str) -> JsonObject:
    try:
        answer = json.loads(text)
        if status >= 400:
            raise ConnectorError(str(answer["message"]))
    except (ValueError, KeyError, TypeError):
        answer = None
    if not isinstance(answer, dict):
        raise ConnectorError(not_ours(origin, status))
    return answer


async def _in_store(settings: Settings, store: Store, asked: _Asked) -> JsonObject:
    """Run the operation on the store, with the same checks as the service."""
    # Imported late: importing the REST API takes longer than a request to a running service.
    from connector.api.rest.administration import administration
    from connector.api.rest.models import Asked
    from connector.api.rest.routes import checked
    from connector.carrier_table import carriers_of
    from connector.webhooks.signing import KeyRing

    operation = _operation(administration(settings, carriers_of(settings), store, KeyRing(store.keys)), asked)
    body = checked(operation.body, json.dumps(asked.body).encode()) if operation.body else None
    query = checked(operation.query, asked.query) if operation.query else None
    answer = await operation.handler(Asked(dict(asked.names), body, query))
    return dict(json.loads(answer.model_dump_json(by_alias=True)))


def _operation(operations: list[Operation], asked: _Asked) -> Operation:
    (found,) = (each for each in operations if (each.method, each.path) == (asked.method, asked.path))
    return found
