"""`connector rules`: which calls go where, from the shell."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from connector.cli.administration import administer
from connector.cli.common import AsJson, ConfigFile, Row, Service, print_rows
from connector.model import RoomPrefix, RuleType

rules_app = typer.Typer(
    no_args_is_help=True,
    help="Routing rules: which called number goes to which room and agent. Asks the running service; where none runs, "
    "works on its store. See docs/connectors.md.",
)

PATH, ONE = "/v2/sip/routing-rule", "/v2/sip/routing-rule/{id}"
RuleId = Annotated[str, typer.Argument(metavar="RULE_ID")]
Numbers = Annotated[list[str] | None, typer.Option("--number", help="A called number; repeat it for more.")]
Agent = Annotated[str | None, typer.Option(help="The agent to dispatch: LiveKit's agent name.")]
AgentMetadata = Annotated[str | None, typer.Option(help="What the agent is told.")]
Room = Annotated[str | None, typer.Option(help="One room that all callers share; without it each call has its own.")]
Prefix = Annotated[RoomPrefix | None, typer.Option(help="How the name of a call's own room begins.")]
Pin = Annotated[str | None, typer.Option(help="Digits that a caller must press first.")]
Allowed = Annotated[list[str] | None, typer.Option("--allow", help="A caller who may use the rule; repeat for more.")]
HideNumber = Annotated[
    bool | None, typer.Option("--hide-number/--show-number", help="Whether the caller's number is to be seen nowhere.")
]
Dtmf = Annotated[bool | None, typer.Option("--dtmf/--no-dtmf", help="Whether digits pass.")]
Fields = Annotated[
    str | None, typer.Option("--fields", help="Any other fields of the REST API, as a JSON object; they win.")
]


@rules_app.command("create")
def create(
    name: Annotated[str, typer.Argument()],
    config: ConfigFile = None,
    url: Service = "",
    rule_type: Annotated[RuleType, typer.Option("--type")] = RuleType.INBOUND,
    number: Numbers = None,
    agent: Agent = None,
    agent_metadata: AgentMetadata = None,
    room: Room = None,
    prefix: Prefix = None,
    pin: Pin = None,
    allow: Allowed = None,
    hide_number: HideNumber = None,
    dtmf: Dtmf = None,
    fields: Fields = None,
) -> None:
    """Make a rule; prints its id."""
    wanted = _fields(number, agent, agent_metadata, room, prefix, pin, allow, hide_number, dtmf, fields)
    made = administer(config, url, "POST", PATH, {"name": name, "type": rule_type.value, **wanted})
    typer.echo(made["id"])


@rules_app.command("update")
def update(
    rule_id: RuleId,
    config: ConfigFile = None,
    url: Service = "",
    name: Annotated[str | None, typer.Option()] = None,
    number: Numbers = None,
    agent: Agent = None,
    agent_metadata: AgentMetadata = None,
    room: Room = None,
    prefix: Prefix = None,
    pin: Pin = None,
    allow: Allowed = None,
    hide_number: HideNumber = None,
    dtmf: Dtmf = None,
    fields: Fields = None,
) -> None:
    """Change a rule: what is left out stays; given numbers and callers replace those before."""
    wanted = _fields(number, agent, agent_metadata, room, prefix, pin, allow, hide_number, dtmf, fields)
    changed = administer(config, url, "PATCH", ONE, {"name": name, **wanted}, id=rule_id)
    typer.echo(f"routing rule changed: {changed['id']}", err=True)


@rules_app.command("list")
def list_rules(
    config: ConfigFile = None,
    url: Service = "",
    search: Annotated[str, typer.Option(help="Part of a name or number.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 100,
    as_json: AsJson = False,
) -> None:
    """List the rules, newest first."""
    query = {"perPage": str(limit)} | ({"search": search} if search else {})
    found = administer(config, url, "GET", PATH, query=query)["data"]
    print_rows([_row(rule) for rule in found], as_json, "there are no rules")


@rules_app.command("show")
def show(rule_id: RuleId, config: ConfigFile = None, url: Service = "") -> None:
    """Print one rule with every field, as JSON."""
    typer.echo(json.dumps(administer(config, url, "GET", ONE, id=rule_id), indent=2, ensure_ascii=False))


@rules_app.command("delete")
def delete(rule_id: RuleId, config: ConfigFile = None, url: Service = "") -> None:
    """Delete a rule; calls that stand go on."""
    typer.echo(administer(config, url, "DELETE", ONE, id=rule_id)["message"], err=True)


def _fields(
    number: list[str] | None,
    agent: str | None,
    agent_metadata: str | None,
    room: str | None,
    prefix: RoomPrefix | None,
    pin: str | None,
    allow: list[str] | None,
    hide_number: bool | None,
    dtmf: bool | None,
    fields: str | None,
) -> dict[str, Any]:
    """The REST API's fields of what was given."""
    place: dict[str, Any] = {}
    if room is not None:
        place |= {"type": "static", "id": room}
    if prefix is not None:
        place |= {"type": "dynamic", "prefix": prefix.value}
    if pin is not None:
        place |= {"pin": pin or None}
    wanted: dict[str, Any] = {
        "phoneNumbers": number or None,
        "agentId": agent,
        "agentMetadata": agent_metadata,
        "room": place or None,
        "allowedNumbers": allow or None,
        "hidePhoneNumber": hide_number,
        "dtmf": dtmf,
    }
    return {key: value for key, value in wanted.items() if value is not None} | _read(fields)


def _read(fields: str | None) -> dict[str, Any]:
    try:
        read = json.loads(fields or "{}")
    except ValueError:
        read = None
    if not isinstance(read, dict):
        raise typer.BadParameter("must be a JSON object", param_hint="--fields")
    return read


def _row(rule: dict[str, Any]) -> Row:
    room = rule["room"] or {"type": "dynamic", "id": None, "pin": None}
    return {
        "rule": rule["id"],
        "name": rule["name"],
        "type": rule["type"],
        "numbers": " ".join(rule["numbers"]),
        "room": room["id"] or "one for each call",
        "agent": rule["agentId"] or "",
        "pin": "yes" if room["pin"] else "",
    }
