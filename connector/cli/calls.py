"""`connector call` places a call; `connector calls` lists and controls them."""

from __future__ import annotations

import asyncio
import datetime
import json
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from connector.api.rpc.messages import PROVIDERS, STATES, call_filter, call_message
from connector.cli.common import (
    AsJson,
    ConfigFile,
    NoService,
    Service,
    as_dict,
    call_service,
    print_rows,
    run_or_exit,
    service_origin,
    settings_or_exit,
    using_store,
    with_store,
)
from connector.config import Settings
from connector.logs import mask_phone
from connector.model.call import NOT_REACHED, CallState, TransferStatus
from connector.model.provider import Provider
from connector.times import iso_local
from connectorpb.v1 import connector_pb2 as pb

calls_app = typer.Typer(help="List and control calls. Without a command: list them.", invoke_without_command=True)

Limit = Annotated[int, typer.Option(min=1, max=1000)]
FullNumbers = Annotated[bool, typer.Option("--full-numbers", help="Do not mask phone numbers.")]
CallId = Annotated[str, typer.Argument(metavar="CALL_ID")]
ANSWERED = "in-progress"
"""Twilio's status of an answered call."""
UNDER_WAY = (TransferStatus.INITIATED, TransferStatus.RINGING)
FOLLOW_EVERY = 0.3


@calls_app.callback()
def calls(
    context: typer.Context,
    config: ConfigFile = None,
    url: Service = "",
    limit: Limit = 20,
    as_json: AsJson = False,
    full_numbers: FullNumbers = False,
) -> None:
    """List calls, newest first. Asks the running service; where none runs, reads its store."""
    if context.invoked_subcommand is None:
        list_calls(config=config, url=url, limit=limit, as_json=as_json, full_numbers=full_numbers)


@calls_app.command("list")
def list_calls(
    config: ConfigFile = None,
    url: Service = "",
    limit: Limit = 20,
    as_json: AsJson = False,
    full_numbers: FullNumbers = False,
    room: Annotated[str, typer.Option(help="Only calls of this room.")] = "",
    state: Annotated[CallState | None, typer.Option(help="Only calls in this state.")] = None,
    provider: Annotated[Provider | None, typer.Option(help="Only calls of this carrier.")] = None,
    since: Annotated[datetime.datetime | None, typer.Option(help="Only calls created at or after this time.")] = None,
) -> None:
    """List calls, newest first. Asks the running service; where none runs, reads its store."""
    settings = settings_or_exit(config)
    request = pb.ListCallsRequest(
        room_name=room,
        page_size=limit,
        state=f"STATE_{state.name}" if state else None,
        provider=f"PROVIDER_{provider.name}" if provider else None,
    )
    if since is not None:
        request.created_after.FromDatetime(since.astimezone(datetime.UTC))
    found = run_or_exit(lambda: _listed(settings, url, request))
    print_rows([_row(call, str if full_numbers else mask_phone) for call in found], as_json, "there are no calls")


async def _listed(settings: Settings, url: str, request: pb.ListCallsRequest) -> list[pb.Call]:
    try:
        return list((await call_service(settings, url, "ListCalls", request, pb.ListCallsResponse)).calls)
    except NoService:
        if url:
            raise
    using_store(settings, service_origin(settings))
    where, limit = call_filter(request)
    return [call_message(record) for record in await with_store(settings, lambda store: store.list_calls(limit, where))]


def _row(call: pb.Call, shown: Any) -> dict[str, str | float]:
    until = (call.ended_at.ToNanoseconds() / 1e9) if call.HasField("ended_at") else time.time()
    started = call.started_at.ToNanoseconds() / 1e9
    return {
        "call_id": call.call_id,
        "provider": PROVIDERS[call.provider].value,
        "direction": pb.Call.Direction.Name(call.direction).removeprefix("DIRECTION_").lower(),
        "room": call.room_name,
        "from": shown(getattr(call, "from")),
        "to": shown(call.to),
        "state": STATES[call.state].value,
        "created": iso_local(call.created_at.ToNanoseconds() / 1e9),
        "seconds": round(until - started, 1) if call.HasField("started_at") else 0.0,
        "end_reason": call.end_reason,
    }


@calls_app.command("get")
def get(call_id: CallId, config: ConfigFile = None, url: Service = "") -> None:
    """Print one call as JSON, from the running service."""
    settings = settings_or_exit(config)
    request = pb.GetCallRequest(call_id=call_id)
    answer = run_or_exit(lambda: call_service(settings, url, "GetCall", request, pb.GetCallResponse))
    typer.echo(json.dumps(as_dict(answer.call), indent=2))


@calls_app.command("end")
def end(call_id: CallId, config: ConfigFile = None, url: Service = "") -> None:
    """End a call on both sides."""
    settings = settings_or_exit(config)
    request = pb.EndCallRequest(call_id=call_id)
    answer = run_or_exit(lambda: call_service(settings, url, "EndCall", request, pb.EndCallResponse))
    typer.echo(f"{answer.call.call_id} ended: {answer.call.end_reason}")


@calls_app.command("dtmf")
def dtmf(call_id: CallId, digits: str, config: ConfigFile = None, url: Service = "") -> None:
    """Play DTMF digits (0-9 * # A-D) to the phone."""
    settings = settings_or_exit(config)
    request = pb.SendDtmfRequest(call_id=call_id, digits=digits)
    run_or_exit(lambda: call_service(settings, url, "SendDtmf", request, pb.SendDtmfResponse))
    typer.echo(f"{call_id}: {len(digits)} digits are queued for the phone")


@calls_app.command("clear")
def clear(call_id: CallId, config: ConfigFile = None, url: Service = "") -> None:
    """Drop the audio that the phone has not played yet."""
    settings = settings_or_exit(config)
    request = pb.ClearAudioRequest(call_id=call_id)
    run_or_exit(lambda: call_service(settings, url, "ClearAudio", request, pb.ClearAudioResponse))
    typer.echo(f"{call_id}: cleared")


@calls_app.command("switch")
def switch(
    call_id: CallId,
    room: Annotated[str, typer.Argument(help="The room to move to.")],
    agent: Annotated[list[str] | None, typer.Option(help="Agent to dispatch there; may be repeated.")] = None,
    config: ConfigFile = None,
    url: Service = "",
) -> None:
    """Move the phone to another room; the phone call goes on."""
    settings = settings_or_exit(config)
    agents = [pb.RoomAgentDispatch(agent_name=name) for name in agent or ()]
    request = pb.SwitchRoomRequest(call_id=call_id, room_name=room, agents=agents)
    answer = run_or_exit(lambda: call_service(settings, url, "SwitchRoom", request, pb.SwitchRoomResponse))
    typer.echo(f"{call_id} is in {answer.call.room_name}")


@calls_app.command("transfer")
def transfer(
    call_id: CallId,
    to: Annotated[str, typer.Argument(help="The number to connect the phone with, E.164.")],
    timeout: Annotated[int, typer.Option(help="Seconds to let it ring; 0: the service's default.")] = 0,
    caller_id: Annotated[str, typer.Option(help="The number of yours that the called person sees, E.164.")] = "",
    config: ConfigFile = None,
    url: Service = "",
) -> None:
    """Connect the phone with a number, by the carrier, and print the outcome. Exit status 1 if the phone comes back."""
    settings = settings_or_exit(config)
    request = pb.TransferCallRequest(call_id=call_id, to=to, timeout=timeout, caller_id=caller_id)
    status = run_or_exit(lambda: _transfer_and_follow(settings, url, request))
    if status in NOT_REACHED:
        typer.echo(f"{call_id} is not connected with {mask_phone(to)}: {status}")
        raise typer.Exit(1)
    typer.echo(f"{call_id} is connected with {mask_phone(to)}")


async def _transfer_and_follow(settings: Settings, url: str, request: pb.TransferCallRequest) -> str:
    call = (await call_service(settings, url, "TransferCall", request, pb.TransferCallResponse)).call
    get = pb.GetCallRequest(call_id=request.call_id)
    while not call.end_reason and call.transfer_status in UNDER_WAY:
        await asyncio.sleep(FOLLOW_EVERY)
        call = (await call_service(settings, url, "GetCall", get, pb.GetCallResponse)).call
    return call.transfer_status


def call(
    to: Annotated[str, typer.Option(help="The number to call, E.164.")],
    from_: Annotated[str, typer.Option("--from", help="Your Twilio number, E.164.")],
    room: Annotated[str, typer.Option(help="The LiveKit room that the call joins.")],
    agent: Annotated[list[str] | None, typer.Option(help="Agent to dispatch; may be repeated.")] = None,
    agent_metadata: Annotated[str, typer.Option(help="Metadata for each agent.")] = "",
    identity: Annotated[str, typer.Option(help="Identity of the phone's participant.")] = "",
    ring_timeout: Annotated[int, typer.Option(min=5, max=600, help="Seconds to let it ring.")] = 60,
    config: Annotated[Path | None, typer.Option("--config", help="YAML file; the environment overrides it.")] = None,
    url: Service = "",
) -> None:
    """Place a call through Twilio and report its outcome; Ctrl-C hangs up. Exit status 1 if it is not answered."""
    settings = settings_or_exit(config)
    request = pb.PlaceTwilioCallRequest(
        to=to,
        room_name=room,
        agents=[pb.RoomAgentDispatch(agent_name=name, metadata=agent_metadata) for name in agent or ()],
        participant_identity=identity,
        ring_timeout_seconds=ring_timeout,
    )
    setattr(request, "from", from_)
    placed = run_or_exit(lambda: _place_and_follow(settings, url, request))
    if placed.end_reason and not placed.HasField("started_at"):
        typer.echo(f"{placed.call_id} was not answered: {placed.end_reason} ({placed.end_detail})")
        raise typer.Exit(1)
    typer.echo(f"{placed.call_id} answered; end it with: connector calls end {placed.call_id}")


async def _place_and_follow(settings: Settings, url: str, request: pb.PlaceTwilioCallRequest) -> pb.Call:
    """Place the call, print each new status, return once the call is answered or over. When cancelled, end the call."""
    placed = (await call_service(settings, url, "PlaceTwilioCall", request, pb.PlaceTwilioCallResponse)).call
    get = pb.GetCallRequest(call_id=placed.call_id)
    shown = ""
    try:
        while not (placed.end_reason or placed.carrier_status == ANSWERED or placed.state == pb.Call.STATE_ACTIVE):
            if placed.carrier_status != shown:
                shown = placed.carrier_status
                typer.echo(f"{placed.call_id} {shown}")
            await asyncio.sleep(FOLLOW_EVERY)
            placed = (await call_service(settings, url, "GetCall", get, pb.GetCallResponse)).call
    except asyncio.CancelledError:
        end = pb.EndCallRequest(call_id=placed.call_id)
        await call_service(settings, url, "EndCall", end, pb.EndCallResponse)
        typer.echo(f"{placed.call_id} ended")
        raise
    return placed
