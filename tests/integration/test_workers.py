"""`connector serve --workers`: several processes behind one port are one service."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import numpy as np
import psutil
import pytest
from livekit import api
from prometheus_client.parser import text_string_to_metric_families

from carrier_simulator import OutboundCall, TwilioSimulator
from connector.app import Connector
from connectorpb.v1 import connector_pb2 as pb
from demo.connector_process import ConnectorProcess
from demo.livekit_server import LiveKitServer
from tests.integration.harness import INBOUND, OUTBOUND, TWILIO_TOKEN, Stage, connect_call, place, tone
from tests.integration.harness import until as until_so
from tests.integration.rpc import Rpc, rpc_over

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


PASSED_ON = "stream passed on to the worker that holds the call"


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

    async def counted(self, name: str, **labels: str) -> float:
        """A counter, as the metrics of the whole service have it."""
        async with aiohttp.ClientSession() as session, session.get(f"{self.url}/metrics") as answer:
            families = text_string_to_metric_families(await answer.text())
            return sum(
                sample.value
                for family in families
                for sample in family.samples
                if sample.name == name and labels.items() <= sample.labels.items()
            )

    async def passed_on(self, request: str) -> float:
        """How many requests of this kind one worker has passed on to another, which has carried them out."""
        return await self.counted("connector_peer_requests_total", request=request, result="done")

    @property
    def connector(self) -> Connector:
        """As the clients of the tests address it."""
        return cast(Connector, SimpleNamespace(port=int(self.url.rpartition(":")[2])))


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """The state of other processes announces nothing."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110
            await asyncio.sleep(0.05)


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


@pytest.fixture
async def service(stage: Stage, twilio: TwilioSimulator) -> AsyncIterator[Service]:
    environment = {
        **stage.livekit.environment,
        "TWILIO_ACCOUNT_SID": twilio.account_sid,
        "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        "TWILIO_API_URL": twilio.base_url,
        "CONNECTOR_WORKERS": "2",
    }
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


async def test_calls_reach_whichever_worker_and_the_metrics_are_those_of_all(
    stage: Stage, service: Service, twilio: TwilioSimulator
) -> None:
    await until(lambda: both_ready(service))
    calls = 0
    # The system chooses the worker for each stream; that of an outbound call is passed on to the one that holds it.
    async with asyncio.timeout(80):
        while calls < 4 or PASSED_ON not in service.process.log(5000):
            await talk(stage, twilio, service, f"workers-{calls}", OUTBOUND if calls % 2 else INBOUND)
            calls += 1

    async def all_counted() -> bool:
        return await service.counted("connector_calls_total") == calls

    await until(all_counted)


async def active_call(stage: Stage, twilio: TwilioSimulator, service: Service, room: str) -> tuple[OutboundCall, str]:
    """A phone that talks, and the id of its call."""
    phone = place(twilio, await connect_call(service.client, room, OUTBOUND))
    async with rpc_over("twirp json", stage, service.connector) as rpc:

        async def is_active() -> bool:
            return bool((await rpc.list_calls(room_name=room, state=pb.Call.STATE_ACTIVE)).calls)

        await until(is_active)
        return phone, (await rpc.list_calls(room_name=room)).calls[0].call_id


@asynccontextmanager
async def at_the_other_worker(stage: Stage, service: Service, call_id: str) -> AsyncIterator[Rpc]:
    """A kept connection to the worker that does not carry the call. The system chooses a worker for each connection."""
    async with asyncio.timeout(60):
        while True:
            before = await service.passed_on("ClearAudio")
            async with rpc_over("twirp json", stage, service.connector) as rpc:
                await rpc.clear(call_id)
                if await service.passed_on("ClearAudio") > before:
                    yield rpc
                    return


def is_heard(phone: OutboundCall) -> bool:
    return bool(np.abs(phone.heard.astype(np.int32)).max(initial=0) > 1000)


async def test_a_worker_answers_for_a_call_that_the_other_one_carries(
    stage: Stage, service: Service, twilio: TwilioSimulator
) -> None:
    await until(lambda: both_ready(service))
    phone, call_id = await active_call(stage, twilio, service, "lobby")
    async with at_the_other_worker(stage, service, call_id) as rpc:
        await rpc.dtmf(call_id, "5")
        await until_so(lambda: is_heard(phone))
        assert (await rpc.switch(call_id, "lounge")).room_name == "lounge"
        assert "caller" in await stage.participants("lounge")
        assert (await rpc.end(call_id)).end_reason == "ended_by_api"
    await phone.finished()
    phone, call_id = await active_call(stage, twilio, service, "lobby-again")
    async with at_the_other_worker(stage, service, call_id) as rpc:
        transferred = await rpc.transfer(call_id, "+15550001111", wait_until_answered=True)
        assert (transferred.end_reason, transferred.transfer_status) == ("transferred", "answered")
    await phone.hangup()
    await phone.finished()
    for request in ("SendDtmf", "SwitchRoom", "EndCall", "TransferCall"):
        assert await service.passed_on(request) == 1, request


async def test_a_killed_worker_is_replaced_and_the_service_goes_on(
    stage: Stage, service: Service, twilio: TwilioSimulator
) -> None:
    await until(lambda: both_ready(service))
    before = service.workers()
    killed = min(before)
    os.kill(killed, signal.SIGKILL)

    async def replaced() -> bool:
        return killed not in service.workers() and len(service.workers()) == 2 and await both_ready(service)

    await until(replaced)
    await talk(stage, twilio, service, "after-a-death", OUTBOUND)


async def test_sighup_replaces_the_workers_one_after_the_other(
    stage: Stage, service: Service, twilio: TwilioSimulator
) -> None:
    await until(lambda: both_ready(service))
    before = service.workers()
    os.kill(service.process.pid, signal.SIGHUP)

    async def rolled() -> bool:
        return not before & service.workers() and await both_ready(service)

    await until(rolled)
    await talk(stage, twilio, service, "after-a-roll", INBOUND)
