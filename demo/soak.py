"""`make soak`: many short calls, and the service's memory, threads and descriptors before, in between and afterwards.

A service with workers, a livekit-server, and a simulated Twilio. In each room somebody plays a tone throughout, since
LiveKit's SDK keeps memory of every call with others who publish (docs/endings.md#memory). Calls run a few at a time;
the sizes are taken while no call is live and no worker is being replaced.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass

import aiohttp
import psutil
from livekit import api
from rich.console import Console

from carrier_simulator import Document, PhoneCall, TwilioSimulator
from demo.connector_process import ConnectorProcess
from demo.leftovers import callers_in, open_records, room_token, until_none
from demo.livekit_server import LiveKitServer
from demo.run import until_signal
from demo.tone import Tone

CALLER = "caller"
FRAMES = 25
"""Half a second of the caller's voice in each call."""
SAMPLES = 10
"""Sizes that are printed during the run."""
GROWTH = 1.3
"""With recycling: how much larger the service may be in the last fifth of the calls than in the first fifth."""
CLOSING = 6
"""Threads and descriptors, for each call at once and each worker, that the SDK may still be closing."""
PATIENCE = 40.0
_SETTLED = 3
"""The sizes are taken once so many looks in a row found all workers ready and no other process."""


@dataclass(frozen=True, slots=True)
class Options:
    calls: int = 100
    at_once: int = 4
    workers: int = 2
    recycle_after: int = 40
    """Calls after which a worker is replaced; 0: never. Then memory is printed, but not judged."""


@dataclass(frozen=True, slots=True)
class Size:
    """The service as the system sees it: supervisor and workers together."""

    calls: int
    megabytes: float
    threads: int
    descriptors: int
    processes: int


def size_of(pid: int, calls: int) -> Size:
    service = psutil.Process(pid)
    processes = [service, *service.children(recursive=True)]
    return Size(
        calls=calls,
        megabytes=sum(process.memory_info().rss for process in processes) / 1e6,
        threads=sum(process.num_threads() for process in processes),
        descriptors=sum(process.num_fds() for process in processes),
        processes=len(processes),
    )


def growth(sizes: Sequence[Size]) -> float:
    """The largest memory in the last fifth of the calls, divided by the largest in the first fifth."""
    calls = sizes[-1].calls
    first = [size.megabytes for size in sizes if size.calls <= calls / 5]
    last = [size.megabytes for size in sizes if size.calls >= calls * 4 / 5]
    return max(last) / max(first)


def faults_of(sizes: Sequence[Size], options: Options) -> list[str]:
    """What is wrong with these sizes; the first one is from before the first call."""
    faults = []
    before, after = sizes[0], sizes[-1]
    margin = CLOSING * (options.at_once + options.workers)
    if after.processes != before.processes:
        faults.append(f"{after.processes} processes instead of {before.processes}")
    # An idle service has not started all its threads and connections: those of the first fifth are the measure.
    warm = [size for size in sizes if size.calls <= after.calls / 5]
    for name in ("threads", "descriptors"):
        most = max(getattr(size, name) for size in warm) + margin
        if getattr(after, name) > most:
            faults.append(f"{getattr(after, name)} {name}, more than {most}")
    if options.recycle_after and growth(sizes) > GROWTH:
        faults.append(f"memory grew by the factor {growth(sizes):.2f}, more than {GROWTH:g}")
    return faults


@dataclass(frozen=True, slots=True)
class Scene:
    livekit: LiveKitServer
    service: ConnectorProcess
    twilio: TwilioSimulator
    client: api.LiveKitAPI
    rooms: Sequence[str]


@asynccontextmanager
async def scene(options: Options) -> AsyncIterator[Scene]:
    async with AsyncExitStack() as stack:
        livekit = await stack.enter_async_context(LiveKitServer())
        twilio = await stack.enter_async_context(TwilioSimulator())
        environment = {
            **livekit.environment,
            "CONNECTOR_WORKERS": str(options.workers),
            "CONNECTOR_WORKER_MAX_CALLS": str(options.recycle_after),
            # The calls of a worker that is replaced end by themselves.
            "CONNECTOR_DRAIN_TIMEOUT": "30",
            "TWILIO_ACCOUNT_SID": twilio.account_sid,
            "TWILIO_AUTH_TOKEN": twilio.auth_token,
            "TWILIO_API_URL": twilio.base_url,
        }
        service = await stack.enter_async_context(ConnectorProcess(environment))
        client = api.LiveKitAPI(service.url, livekit.api_key, livekit.api_secret, failover=False)
        stack.push_async_callback(client.aclose)
        rooms = [f"soak-{number}" for number in range(options.at_once)]
        for room in rooms:
            tone = Tone()
            stack.push_async_callback(tone.stop)
            await tone.start(livekit.url, room_token(livekit, "tone", room))
        yield Scene(livekit, service, twilio, client, rooms)


class Soak:
    """The calls, and the sizes of the service."""

    def __init__(self, scene: Scene, options: Options, console: Console) -> None:
        self._scene = scene
        self._options = options
        self._console = console
        self.sizes: list[Size] = []
        self.faults: list[str] = []

    async def run(self) -> None:
        calls = self._options.calls
        await self._settle()
        self._measure(0)
        done = 0
        for sample in range(1, SAMPLES + 1):
            until = calls * sample // SAMPLES
            if until > done:
                await self._batch(iter(range(done, until)))
                done = until
                await self._settle()
                self._measure(done)
        await self._count_leftovers()
        self.faults += faults_of(self.sizes, self._options)
        self._console.print(f"memory grew by the factor {growth(self.sizes):.2f}", highlight=False)

    async def _batch(self, numbers: Iterator[int]) -> None:
        async def one_after_the_other(room: str) -> None:
            for number in numbers:
                try:
                    await self._call(number, room)
                except (TimeoutError, aiohttp.ClientError, api.TwirpError) as error:
                    self.faults.append(f"call {number}: {error or type(error).__name__}")

        async with asyncio.TaskGroup() as group:
            for room in self._scene.rooms:
                group.create_task(one_after_the_other(room))

    async def _call(self, number: int, room: str) -> None:
        """A short call, inbound and outbound in turn; the phone hears the tone."""
        directions = api.ConnectTwilioCallRequest.TwilioCallDirection
        inbound, outbound = directions.TWILIO_CALL_DIRECTION_INBOUND, directions.TWILIO_CALL_DIRECTION_OUTBOUND
        request = api.ConnectTwilioCallRequest(
            twilio_call_direction=inbound if number % 2 else outbound, room_name=room, participant_identity=CALLER
        )
        url = (await self._scene.client.connector.connect_twilio_call(request)).connect_url
        document = Document("http" + url.removeprefix("ws"))
        phone = self._scene.twilio.dial("+15551234567", "+15550000000", document)
        try:
            await self._talk(phone)
        finally:
            await phone.cancel()
            self._scene.twilio.forget(phone)
        if phone.errors:
            self.faults.append(f"call {number}: {phone.errors[0].message}")

    @staticmethod
    async def _talk(phone: PhoneCall) -> None:
        phone.say_silence(PATIENCE)
        await phone.first_sound.wait(PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while phone.stream.sent_frames < FRAMES and not phone.is_over:  # noqa: ASYNC110 - frames announce nothing
                await asyncio.sleep(0.02)
        await phone.hangup()
        await phone.finished()

    # Sizes

    async def _settle(self) -> None:
        """Wait until all workers are ready and those that were replaced have ended; at most PATIENCE seconds."""
        deadline, looks = time.monotonic() + PATIENCE, 0
        while looks < _SETTLED and time.monotonic() < deadline:
            looks = looks + 1 if await self._is_settled() else 0
            await asyncio.sleep(0.2)

    async def _is_settled(self) -> bool:
        wanted = self._options.workers
        if len(psutil.Process(self._scene.service.pid).children()) not in (0, wanted):
            return False
        with suppress(aiohttp.ClientError, TimeoutError):
            timeout = aiohttp.ClientTimeout(total=5)
            url = f"{self._scene.service.url}/readyz"
            async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url) as answer:
                workers = (await answer.json()).get("workers")
                return answer.status == 200 and workers in (None, {"ready": wanted, "all": wanted})
        return False

    def _measure(self, calls: int) -> None:
        size = size_of(self._scene.service.pid, calls)
        self.sizes.append(size)
        self._console.print(
            f"{calls:6} calls   memory {size.megabytes:6.0f} MB   threads {size.threads:4}   "
            f"descriptors {size.descriptors:4}   processes {size.processes}",
            highlight=False,
        )

    async def _count_leftovers(self) -> None:
        scene = self._scene
        left = await until_none(lambda: callers_in(scene.livekit, scene.rooms, CALLER), PATIENCE)
        records = await until_none(lambda: open_records(scene.livekit, scene.service.url), PATIENCE)
        self._console.print(f"participants left over {left}   records open {records}", highlight=False)
        if left or records:
            self.faults.append(f"left over: {left} participants, {records} open records")


async def run(options: Options, console: Console) -> int:
    """Return the exit status: 0 if every call was heard, nothing is left over, and memory is bounded."""
    async with scene(options) as stage:
        soak = Soak(stage, options, console)
        await soak.run()
        if soak.faults:
            console.print("\n[bold]last lines of the connector[/]")
            console.print(stage.service.log(60), highlight=False, markup=False, soft_wrap=True)
        for fault in soak.faults:
            console.print(f"[red]FAIL[/] {fault}", highlight=False)
        return 1 if soak.faults else 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.soak", description="many short calls; nothing may be left")
    plain = Options()
    parser.add_argument("--calls", type=int, default=plain.calls, help=f"calls in all ({plain.calls})")
    parser.add_argument("--at-once", type=int, default=plain.at_once, help=f"calls at a time ({plain.at_once})")
    parser.add_argument("--workers", type=int, default=plain.workers, help=f"workers ({plain.workers})")
    parser.add_argument(
        "--recycle-after",
        type=int,
        default=plain.recycle_after,
        help=f"calls after which a worker is replaced, 0: never ({plain.recycle_after})",
    )
    given = parser.parse_args()
    logging.getLogger("livekit").setLevel(logging.CRITICAL)
    options = Options(given.calls, given.at_once, given.workers, given.recycle_after)
    sys.exit(asyncio.run(until_signal(run(options, Console(width=200)))))


if __name__ == "__main__":
    main()
