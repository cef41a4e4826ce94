"""`connector sip`: sets up and lists numbers for LiveKit SIP behind Twilio, and bridges Twilio conferences to it."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from connector.carriers.twilio import Twilio
from connector.carriers.twilio.dial import SipDial, check_password, check_username, sip_uri, twilio_dial
from connector.cli.common import ConfigFile, require_store, run_or_exit, settings_or_exit
from connector.config import Settings
from connector.livekit_api import opened_livekit
from connector.numbers import SUBSCRIBER
from connector.sip import plan
from connector.sip.provisioning import SetupDone, SipNumberSetup, SipProvisioning
from connector.sip.secrets import SipCredentials, SipSecrets
from connector.storage.stores import opened

sip_app = typer.Typer(no_args_is_help=True, help="LiveKit SIP behind Twilio: set up a number, bridge a conference.")

Number = Annotated[str, typer.Option(help="Your Twilio number, E.164 (+15551234567).")]
if TYPE_CHECKING:
    from connector.api.carrier.conferences import ConferenceBridge

T = TypeVar("T")


@sip_app.command("setup")
def setup(
    number: Number,
    agent: Annotated[
        list[str] | None,
        typer.Option(help='Agent to dispatch; may be repeated. "" for none; by default, as it is in LiveKit.'),
    ] = None,
    room_prefix: Annotated[
        str | None, typer.Option(help=f"Name prefix of each caller's room; {plan.DEFAULT_PREFIX} for a new number.")
    ] = None,
    username: Annotated[
        str | None, typer.Option(help=f"SIP user name for Twilio; {plan.DEFAULT_USERNAME} for a new number.")
    ] = None,
    password: Annotated[
        str | None,
        typer.Option(
            envvar="CONNECTOR_SIP_PASSWORD",
            help="SIP password for Twilio; by default the present one, or a random one for a new number.",
        ),
    ] = None,
    endpoint: Annotated[
        str | None, typer.Option(help="The host of your LiveKit SIP; else CONNECTOR_SIP_ENDPOINT.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Send nothing to LiveKit; print the objects to create, for `lk`.")
    ] = False,
    config: ConfigFile = None,
) -> None:
    """Create the LiveKit trunk and rule of a number, and print the TwiML for Twilio. A repeated run changes nothing."""
    settings = settings_or_exit(config, sip_endpoint=endpoint)
    agents = None if agent is None else tuple(name for name in agent if name)
    wanted = plan.Wanted(number, room_prefix, agents, username, password)
    try:
        _check(wanted, settings)
        uri = sip_uri(number, settings.sip_endpoint)
    except ValueError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from None
    if dry_run:
        _print_dry_run(wanted, uri)
        return
    done = run_or_exit(lambda: _set_up(settings, wanted))
    _print_done(done)
    _print_twilio_side(number, SipDial(uri, done.setup.username, done.setup.password))


def _check(wanted: plan.Wanted, settings: Settings) -> None:
    if not SUBSCRIBER.fullmatch(wanted.number):
        raise ValueError("--number: must be a phone number in E.164 form, such as +15551234567")
    if not settings.sip_endpoint:
        raise ValueError(
            "--endpoint: give the host at which Twilio reaches your LiveKit SIP, or set CONNECTOR_SIP_ENDPOINT"
        )
    checks = (("--username", wanted.username, check_username), ("--password", wanted.password, check_password))
    for option, value, check in checks:
        try:
            if value is not None:
                check(value)
        except ValueError as error:
            raise ValueError(f"{option}: {error}") from None


async def _set_up(settings: Settings, wanted: plan.Wanted) -> SetupDone:
    async with _provisioning(settings) as provisioning, _secrets(settings) as secrets:
        done = await provisioning.set_up(wanted)
        await secrets.remember_trunk(
            SipCredentials(wanted.number, done.setup.trunk_id, done.setup.username, done.setup.password)
        )
        return done


def _print_dry_run(wanted: plan.Wanted, uri: str) -> None:
    trunk = plan.trunk_for(wanted, None)
    rule = plan.rule_for(wanted, None, "")
    typer.echo("inbound-trunk.json\n")
    typer.echo(plan.inbound_trunk_json(trunk))
    typer.echo("\ndispatch-rule.json\n")
    typer.echo(plan.dispatch_rule_json(rule))
    typer.echo(
        "\nNothing was created. With these two files LiveKit's own CLI does what this command does:\n\n"
        "  lk sip inbound create inbound-trunk.json\n"
        "  lk sip dispatch create dispatch-rule.json\n\n"
        'With several trunks, put the SIPTrunkID that the first prints into the rule, as "trunk_ids": ["ST_..."]:\n'
        "without it the rule takes the calls of every trunk that has no rule of its own.\n"
    )
    _print_twilio_side(wanted.number, SipDial(uri, trunk.auth_username, trunk.auth_password))


def _print_done(done: SetupDone) -> None:
    setup = done.setup
    for change in done.changes or ("LiveKit has all this already: nothing changed",):
        typer.echo(change)
    agents = ", ".join(setup.agents) or "none"
    typer.echo(f"\n  number         {setup.number}\n  inbound trunk  {setup.trunk_id} ({setup.trunk_name})")
    typer.echo(f"  dispatch rule  {setup.rule_id}: a room of its own for each caller, {setup.room_prefix}…")
    typer.echo(f"  agents         {agents}\n")


def _print_twilio_side(number: str, dial: SipDial) -> None:
    typer.echo("TwiML Bin (it holds the password; treat it as one):\n")
    typer.echo(twilio_dial(dial))
    typer.echo(
        "In the Twilio console:\n\n"
        "  1. TwiML Bins (console.twilio.com/us1/develop/twiml-bins): Create new TwiML Bin; friendly name\n"
        f"     LiveKit {number}; paste the above; Create.\n"
        f"  2. Phone Numbers > Manage > Active numbers > {number} > Voice Configuration:\n"
        '     "A call comes in": TwiML Bin, LiveKit ' + number + "; Save configuration.\n"
        f"  3. Call {number}.\n\n"
        "Or let this connector answer Twilio, with rules, signatures and call records: create a connector with\n"
        '"provider": "twilio" and "mode": "sip", and set the number\'s webhook to the URL that it is given.\n'
        "docs/sip.md has both ways. SIP REFER (transfer) and outbound calls do not work over this path."
    )


@sip_app.command("list")
def list_numbers(
    show_passwords: Annotated[bool, typer.Option("--show-passwords", help="Print the passwords too.")] = False,
    config: ConfigFile = None,
) -> None:
    """List LiveKit's inbound numbers with the rule and the agents that serve them."""
    settings = settings_or_exit(config)
    setups = run_or_exit(lambda: _listed(settings))
    if not setups:
        typer.echo("LiveKit has no inbound trunk; make one with: connector sip setup", err=True)
        return
    columns = ["number", "trunk", "name", "username", "rule", "room", "agents"]
    table = Table(box=None, pad_edge=False)
    for column in [*columns, "password"] if show_passwords else columns:
        table.add_column(column, overflow="fold")
    for each in setups:
        room = f"{each.room_prefix}…" if each.rule_id else ""
        row = [each.number or "any", each.trunk_id, each.trunk_name, each.username, each.rule_id or "none", room]
        row.append(", ".join(each.agents))
        table.add_row(*map(escape, [*row, each.password] if show_passwords else row))
    Console(width=None if sys.stdout.isatty() else 200).print(table)


async def _listed(settings: Settings) -> list[SipNumberSetup]:
    async with _provisioning(settings) as provisioning:
        return await provisioning.list_numbers()


@sip_app.command("remove")
def remove(number: Number, config: ConfigFile = None) -> None:
    """Remove a number's trunk and rule from LiveKit, and its password from the store."""
    settings = settings_or_exit(config)
    changes = run_or_exit(lambda: _removed(settings, number))
    for change in changes or (f"no trunk, rule or password of {number} to remove",):
        typer.echo(change)
    if changes:
        typer.echo("At Twilio, point the number elsewhere and delete its TwiML Bin.")


async def _removed(settings: Settings, number: str) -> Sequence[str]:
    async with _provisioning(settings) as provisioning, _secrets(settings) as secrets:
        changes = list(await provisioning.remove(number))
        if await secrets.forget(number):
            changes.append("its password deleted here")
        return changes


@sip_app.command("bridge-conference")
def bridge_conference(
    conference: Annotated[str, typer.Argument(metavar="CONFERENCE_SID", help="CF…, from Twilio's callbacks or log.")],
    from_: Annotated[
        str, typer.Option("--from", help="The caller as LiveKit sees it; by default, the number itself.")
    ] = "",
    number: Annotated[str, typer.Option(help="A number that was set up; needed if there are several.")] = "",
    remove: Annotated[bool, typer.Option("--remove", help="Remove LiveKit from the conference.")] = False,
    config: ConfigFile = None,
) -> None:
    """Add LiveKit to a running Twilio conference, or remove it. The service need not run."""
    settings = settings_or_exit(config)
    if remove:
        removed = run_or_exit(lambda: _with_bridge(settings, lambda bridge: bridge.unbridge(conference)))
        typer.echo(f"{conference}: LiveKit {'is out' if removed else 'was not in it'}")
        return
    bridged = run_or_exit(lambda: _with_bridge(settings, lambda bridge: bridge.bridge(conference, from_, number)))
    typer.echo(f"{conference}: LiveKit {'is called in' if bridged.added else 'is in it already'} ({bridged.call_sid})")


async def _with_bridge(settings: Settings, work: Callable[[ConferenceBridge], Awaitable[T]]) -> T:
    # Imported late: it imports Twilio's package, which would slow down the other commands.
    from connector.app import conference_bridge
    from connector.telephony.twilio import control

    accounts = Twilio().accounts(settings)
    twilio = control(settings, accounts) if accounts.with_api else None
    require_store(settings)
    async with opened(settings) as store:
        try:
            if twilio is not None:
                await twilio.start()
            return await work(conference_bridge(settings, store, twilio))
        finally:
            if twilio is not None:
                await twilio.close()


@asynccontextmanager
async def _provisioning(settings: Settings) -> AsyncIterator[SipProvisioning]:
    async with opened_livekit(settings) as livekit:
        yield SipProvisioning(livekit)


@asynccontextmanager
async def _secrets(settings: Settings) -> AsyncIterator[SipSecrets]:
    typer.echo(f"the SIP passwords are in the store {settings.store_place}", err=True)
    async with opened(settings) as store:
        yield SipSecrets(store.sip_numbers, settings.own_secrets)
