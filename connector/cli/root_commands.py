"""The commands `serve`, `doctor`, `token` and `version`, and the groups of commands in the modules beside this one."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from typing import Annotated, NoReturn

import structlog
import typer
import uvloop
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connector import __version__
from connector.cli.calls import call, calls_app
from connector.cli.common import ConfigFile, api_token, misspelt, settings_of_service, settings_or_exit
from connector.cli.connectors import connectors_app
from connector.cli.findings import Finding
from connector.cli.rules import rules_app
from connector.cli.sip import sip_app
from connector.cli.webhooks import webhooks_app
from connector.errors import ConnectorError
from connector.logs import configure_logging
from connector.worker import WorkerLink

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="A telephony connector for self-hosted LiveKit.",
)


app.add_typer(calls_app, name="calls")
app.add_typer(connectors_app, name="connectors")
app.add_typer(rules_app, name="rules")
app.add_typer(sip_app, name="sip")
app.add_typer(webhooks_app, name="webhooks")
app.command("call")(call)


@app.command("serve")
def serve_command(
    config: ConfigFile = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 takes a free one.")] = None,
    public_url: Annotated[str | None, typer.Option(help="The https origin that carriers reach.")] = None,
    workers: Annotated[
        str | None, typer.Option(help="Number of processes that serve; auto: one for each core.")
    ] = None,
) -> None:
    """Run the service until SIGTERM."""
    link = WorkerLink.of(os.environ)
    settings = settings_of_service(config, host=host, port=port, public_url=public_url, workers=workers)
    configure_logging(settings.log_level, settings.log_format)
    if link is not None:
        structlog.contextvars.bind_contextvars(worker=settings.instance)
    else:
        for line in misspelt():
            structlog.get_logger().warning("a variable is not read", why=line)
    status = 0
    try:
        if link is None and settings.has_supervisor:
            options = {"--config": config, "--host": host, "--public-url": public_url}
            # Imported late, like the service below: neither needs the other, and the other commands need none of them.
            from connector.supervisor import supervise

            given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
            status = supervise(settings, (sys.executable, "-m", "connector", "serve", *given))
        else:
            from connector.serve import serve

            uvloop.run(serve(settings, link=link))
    except (ConnectorError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        status = 1
    _leave(status)


def _leave(status: int) -> NoReturn:
    """End the process without interpreter shutdown. The SDK's threads run until the end; if one calls into the
    interpreter during its shutdown, the process aborts, and a supervisor would see a crash."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


@app.command()
def doctor(
    config: ConfigFile = None,
    agent: Annotated[
        str,
        typer.Option(
            help="Also check that a worker is registered under this name: a job is dispatched to it and ended."
        ),
    ] = "",
) -> None:
    """Check the set-up and say how to fix each problem. Exit status 1 when there is a problem."""
    # Imported late: it imports every part of the service, and would slow down the other commands.
    from connector.cli.doctor import examine

    settings = settings_of_service(config)
    findings = asyncio.run(examine(settings, agent))
    marks = {"ok": "[green]ok[/]", "warning": "[yellow]warning[/]", "problem": "[red]problem[/]"}
    table = Table.grid(padding=(0, 2))
    for finding in findings:
        text = escape(finding.text)
        mend = f"\n[dim]fix:[/] {escape(finding.mend)}" if finding.mend else ""
        table.add_row(marks[finding.level], f"[bold]{finding.subject}[/]", text + mend)
    console = Console(width=None if sys.stdout.isatty() else 120, highlight=False)
    console.print(table)
    console.print(_summary(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def _summary(findings: list[Finding]) -> str:
    problems, warnings = (sum(f.level == level for f in findings) for level in ("problem", "warning"))
    if problems:
        return f"{problems} to fix before calls can work."
    return "Calls can work." + (f" Warnings: {warnings}." if warnings else "")


@app.command()
def token(
    config: ConfigFile = None,
    valid_for: Annotated[int, typer.Option("--valid-for", help="Seconds.")] = 3600,
) -> None:
    """Print an API token for curl (grant roomCreate)."""
    settings = settings_or_exit(config)
    typer.echo(api_token(settings, valid_for))


@app.command()
def version() -> None:
    """Print the version."""
    typer.echo(__version__)
