"""`connector webhooks`: where events of calls are delivered, what became of them, and the key that signs them."""

from __future__ import annotations

import datetime
import json
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from connector.app import open_store
from connector.cli.common import ConfigFile, run_or_exit, settings_or_exit
from connector.config import Settings
from connector.errors import NotFound
from connector.model import Attempt, WebhookEndpoint
from connector.storage.base import Store
from connector.webhooks.signing import OVERLAP, KeyRing, PublicKey

webhooks_app = typer.Typer(
    no_args_is_help=True, help="Lifecycle webhooks, from the store: the service need not run. See docs/webhooks.md."
)

T = TypeVar("T")
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object a line.")]
Row = Mapping[str, str | int | float]


@webhooks_app.command("list")
def list_webhooks(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the registered webhooks, newest first."""
    settings = settings_or_exit(config)
    endpoints = run_or_exit(lambda: _with_store(settings, lambda store: store.endpoints.list()))
    _print([_endpoint_row(endpoint) for endpoint in endpoints], as_json, "no webhooks are registered")


@webhooks_app.command("deliveries")
def deliveries(
    webhook_id: Annotated[str, typer.Argument(metavar="[WEBHOOK_ID]")] = "",
    config: ConfigFile = None,
    call: Annotated[str, typer.Option(help="Only events of this call.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: AsJson = False,
) -> None:
    """List attempts to deliver, newest first: of one webhook, or of all."""
    settings = settings_or_exit(config)

    async def attempts(store: Store) -> list[Attempt]:
        if webhook_id and await store.endpoints.get(webhook_id) is None:
            raise NotFound(f"there is no webhook {webhook_id}")
        return await store.deliveries.attempts(limit, webhook_id, call)

    found = run_or_exit(lambda: _with_store(settings, attempts))
    _print([_attempt_row(attempt) for attempt in found], as_json, "nothing was delivered yet")


@webhooks_app.command("rotate-key")
def rotate_key(config: ConfigFile = None) -> None:
    """Sign with a new key, and for a week with the present one beside it."""
    _tell(_change_key(config, lambda ring: ring.rotate()))
    days = round(OVERLAP / 86400)
    typer.echo(f"the key before signs beside it for {days} days, in videosdk-signature-retired", err=True)


@webhooks_app.command("revoke-key")
def revoke_key(config: ConfigFile = None) -> None:
    """Sign with a new key alone, at once: for a private key that others may have."""
    _tell(_change_key(config, lambda ring: ring.revoke()))
    typer.echo("every key before it is gone: who verifies must fetch this one", err=True)


def _change_key(config: ConfigFile, change: Callable[[KeyRing], Awaitable[PublicKey]]) -> PublicKey:
    settings = settings_or_exit(config)
    return run_or_exit(lambda: _with_store(settings, lambda store: change(KeyRing(store.keys))))


def _tell(key: PublicKey) -> None:
    typer.echo(key.pem, nl=False)


async def _with_store(settings: Settings, work: Callable[[Store], Awaitable[T]]) -> T:
    store = open_store(settings)
    await store.open()
    try:
        return await work(store)
    finally:
        await store.close()


def _endpoint_row(endpoint: WebhookEndpoint) -> Row:
    return {
        "webhook": endpoint.id,
        "url": endpoint.url,
        "events": " ".join(endpoint.events),
        "created": _time(endpoint.created_at),
    }


def _attempt_row(attempt: Attempt) -> Row:
    return {
        "at": _time(attempt.at),
        "webhook": attempt.endpoint_id,
        "call": attempt.call_id,
        "event": attempt.event.value,
        "attempt": attempt.number,
        "status": attempt.status or "",
        "seconds": attempt.seconds,
        "error": attempt.error,
    }


def _time(at: float) -> str:
    return datetime.datetime.fromtimestamp(at).astimezone().isoformat(timespec="seconds")


def _print(rows: Sequence[Row], as_json: bool, none: str) -> None:
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    if not rows:
        typer.echo(none, err=True)
        return
    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)
