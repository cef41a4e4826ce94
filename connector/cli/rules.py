"""`connector rules`: creates, changes and lists routing rules."""

from __future__ import annotations

import functools
import inspect
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from connector.cli.common import AsJson, ConfigFile, Row, Service, print_rows
from connector.cli.service_or_store import administer
from connector.model.rule import RoomPrefix, RuleType

rules_app = typer.Typer(
    no_args_is_help=True,
    help="Routing rules: which called number goes to which room and agent. Asks the running service; where none runs, "
    "works on its store. See docs/connectors.md.",
)

PATH, ONE = "/v2/sip/routing-rule", "/v2/sip/routing-rule/{id}"
RuleId = Annotated[str, typer.Argument(metavar="RULE_ID")]
Numbers = Annotated[list[str] | None, typer.Option("--number", help="A called number; repeat it for more.")]
Agent = Annotated[str | None, typer.Option(help="The agent to dispatch: LiveKit's agent name.")]
AgentMetadata = Annotated[str | None, typer.Option(help="Metadata for the agent.")]
Room = Annotated[str | None, typer.Option(help="One room that all callers share; without it each call has its own.")]
Prefix = Annotated[RoomPrefix | None, typer.Option(help="Prefix of the name of each call's own room.")]
Pin = Annotated[str | None, typer.Option(help="Digits that a caller must press first.")]
Allowed = Annotated[
    list[str] | None, typer.Option("--allow", help="A caller who may use the rule; repeat it for more.")
]
HideNumber = Annotated[
    bool | None,
    typer.Option(
        "--hide-number/--show-number",
        help="Hide the caller's number in the room, in webhooks and in records, or show it.",
    ),
]
Dtmf = Annotated[bool | None, typer.Option("--dtmf/--no-dtmf", help="Pass digits (DTMF) on, or drop them.")]
Blocked = Annotated[
    list[str] | None,
    typer.Option("--block", help="A caller to reject before the answer, or a prefix: +1900*; repeat it for more."),
]
BlockWithheld = Annotated[
    bool | None,
    typer.Option("--block-withheld/--take-withheld", help="Reject callers who withhold their number, or accept them."),
]
Divert = Annotated[
    str | None, typer.Option(metavar="RULE_ID", help="The rule for blocked callers; without it they are rejected.")
]
WarnAfter = Annotated[
    float | None, typer.Option(help="Seconds without an agent until it is dispatched again; 0: never.")
]
Timeout = Annotated[
    float | None, typer.Option(help="Seconds without an agent or person until the call ends; 0: never.")
]
EmptyTimeout = Annotated[
    float | None, typer.Option(help="Seconds until the call ends after the last agent or person left; 0: never.")
]
FallbackAgent = Annotated[str | None, typer.Option(help="The agent to try before a call ends without one.")]
FallbackNumber = Annotated[
    str | None, typer.Option(help="The number to transfer the phone to before a call ends without an agent, E.164.")
]
NoAgentMessage = Annotated[
    str | None, typer.Option(help="Sentence for the phone before a call ends without an agent; empty: none.")
]
Fields = Annotated[
    str | None,
    typer.Option(
        "--fields",
        help="Any other fields of the REST API, as a JSON object. They override the options; null resets a field.",
    ),
]


def _fields(
    number: Numbers = None,
    agent: Agent = None,
    agent_metadata: AgentMetadata = None,
    room: Room = None,
    prefix: Prefix = None,
    pin: Pin = None,
    allow: Allowed = None,
    hide_number: HideNumber = None,
    dtmf: Dtmf = None,
    block: Blocked = None,
    block_withheld: BlockWithheld = None,
    divert: Divert = None,
    agent_warn_after: WarnAfter = None,
    agent_timeout: Timeout = None,
    room_empty_timeout: EmptyTimeout = None,
    fallback_agent: FallbackAgent = None,
    fallback_number: FallbackNumber = None,
    no_agent_message: NoAgentMessage = None,
    fields: Fields = None,
) -> dict[str, Any]:
    """The fields of the REST API that these options give; `--fields` takes precedence."""
    wanted = {
        "phoneNumbers": number or None,
        "agentId": agent,
        "agentMetadata": agent_metadata,
        "room": _place(room, prefix, pin),
        "allowedNumbers": allow or None,
        "hidePhoneNumber": hide_number,
        "dtmf": dtmf,
        "blockedNumbers": block or None,
        "blockWithheld": block_withheld,
        "divertRuleId": divert,
        "agentWarnAfter": agent_warn_after,
        "agentTimeout": agent_timeout,
        "roomEmptyTimeout": room_empty_timeout,
        "fallbackAgentId": fallback_agent,
        "fallbackNumber": fallback_number,
        "noAgentMessage": no_agent_message,
    }
    return {key: value for key, value in wanted.items() if value is not None} | _read(fields)


def _takes_fields(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of `_fields` after its own. It gets their fields as its argument `rule`."""
    options = inspect.signature(_fields, eval_str=True).parameters
    own = inspect.signature(command, eval_str=True)

    @functools.wraps(command)
    def run(**given: Any) -> None:
        rule = _fields(**{name: given.pop(name) for name in options})
        command(**given, rule=rule)

    parameters = [parameter for parameter in own.parameters.values() if parameter.name != "rule"]
    # Typer makes the options of the command from its signature.
    run.__signature__ = own.replace(parameters=[*parameters, *options.values()])  # type: ignore[attr-defined]
    return run


@rules_app.command("create")
@_takes_fields
def create(
    name: Annotated[str, typer.Argument()],
    rule: dict[str, Any],
    config: ConfigFile = None,
    url: Service = "",
    rule_type: Annotated[RuleType, typer.Option("--type")] = RuleType.INBOUND,
) -> None:
    """Create a rule and print its id."""
    made = administer(config, url, "POST", PATH, {"name": name, "type": rule_type.value, **rule})
    typer.echo(made["id"])


@rules_app.command("update")
@_takes_fields
def update(
    rule_id: RuleId,
    rule: dict[str, Any],
    config: ConfigFile = None,
    url: Service = "",
    name: Annotated[str | None, typer.Option()] = None,
) -> None:
    """Change a rule. Omitted options keep their value; given numbers and callers replace all previous ones."""
    wanted = rule if name is None else {"name": name, **rule}
    changed = administer(config, url, "PATCH", ONE, wanted, id=rule_id)
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
    """Delete a rule; live calls continue."""
    typer.echo(administer(config, url, "DELETE", ONE, id=rule_id)["message"], err=True)


def _place(room: str | None, prefix: RoomPrefix | None, pin: str | None) -> dict[str, Any] | None:
    """The `room` object of the REST API; None when no option is given."""
    place: dict[str, Any] = {}
    if room is not None:
        place |= {"type": "static", "id": room}
    if prefix is not None:
        place |= {"type": "dynamic", "prefix": prefix.value}
    if pin is not None:
        place |= {"pin": pin or None}
    return place or None


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
        "blocks": " ".join(rule["blockedNumbers"] + (["withheld"] if rule["blockWithheld"] else [])),
        "pin": "yes" if room["pin"] else "",
    }
