"""`connector connectors`: webhook URLs for carriers' consoles, made and changed from the shell."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, TypeVar

import typer
from pydantic import BaseModel

from connector.api.origins import Origins
from connector.api.rest import checked
from connector.api.rest_connectors import ConnectorChanged, ConnectorData, ConnectorRest, NewConnector
from connector.api.rest_models import Asked
from connector.api.signed import SignatureCheck
from connector.cli.common import AsJson, ConfigFile, Row, print_rows, run_or_exit, settings_or_exit, with_store
from connector.config import Settings
from connector.logs import configure_logging
from connector.model import ConnectorMode, Provider
from connector.storage.base import Store
from connector.tokens import WebhookKeys

connectors_app = typer.Typer(
    no_args_is_help=True,
    help="Webhook URLs for carriers' consoles, in the store: the service need not run. See docs/connectors.md.",
)

T = TypeVar("T")
ConnectorId = Annotated[str, typer.Argument(metavar="CONNECTOR_ID")]


@connectors_app.command("create")
def create(
    provider: Annotated[Provider, typer.Argument()],
    config: ConfigFile = None,
    name: Annotated[str | None, typer.Option(help="A label.")] = None,
    room: Annotated[str | None, typer.Option(help="The room of calls that no routing rule takes.")] = None,
    rule: Annotated[str | None, typer.Option(help="The routing rule of calls whose number no rule has.")] = None,
    region: Annotated[str | None, typer.Option(help="One of the configured regions.")] = None,
    mode: Annotated[ConnectorMode, typer.Option(help="`sip`: the carrier dials LiveKit SIP.")] = ConnectorMode.STREAM,
) -> None:
    """Make a connector; prints the URL for the carrier's console. Keep it secret."""
    wanted = {
        "provider": provider,
        "name": name,
        "defaultRoomId": room,
        "defaultRuleId": rule,
        "region": region,
        "mode": mode,
    }
    _tell(_ask(config, lambda rest: rest.create(_asked(body=checked(NewConnector, json.dumps(wanted).encode())))))


@connectors_app.command("list")
def list_connectors(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the connectors with their URLs, newest first."""
    found = _ask(config, lambda rest: rest.list(_asked()))
    print_rows([_row(connector) for connector in found.data], as_json, "there are no connectors")


@connectors_app.command("rotate-key")
def rotate_key(connector_id: ConnectorId, config: ConfigFile = None) -> None:
    """Give a connector a new URL; the old one stops working at once."""
    _tell(_ask(config, lambda rest: rest.rotate_key(_asked(connector_id))))


@connectors_app.command("delete")
def delete(connector_id: ConnectorId, config: ConfigFile = None) -> None:
    """Delete a connector: its URL stops working, calls that stand go on."""
    typer.echo(_ask(config, lambda rest: rest.delete(_asked(connector_id))).message, err=True)


def _ask(config: ConfigFile, work: Callable[[ConnectorRest], Awaitable[T]]) -> T:
    """Do what the REST API would."""
    settings = settings_or_exit(config)
    configure_logging("warning")
    return run_or_exit(lambda: with_store(settings, lambda store: work(_rest(settings, store))))


def _rest(settings: Settings, store: Store) -> ConnectorRest:
    keys = WebhookKeys(settings.livekit_api_secret.get_secret_value())
    origins = Origins(settings.public_origin, settings.regions, settings.countries)
    accounts = {provider: settings.accounts(provider) for provider in Provider}
    signatures = SignatureCheck(origins, accounts, allow_unsigned=settings.allow_unsigned_webhooks)
    return ConnectorRest(store, keys, origins, signatures)


def _asked(connector_id: str = "", body: BaseModel | None = None) -> Asked[Any, Any]:
    return Asked({"id": connector_id}, body, None)


def _tell(changed: ConnectorChanged) -> None:
    typer.echo(f"{changed.message}: {changed.data.id}", err=True)
    typer.echo(changed.data.webhook_url)


def _row(connector: ConnectorData) -> Row:
    return {
        "connector": connector.id,
        "provider": connector.provider.value,
        "name": connector.name or "",
        "room": connector.default_room_id or "",
        "rule": connector.default_rule_id or "",
        "region": connector.region or "",
        "mode": connector.mode.value,
        "webhook": connector.webhook_url,
    }
