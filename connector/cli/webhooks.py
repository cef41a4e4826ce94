"""`connector webhooks`: registers and lists webhooks, lists their deliveries, and changes the signing key."""

from __future__ import annotations

import datetime
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import typer

from connector.cli.common import (
    AsJson,
    ConfigFile,
    Row,
    Service,
    print_rows,
    run_or_exit,
    settings_or_exit,
    with_store,
)
from connector.cli.service_or_store import administer
from connector.model.webhook import LifecycleEvent
from connector.times import iso_local
from connector.webhooks.signing import OVERLAP, KeyRing, PublicKey

webhooks_app = typer.Typer(
    no_args_is_help=True,
    help="Lifecycle webhooks. Asks the running service, or works on its store where none runs; keys are changed in the "
    "store. See docs/webhooks.md.",
)


PATH = "/v2/sip/webhooks"


@webhooks_app.command("list")
def list_webhooks(config: ConfigFile = None, url: Service = "", as_json: AsJson = False) -> None:
    """List the registered webhooks, newest first."""
    found = administer(config, url, "GET", PATH, query={"perPage": "1000"})["data"]
    print_rows([_endpoint_row(endpoint) for endpoint in found], as_json, "no webhooks are registered")


@webhooks_app.command("add")
def add(
    target: Annotated[str, typer.Argument(metavar="URL", help="Your server's https URL.")],
    config: ConfigFile = None,
    url: Service = "",
    event: Annotated[
        list[LifecycleEvent] | None,
        typer.Option("--event", help="An event to deliver; repeat it for more. By default, all events."),
    ] = None,
) -> None:
    """Register a URL for events of calls, and print the webhook's id."""
    events = [each.value for each in event or LifecycleEvent]
    typer.echo(administer(config, url, "POST", PATH, {"url": target, "events": events})["id"])


@webhooks_app.command("remove")
def remove(
    webhook_id: Annotated[str, typer.Argument(metavar="WEBHOOK_ID")], config: ConfigFile = None, url: Service = ""
) -> None:
    """Delete a webhook and its pending deliveries."""
    typer.echo(administer(config, url, "DELETE", f"{PATH}/{{id}}", id=webhook_id)["message"], err=True)


@webhooks_app.command("deliveries")
def deliveries(
    webhook_id: Annotated[str, typer.Argument(metavar="[WEBHOOK_ID]")] = "",
    config: ConfigFile = None,
    url: Service = "",
    call: Annotated[str, typer.Option(help="Only events of this call.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List attempts to deliver, newest first: of one webhook, or of all."""
    query = {"limit": str(limit)} | ({"callId": call} if call else {})
    if webhook_id:
        found = administer(config, url, "GET", f"{PATH}/{{id}}/deliveries", query=query, id=webhook_id)
    else:
        found = administer(config, url, "GET", f"{PATH}/deliveries", query=query)
    print_rows([_attempt_row(attempt) for attempt in found["data"]], as_json, "nothing was delivered yet")


@webhooks_app.command("rotate-key")
def rotate_key(config: ConfigFile = None) -> None:
    """Sign with a new key; for a week, also with the previous one."""
    _tell(_change_key(config, lambda ring: ring.rotate()))
    days = round(OVERLAP / 86400)
    typer.echo(f"the previous key also signs for {days} days, in videosdk-signature-retired", err=True)


@webhooks_app.command("revoke-key")
def revoke_key(config: ConfigFile = None) -> None:
    """Sign with a new key only, at once: if the private key may have leaked."""
    _tell(_change_key(config, lambda ring: ring.revoke()))
    typer.echo("all previous keys are deleted: receivers must fetch the new key now", err=True)


def _change_key(config: ConfigFile, change: Callable[[KeyRing], Awaitable[PublicKey]]) -> PublicKey:
    settings = settings_or_exit(config)
    key = run_or_exit(lambda: with_store(settings, lambda store: change(KeyRing(store.keys))))
    typer.echo(f"changed in the store {settings.store_place}", err=True)
    return key


def _tell(key: PublicKey) -> None:
    typer.echo(key.pem, nl=False)


def _endpoint_row(endpoint: dict[str, Any]) -> Row:
    return {
        "webhook": endpoint["id"],
        "url": endpoint["url"],
        "events": " ".join(endpoint["events"]),
        "created": endpoint["createdAt"],
    }


def _attempt_row(attempt: dict[str, Any]) -> Row:
    return {
        "at": iso_local(datetime.datetime.fromisoformat(attempt["at"]).timestamp()),
        "webhook": attempt["webhookId"],
        "call_id": attempt["callId"],
        "event": attempt["event"],
        "attempt": attempt["attempt"],
        "status": attempt["status"] or "",
        "seconds": attempt["seconds"],
        "error": attempt["error"] or "",
    }
