"""`connector webhooks`: where events of calls are delivered, what became of them, and the key that signs them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import typer

from connector.cli.common import (
    AsJson,
    ConfigFile,
    Row,
    print_rows,
    run_or_exit,
    settings_or_exit,
    shown_time,
    with_store,
)
from connector.errors import NotFound
from connector.model import Attempt, WebhookEndpoint
from connector.storage.base import Store
from connector.webhooks.signing import OVERLAP, KeyRing, PublicKey

webhooks_app = typer.Typer(
    no_args_is_help=True, help="Lifecycle webhooks, from the store: the service need not run. See docs/webhooks.md."
)


@webhooks_app.command("list")
def list_webhooks(config: ConfigFile = None, as_json: AsJson = False) -> None:
    """List the registered webhooks, newest first."""
    settings = settings_or_exit(config)
    endpoints = run_or_exit(lambda: with_store(settings, lambda store: store.endpoints.list()))
    print_rows([_endpoint_row(endpoint) for endpoint in endpoints], as_json, "no webhooks are registered")


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

    found = run_or_exit(lambda: with_store(settings, attempts))
    print_rows([_attempt_row(attempt) for attempt in found], as_json, "nothing was delivered yet")


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
    return run_or_exit(lambda: with_store(settings, lambda store: change(KeyRing(store.keys))))


def _tell(key: PublicKey) -> None:
    typer.echo(key.pem, nl=False)


def _endpoint_row(endpoint: WebhookEndpoint) -> Row:
    return {
        "webhook": endpoint.id,
        "url": endpoint.url,
        "events": " ".join(endpoint.events),
        "created": shown_time(endpoint.created_at),
    }


def _attempt_row(attempt: Attempt) -> Row:
    return {
        "at": shown_time(attempt.at),
        "webhook": attempt.endpoint_id,
        "call": attempt.call_id,
        "event": attempt.event.value,
        "attempt": attempt.number,
        "status": attempt.status or "",
        "seconds": attempt.seconds,
        "error": attempt.error,
    }
