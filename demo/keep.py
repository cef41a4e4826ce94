"""The demo with `--keep`: prints how to place calls, and simulates a person who answers each call."""

from __future__ import annotations

import asyncio
import shlex
import sys

from rich.console import Console

from carrier_simulator import PhoneCall
from demo import script
from demo.world import World

_TALKS_FOR = 12.0


def instructions(world: World) -> str:
    livekit, account = world.livekit, world.account
    exports = "\n".join(f"export {name}={value}" for name, value in livekit.environment.items())
    python = shlex.quote(sys.executable)
    path, body = account.request("my-room", world.agent.name)
    return f"""\
1. In another terminal, the private LiveKit server:
{exports}

2. Create a call; {account.way.format(url=world.connector.url)}:
TOKEN=$({python} -m connector token)
CONNECT_URL=$(curl -s {world.connector.url}{path} \\
  -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" \\
  -d '{body}' \\
  | sed -n 's|.*"ws\\(s*:[^"]*\\)".*|http\\1|p')

3. Have the simulated {world.carrier.dialect.name} dial it; the same URL serves its document over http and the media
over ws:
curl -s {account.order("+15550001111", "+15550002222", "$CONNECT_URL")}

The simulated person answers, says a sentence and hangs up after {_TALKS_FOR:.0f} s. Ctrl-C stops everything."""


async def keep_running(world: World, console: Console) -> None:
    """Answers every call until cancelled."""
    console.print(f"\n[bold]The demo keeps running.[/]\n{instructions(world)}\n", highlight=False, soft_wrap=True)
    async with asyncio.TaskGroup() as talks:
        while True:
            call = await world.carrier.next_call(timeout=365 * 86400)
            talks.create_task(_talk(call, console))


async def _talk(call: PhoneCall, console: Console) -> None:
    console.print(f"{call.to} rings", highlight=False)
    call.say_silence(4)
    call.say(script.sentence())
    try:
        await call.stream_started.wait(30)
        await call.ended.wait(_TALKS_FOR)
    except TimeoutError:
        await call.hangup()
    for what, seconds in call.timeline():
        console.print(f"{seconds * 1000:7,.0f} ms  {what}", highlight=False)
    for error in call.errors:
        console.print(f"[red]error {int(error.code)}[/]: {error.message}", highlight=False)
