"""`connector connectors`: creates, changes and lists connectors, which have the webhook URLs for carriers' consoles."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from connector.cli.common import AsJson, ConfigFile, Row, Service, print_rows
from connector.cli.service_or_store import administer
from connector.model.connector import ConnectorMode
from connector.model.provider import Provider

connectors_app = typer.Typer(
    no_args_is_help=True,
    help="Webhook URLs for carriers' consoles. Asks the running service; where none runs, works on its store. "
    "See docs/connectors.md.",
)

ConnectorId = Annotated[str, typer.Argument(metavar="CONNECTOR_ID")]
PATH, ONE = "/v2/connectors", "/v2/connectors/{id}"
SHARED = "all callers of this connector share the room {room} and hear each other"


@connectors_app.command("create")
def create(
    provider: Annotated[Provider, typer.Argument()],
    config: ConfigFile = None,
    url: Service = "",
    name: Annotated[str | None, typer.Option(help="A label.")] = None,
    agent: Annotated[
        str | None, typer.Option(help="Each call gets its own room with this agent (LiveKit's agent name).")
    ] = None,
    agent_metadata: Annotated[str | None, typer.Option(help="Metadata for the agent.")] = None,
    room: Annotated[
        str | None, typer.Option(help="One room, shared by all callers that no routing rule matches.")
    ] = None,
    rule: Annotated[str | None, typer.Option(help="The routing rule of calls whose number no rule has.")] = None,
    region: Annotated[str | None, typer.Option(help="One of the configured regions.")] = None,
    mode: Annotated[ConnectorMode, typer.Option(help="`sip`: the carrier dials LiveKit SIP.")] = ConnectorMode.STREAM,
) -> None:
    """Create a connector and print the URL for the carrier's console. Keep the URL secret."""
    wanted: dict[str, Any] = {
        "provider": provider.value,
        "name": name,
        "agentId": agent,
        "agentMetadata": agent_metadata,
        "defaultRuleId": rule,
        "region": region,
        "mode": mode.value,
    }
    if agent is None:
        wanted["defaultRoomId"] = room
    elif room is not None:
        wanted["room"] = {"type": "static", "id": room}
    given = {key: value for key, value in wanted.items() if value is not None}
    made = administer(config, url, "POST", PATH, given)
    _tell(made)
    if room is not None:
        typer.echo(f"note: {SHARED.format(room=room)}; with --agent and without --room each call has its own", err=True)
    elif agent is None and rule is None:
        typer.echo("note: only calls that a routing rule matches have a room; see --agent", err=True)


@connectors_app.command("list")
def list_connectors(config: ConfigFile = None, url: Service = "", as_json: AsJson = False) -> None:
    """List the connectors with their URLs, newest first."""
    found = administer(config, url, "GET", PATH)["data"]
    print_rows([_row(connector) for connector in found], as_json, "there are no connectors")


@connectors_app.command("rotate-key")
def rotate_key(connector_id: ConnectorId, config: ConfigFile = None, url: Service = "") -> None:
    """Give a connector a new URL; the old one stops working at once."""
    _tell(administer(config, url, "POST", f"{ONE}/rotate-key", id=connector_id))


@connectors_app.command("delete")
def delete(connector_id: ConnectorId, config: ConfigFile = None, url: Service = "") -> None:
    """Delete a connector. Its URL stops working; live calls continue."""
    typer.echo(administer(config, url, "DELETE", ONE, id=connector_id)["message"], err=True)


def _tell(changed: dict[str, Any]) -> None:
    typer.echo(f"{changed['message']}: {changed['data']['id']}", err=True)
    typer.echo(changed["data"]["webhookUrl"])


def _row(connector: dict[str, Any]) -> Row:
    return {
        "connector": connector["id"],
        "provider": connector["provider"],
        "name": connector["name"] or "",
        "room": connector["defaultRoomId"] or "",
        "rule": connector["defaultRuleId"] or "",
        "region": connector["region"] or "",
        "mode": connector["mode"],
        "webhook": connector["webhookUrl"],
    }
