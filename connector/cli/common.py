"""Parts that several commands use: settings, the API token, requests to the running service."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import sys
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import aiohttp
import typer
from google.protobuf import json_format
from google.protobuf.message import Message
from livekit import api
from rich.console import Console
from rich.table import Table

from connector.config import Settings
from connector.config_sources import load_settings, setting_names
from connector.errors import ConnectorError, NotFound, Unavailable
from connector.spelling import unknown_variables
from connector.storage.base import Store
from connector.storage.stores import opened
from connector.urls import bracketed

ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; the environment overrides it.")]
Service = Annotated[
    str, typer.Option("--url", help="URL of the running service; by default, derived from the settings.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")]
Row = Mapping[str, str | int | float]
M = TypeVar("M", bound=Message)
T = TypeVar("T")


class NoService(Unavailable):
    """No service listens at the address of the request."""


TOKEN_TTL = 60
PATIENCE = 30.0
"""Seconds; the service's own limits are far below."""


def settings_or_exit(config: Path | None, **flags: object) -> Settings:
    """The settings. If they are invalid, prints one line for each error and exits with status 2. Warns of environment
    variables that look like settings but are not."""
    settings = settings_of_service(config, **flags)
    for line in misspelt():
        typer.echo(f"warning: {line}", err=True)
    return settings


def misspelt() -> list[str]:
    """One line for each environment variable that looks like a setting but is not."""
    return [
        f"{name} is not a setting" + (f"; did you mean {meant}?" if meant else "")
        for name, meant in unknown_variables(os.environ, setting_names())
    ]


def settings_of_service(config: Path | None, **flags: object) -> Settings:
    """As `settings_or_exit`, without the warnings: `serve` writes them to its log."""
    try:
        return load_settings(config, flags)
    except ConnectorError as error:
        for line in error.message.split("; "):
            typer.echo(f"error: {line}", err=True)
        raise typer.Exit(2) from None


def run_or_exit(work: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine; a ConnectorError becomes one printed line and exit status 1."""
    try:
        return asyncio.run(work())
    except ConnectorError as error:
        typer.echo(f"error: {error.message}", err=True)
        raise typer.Exit(1) from None


def api_token(settings: Settings, valid_for: int) -> str:
    """A LiveKit access token with the grant the API asks for; `valid_for` in seconds."""
    minted = (
        api.AccessToken(settings.livekit_api_key, settings.livekit_api_secret.get_secret_value())
        .with_identity("connector-cli")
        .with_grants(api.VideoGrants(room_create=True))
        .with_ttl(datetime.timedelta(seconds=valid_for))
    )
    return minted.to_jwt()


async def call_service(settings: Settings, url: str, method: str, request: Message, answer: type[M]) -> M:
    """One RPC of connector.v1 over Twirp. Raises ConnectorError with the service's own message, NoService where none
    runs."""
    origin = url.rstrip("/") or service_origin(settings)
    headers: Mapping[str, str] = {
        "Authorization": f"Bearer {api_token(settings, TOKEN_TTL)}",
        "Content-Type": "application/protobuf",
    }
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=PATIENCE)) as session,
            session.post(
                f"{origin}/twirp/connector.v1.Connector/{method}", data=request.SerializeToString(), headers=headers
            ) as response,
        ):
            body = await response.read()
            if response.status != 200:
                raise ConnectorError(_reason(body, response.status, origin))
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        kind = NoService if isinstance(error, aiohttp.ClientConnectorError) else Unavailable
        raise kind(
            f"no connector answers at {origin} ({type(error).__name__}); is `connector serve` running?"
        ) from error
    return answer.FromString(body)


def as_dict(message: Message) -> dict[str, Any]:
    """The message as a dict of JSON types, with the field names of the proto file."""
    return dict(json_format.MessageToDict(message, preserving_proto_field_name=True))


def service_origin(settings: Settings) -> str:
    """The origin (URL without path) at which these settings' service answers."""
    return f"http://{_reachable(settings.host)}:{settings.port}"


def _reachable(host: str) -> str:
    listening_everywhere = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}
    return bracketed(listening_everywhere.get(host, host))


def _reason(body: bytes, status: int, origin: str) -> str:
    try:
        error = json.loads(body)
        return f"{error['msg']} ({error['code']})"
    except (ValueError, KeyError, TypeError):
        return not_ours(origin, status)


def not_ours(origin: str, status: int) -> str:
    return f"{origin} answered {status}, which is not a connector's answer; see CONNECTOR_PORT, --url"


def using_store(settings: Settings, origin: str) -> None:
    """Print that no service runs, and which store is used instead."""
    typer.echo(f"no connector answers at {origin}: using the store {settings.store_place}", err=True)


async def with_store(settings: Settings, work: Callable[[Store], Awaitable[T]], *, creates: bool = False) -> T:
    """Open the store of the settings and run `work` on it; the service need not run. NotFound when the store does not
    exist, unless `creates`."""
    if not creates:
        require_store(settings)
    async with opened(settings) as store:
        return await work(store)


def require_store(settings: Settings) -> None:
    """Raise NotFound when the store does not exist: opening it would create it."""
    if settings.store_file is not None and not settings.store_file.exists():
        raise NotFound(
            f"there is no store {settings.store_place}; run this with the settings and in the folder of the service, "
            "or set CONNECTOR_STORE"
        )


def print_rows(rows: Sequence[Row], as_json: bool, none: str) -> None:
    """Print the rows as a table, or as one JSON object a line. Instead of an empty table, prints `none` to stderr."""
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    if not rows:
        typer.echo(none, err=True)
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
