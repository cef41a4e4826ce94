"""`connector serve | doctor | token | calls`."""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
import uvloop
from livekit import api
from rich.console import Console
from rich.table import Table

from connector import __version__
from connector.app import open_store, serve
from connector.cli.doctor import Finding, examine
from connector.config import Settings, load_settings
from connector.errors import ConnectorError
from connector.logs import configure_logging, mask_phone
from connector.model import CallRecord

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A telephony connector for self-hosted LiveKit.",
)
ConfigFile = Annotated[Path | None, typer.Option("--config", help="YAML file; the environment overrides it.")]


def _settings(config: Path | None, **flags: object) -> Settings:
    try:
        return load_settings(config, flags)
    except ConnectorError as error:
        for line in error.message.split("; "):
            typer.echo(f"error: {line}", err=True)
        raise typer.Exit(2) from None


@app.command("serve")
def serve_command(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    public_url: Annotated[str | None, typer.Option(help="The https origin that carriers reach.")] = None,
) -> None:
    """Run the service until SIGTERM."""
    settings = _settings(config, host=host, port=port, public_url=public_url)
    configure_logging(settings.log_level, settings.log_format)
    try:
        uvloop.run(serve(settings))
    except (ConnectorError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@app.command()
def doctor(config: ConfigFile = None) -> None:
    """Check the set-up and say what to mend. Exit status 1 when something must be mended."""
    settings = _settings(config)
    console = Console()
    findings = asyncio.run(examine(settings))
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}
    for finding in findings:
        console.print(f"{marks[finding.level]:<20} [bold]{finding.subject}[/]: {finding.text}", highlight=False)
        if finding.mend:
            console.print(f"         mend: {finding.mend}", highlight=False)
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


@app.command()
def token(
    config: ConfigFile = None,
    valid_for: Annotated[int, typer.Option("--valid-for", help="Seconds.")] = 3600,
) -> None:
    """Print an API token for curl (grant roomCreate)."""
    settings = _settings(config)
    minted = (
        api.AccessToken(settings.livekit_api_key, settings.livekit_api_secret.get_secret_value())
        .with_identity("connector-cli")
        .with_grants(api.VideoGrants(room_create=True))
        .with_ttl(datetime.timedelta(seconds=valid_for))
    )
    typer.echo(minted.to_jwt())


@app.command()
def calls(
    config: ConfigFile = None,
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
    full_numbers: Annotated[bool, typer.Option("--full-numbers", help="Do not mask phone numbers.")] = False,
) -> None:
    """List calls, newest first."""
    settings = _settings(config)
    try:
        records = asyncio.run(_list_calls(settings, limit))
    except ConnectorError as error:
        typer.echo(f"error: {error.message}", err=True)
        raise typer.Exit(1) from None
    rows = [_row(record, full_numbers) for record in records]
    if as_json:
        for row in rows:
            typer.echo(json.dumps(row))
        return
    table = Table(box=None, pad_edge=False)
    for column in (
        "call",
        "provider",
        "direction",
        "room",
        "from",
        "to",
        "state",
        "created",
        "seconds",
        "end reason",
    ):
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


async def _list_calls(settings: Settings, limit: int) -> list[CallRecord]:
    store = open_store(settings)
    await store.open()
    try:
        return await store.list_calls(limit)
    finally:
        await store.close()


def _row(record: CallRecord, full_numbers: bool) -> dict[str, str | float]:
    shown = (lambda number: number) if full_numbers else mask_phone
    created = datetime.datetime.fromtimestamp(record.created_at).astimezone()
    until = record.ended_at or time.time()
    return {
        "call": record.call_id,
        "provider": record.provider.value,
        "direction": record.direction.value,
        "room": record.room,
        "from": shown(record.from_number),
        "to": shown(record.to_number),
        "state": record.state.value,
        "created": created.isoformat(timespec="seconds"),
        "seconds": round(until - record.started_at, 1) if record.started_at else 0.0,
        "end_reason": record.end_reason.value if record.end_reason else "",
    }


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)


__all__ = ["Finding", "app"]
