"""`make chaos`: live calls over two processes, and one outage after the other. Each line tells what the callers heard.

Two connectors behind a load balancer, with a Redis and a livekit-server, and a simulated Twilio. Somebody in each room
plays a tone without a pause, so the phone's silence is the gap that a caller hears.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
from livekit import api
from rich.console import Console

from carrier_simulator import Document, PhoneCall, TwilioSimulator
from demo.balancer import BalancerProcess
from demo.connector_process import ConnectorProcess
from demo.leftovers import callers_in, open_records, room_token, until_none
from demo.livekit_server import LiveKitServer
from demo.ports import PortLease
from demo.redis_server import RedisServer
from demo.run import until_signal
from demo.tone import Tone

CALLS = 8
CALLER = "caller"
LONGEST_GAP = 2.0
PATIENCE = 40.0
MOST_RETURNS, RETURNS_WITHIN = 3, 61.0
"""The limit in docs/endings.md, plus a second."""
SETTLE = 2.0
"""Seconds after an outage in which a late gap is still counted."""
_AUDIBLE = 400
_FRAMES = 50
"""Frames of 20 ms in a second."""


@dataclass(slots=True)
class Talk:
    """One phone call with the tone in its room."""

    room: str
    phone: PhoneCall
    tone: Tone

    def audible(self, since: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """The moments (`time.monotonic` seconds) of all 20 ms in which the phone heard the tone."""
        moments = []
        for stream in self.phone.streams:
            whole = stream.heard  # Once: it grows while the call goes on.
            if stream.started.at is None or not len(whole):
                continue
            size = stream.heard_rate // _FRAMES
            heard = whole[: len(whole) // size * size].reshape(-1, size)
            loud = np.flatnonzero(np.abs(heard.astype(np.int32)).max(axis=1) > _AUDIBLE)
            moments.append(stream.started.at + loud / _FRAMES)
        found = np.concatenate(moments) if moments else np.zeros(0)
        return np.sort(found[found >= since])

    def gap(self, since: float, until: float) -> float:
        """The longest silence that the phone heard, in seconds."""
        moments = np.concatenate(([since], self.audible(since), [until]))
        return float(np.diff(moments).max())

    def hears(self) -> bool:
        now = time.monotonic()
        return bool(len(self.audible(now - 0.5)))

    @property
    def lives(self) -> bool:
        return not self.phone.ended.has_come()


@dataclass(frozen=True, slots=True)
class Scene:
    livekit: LiveKitServer
    redis: RedisServer
    connectors: Sequence[ConnectorProcess]
    balancer: BalancerProcess
    successor: BalancerProcess
    """A second load balancer on the same port, not running."""
    twilio: TwilioSimulator
    client: api.LiveKitAPI

    @property
    def balancer_url(self) -> str:
        """Both load balancers listen there."""
        return self.balancer.url


@asynccontextmanager
async def scene() -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        livekit = await stack.enter_async_context(LiveKitServer())
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="chaos-"))
        redis = await stack.enter_async_context(RedisServer(folder=Path(folder)))
        twilio = await stack.enter_async_context(TwilioSimulator())
        lease = PortLease()
        environment = {
            **livekit.environment,
            "CONNECTOR_STORE": redis.url,
            "CONNECTOR_PUBLIC_URL": f"http://127.0.0.1:{lease.port}",
            "TWILIO_ACCOUNT_SID": twilio.account_sid,
            "TWILIO_AUTH_TOKEN": twilio.auth_token,
            "TWILIO_API_URL": twilio.base_url,
        }
        connectors = [ConnectorProcess({**environment, "CONNECTOR_INSTANCE": name}) for name in ("a", "b")]
        for connector in connectors:
            await stack.enter_async_context(connector)
        ports = [urlsplit(connector.url).port or 0 for connector in connectors]
        balancer, successor = (BalancerProcess(lease, ports) for _ in range(2))
        stack.push_async_callback(successor.stop)
        await stack.enter_async_context(balancer)
        client = api.LiveKitAPI(balancer.url, livekit.api_key, livekit.api_secret, failover=False)
        stack.push_async_callback(client.aclose)
        yield Scene(livekit, redis, connectors, balancer, successor, twilio, client)


class Chaos:
    """The calls, and the outages that happen to them."""

    def __init__(self, scene: Scene, console: Console, longest_gap: float) -> None:
        self._scene = scene
        self._console = console
        self._longest_gap = longest_gap
        self._talks: list[Talk] = []
        self._numbers = 0
        self.faults: list[str] = []

    async def begin(self, calls: int) -> None:
        for _ in range(calls):
            self._numbers += 1
            await self._call(self._numbers)

    async def _call(self, number: int) -> None:
        """One more call, inbound and outbound in turn."""
        scene, room = self._scene, f"chaos-{number}"
        tone = Tone()
        await tone.start(scene.livekit.url, room_token(scene.livekit, "tone", room))
        directions = api.ConnectTwilioCallRequest.TwilioCallDirection
        inbound, outbound = directions.TWILIO_CALL_DIRECTION_INBOUND, directions.TWILIO_CALL_DIRECTION_OUTBOUND
        direction = inbound if number % 2 else outbound
        request = api.ConnectTwilioCallRequest(
            twilio_call_direction=direction, room_name=room, participant_identity=CALLER
        )
        url = (await scene.client.connector.connect_twilio_call(request)).connect_url
        phone = scene.twilio.dial("+15551234567", f"+155500000{number:02}", Document("http" + url.removeprefix("ws")))
        self._talks.append(Talk(room, phone, tone))
        await phone.stream_started.wait(PATIENCE)

    async def all_hear(self) -> None:
        """Wait until every living call hears the tone; TimeoutError after PATIENCE."""
        async with asyncio.timeout(PATIENCE):
            while not all(talk.hears() for talk in self._talks if talk.lives):  # noqa: ASYNC110 - sound announces nothing
                await asyncio.sleep(0.1)

    async def outage(self, name: str, work: Callable[[], Awaitable[None]], longest: float | None = None) -> None:
        """Cause an outage and print one line. `longest`: gaps of this many seconds or more are faults; None: the
        limit of the run."""
        await self._until_returns_are_allowed()
        await self.all_hear()
        before, began = sum(talk.lives for talk in self._talks), time.monotonic()
        await work()
        with contextlib.suppress(TimeoutError):
            await self.all_hear()
        await asyncio.sleep(SETTLE)
        now = time.monotonic()
        living = [talk for talk in self._talks if talk.lives]
        gap = max((talk.gap(began, now) for talk in living), default=0.0)
        if len(living) < before:
            self.faults.append(f"{name}: {before - len(living)} calls lost")
        if gap >= (longest or self._longest_gap):
            self.faults.append(f"{name}: a gap of {gap:.2f} s")
        left, records = await self._leftovers(name, len(living))
        self._console.print(
            f"{name:<32} calls {before} -> {len(living)}   longest gap {gap:5.2f} s   "
            f"participants left over {left}   records open {records}",
            highlight=False,
        )

    async def _leftovers(self, name: str, living: int) -> tuple[int, int]:
        """Number of callers in the rooms beyond the living calls, and number of open records."""
        livekit, rooms, url = self._scene.livekit, [talk.room for talk in self._talks], self._scene.balancer_url

        async def callers() -> int:
            return await callers_in(livekit, rooms, CALLER) - living

        async def records() -> int:
            return await open_records(livekit, url) - living

        left, more = await until_none(callers, PATIENCE), await until_none(records, PATIENCE)
        if left or more:
            self.faults.append(f"{name}: left over: {left} participants, {more} open records")
        return left, more + living

    async def _until_returns_are_allowed(self) -> None:
        """The connector ends a call that loses more than MOST_RETURNS streams in RETURNS_WITHIN seconds: wait until one
        more is allowed."""
        while True:
            since = time.monotonic() - RETURNS_WITHIN
            returns = [
                sum((stream.started.at or 0.0) > since for stream in talk.phone.streams[1:]) for talk in self._talks
            ]
            if max(returns, default=0) < MOST_RETURNS:
                return
            await asyncio.sleep(0.5)

    # The outages

    async def kill(self, connector: ConnectorProcess) -> None:
        await connector.kill()
        await asyncio.sleep(1.0)
        await connector.start()

    async def terminate(self, connector: ConnectorProcess) -> None:
        os.kill(connector.pid, signal.SIGTERM)
        async with asyncio.timeout(PATIENCE):
            while connector.is_running:  # noqa: ASYNC110 - of another process
                await asyncio.sleep(0.05)
        await connector.start()

    async def replace_balancer(self) -> None:
        """Like the update of a proxy: its port stays open, its connections break."""
        await self._scene.successor.start()
        await self._scene.balancer.kill()

    async def stop_for(self, server: RedisServer | LiveKitServer, seconds: float) -> None:
        await server.kill()
        await asyncio.sleep(seconds)
        await server.start()

    # The end

    async def end(self) -> None:
        """Hang up; count what is left over."""
        before = sum(talk.lives for talk in self._talks)
        await asyncio.gather(*(talk.phone.hangup() for talk in self._talks if talk.lives))
        left, records = await self._leftovers("hung up", 0)
        self._console.print(
            f"{'hung up':<32} calls {before} -> 0   participants left over {left}   records open {records}",
            highlight=False,
        )
        await asyncio.gather(*(talk.tone.stop() for talk in self._talks))
        self._talks.clear()


async def whole(chaos: Chaos, stage: Scene, calls: int) -> None:
    a, b = stage.connectors
    await chaos.begin(calls)
    await chaos.outage("kill -9 of one connector", lambda: chaos.kill(a))
    await chaos.outage("kill -9 of the other", lambda: chaos.kill(b))
    await chaos.outage("SIGTERM of one, with hand-over", lambda: chaos.terminate(a))
    await chaos.outage("Redis stopped for 5 s", lambda: chaos.stop_for(stage.redis, 5.0))
    await chaos.outage("the load balancer replaced", chaos.replace_balancer)
    await chaos.outage("livekit-server stopped for 3 s", lambda: chaos.stop_for(stage.livekit, 3.0), PATIENCE)
    await chaos.end()


async def short(chaos: Chaos, stage: Scene, calls: int) -> None:
    """Without the outages of other servers. New calls in the middle: the first ones have come back often enough, and
    would have to wait for a minute."""
    a, b = stage.connectors
    await chaos.begin(calls)
    await chaos.outage("kill -9 of one connector", lambda: chaos.kill(a))
    await chaos.outage("kill -9 of the other", lambda: chaos.kill(b))
    await chaos.outage("SIGTERM of one, with hand-over", lambda: chaos.terminate(a))
    await chaos.end()
    await chaos.begin(calls)
    await chaos.outage("the load balancer replaced", chaos.replace_balancer)
    await chaos.end()


async def run(
    calls: int,
    console: Console,
    outages: Callable[[Chaos, Scene, int], Awaitable[None]] = whole,
    longest_gap: float = LONGEST_GAP,
) -> int:
    """Return the exit status: 0 if no call was lost, no gap was too long, and nothing is left over."""
    async with scene() as stage:
        chaos = Chaos(stage, console, longest_gap)
        try:
            await outages(chaos, stage, calls)
        except TimeoutError as error:
            chaos.faults.append(str(error) or "something did not come in time")
        if chaos.faults:
            for connector in stage.connectors:
                console.print(f"\n[bold]last lines of the connector at {connector.url}[/]")
                console.print(connector.log(60), highlight=False, markup=False, soft_wrap=True)
        for fault in chaos.faults:
            console.print(f"[red]FAIL[/] {fault}", highlight=False)
        return 1 if chaos.faults else 0


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m demo.chaos", description=__doc__.splitlines()[0] if __doc__ else ""
    )
    parser.add_argument("--calls", type=int, default=CALLS, help="live calls")
    parser.add_argument("--short", action="store_true", help="only the outages of connectors and load balancer")
    options = parser.parse_args()
    logging.getLogger("livekit").setLevel(logging.CRITICAL)
    sys.exit(asyncio.run(until_signal(run(options.calls, Console(width=200), short if options.short else whole))))


if __name__ == "__main__":
    main()
