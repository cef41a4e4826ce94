"""`connector serve --workers`: several processes behind one port are one service."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import psutil
import pytest
from livekit import api
from prometheus_client.parser import text_string_to_metric_families

from carrier_simulator import TwilioSimulator
from demo.connector_process import ConnectorProcess
from demo.livekit_server import LiveKitServer
from tests.integration.harness import INBOUND, OUTBOUND, TWILIO_TOKEN, Stage, connect_call, place, tone

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


class Service:
    """A supervisor with its workers."""

    def __init__(self, process: ConnectorProcess, livekit: LiveKitServer) -> None:
        self.url = process.url
        self.process = process
        self.client = api.LiveKitAPI(process.url, livekit.api_key, livekit.api_secret, failover=False)

    def workers(self) -> set[int]:
        return {child.pid for child in psutil.Process(self.process.pid).children()}

    async def ready(self) -> dict[str, Any]:
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/readyz") as answer:
            found: dict[str, Any] = await answer.json()
            return found

    async def calls_ended(self) -> float:
        """As the metrics of the whole service have it."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
            return sum(
                sample.value
                for family in families
                for sample in family.samples
                if sample.name == "connector_calls_total"
            )


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """The state of other processes announces nothing."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture
async def service(stage: Stage) -> AsyncIterator[Service]:
    environment = {**stage.livekit.environment, "TWILIO_AUTH_TOKEN": TWILIO_TOKEN, "CONNECTOR_WORKERS": "2"}
    async with ConnectorProcess(environment) as process:
        service = Service(process, stage.livekit)
        try:
            yield service
        finally:
            await service.client.aclose()


async def talk(stage: Stage, twilio: TwilioSimulator, service: Service, room: str, direction: Any) -> None:
    """A call, whichever worker each of its requests reaches; somebody in the room hears it."""
    guest = await stage.guest(room)
    call = place(twilio, await connect_call(service.client, room, direction))
    call.say(tone(600, 3))
    await call.stream_started.wait()
    await guest.until(lambda: any(guest.heard_at.values()))
    await call.hangup()
    await call.finished()


async def both_ready(service: Service) -> bool:
    return (await service.ready()).get("workers") == {"ready": 2, "all": 2}


async def test_calls_reach_whichever_worker_and_the_metrics_are_those_of_all(stage: Stage, service: Service) -> None:
    await until(lambda: both_ready(service))
    twilio = await stage.twilio()
    for number, direction in enumerate((INBOUND, OUTBOUND) * 3):
        await talk(stage, twilio, service, f"workers-{number}", direction)

    async def all_counted() -> bool:
        return await service.calls_ended() == 6

    await until(all_counted)


async def test_a_killed_worker_is_replaced_and_the_service_goes_on(stage: Stage, service: Service) -> None:
    await until(lambda: both_ready(service))
    before = service.workers()
    killed = min(before)
    os.kill(killed, signal.SIGKILL)

    async def replaced() -> bool:
        return killed not in service.workers() and len(service.workers()) == 2 and await both_ready(service)

    await until(replaced)
    await talk(stage, await stage.twilio(), service, "after-a-death", OUTBOUND)


async def test_sighup_replaces_the_workers_one_after_the_other(stage: Stage, service: Service) -> None:
    await until(lambda: both_ready(service))
    before = service.workers()
    os.kill(service.process.pid, signal.SIGHUP)

    async def rolled() -> bool:
        return not before & service.workers() and await both_ready(service)

    await until(rolled)
    await talk(stage, await stage.twilio(), service, "after-a-roll", INBOUND)
