"""Webhooks of real calls: through the simulated carrier, a real livekit-server, and a process that is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from carrier_simulator import TwilioSimulator
from connector.app import Connector
from connector.config import Settings
from connector.storage.sqlite import SqliteStore
from demo.connector_process import clean_environment
from tests.integration.harness import INBOUND, PATIENCE, TWILIO_TOKEN, Stage, connect_call, ended, place
from tests.integration.webhooks import Received, Receiver, Rest

CALLEE, CALLER = "+15551234567", "+15557654321"
"""Of `harness.place`: whom the simulator calls, and from which number."""


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


async def told(receiver: Receiver, last: str) -> list[Received]:
    return await receiver.until(lambda received: any(one.type == last for one in received))


def names(received: list[Received]) -> list[str]:
    return [one.type for one in received]


async def test_an_outbound_call_tells_its_whole_life(
    stage: Stage, room: str, twilio: TwilioSimulator, receiver: Receiver
) -> None:
    connector = await stage.connector(webhook_allow_private=True)
    rest = Rest(await stage.http(), connector.settings)
    await rest.register(receiver.url)
    guest = await stage.guest(room)
    call = place(twilio, await connect_call(stage.client(connector), room))
    await guest.event("track_subscribed")
    await told(receiver, "call-answered")
    await call.hangup()
    received = await told(receiver, "call-hangup")

    assert names(received) == ["call-started", "call-ringing", "call-answered", "call-hangup"]
    public_key = await rest.public_key()
    for one in received:
        one.verify(public_key)
    record = await ended(connector)
    for one in received:
        assert one.data["callId"] == record.call_id
        assert (one.data["type"], one.data["provider"]) == ("outbound", "twilio")
        assert (one.data["roomId"], one.data["participantId"]) == (room, "caller")
    assert [one.data["status"] for one in received] == ["initiated", "ringing", "answered", "ended"]
    started, _, answered, hangup = (one.data for one in received)
    assert (started["from"], started["to"], started["answeredAt"]) == ("", "", None)
    assert (answered["from"], answered["to"]) == (CALLER, CALLEE)
    assert answered["answeredAt"] == hangup["answeredAt"] is not None
    assert answered["end"] is None
    assert hangup["end"] is not None
    assert hangup["endReason"] == "carrier_hangup"
    assert hangup["additionalDetails"] == {"reason": "carrier_hangup"}
    assert hangup["providerCallId"] == call.sid
    assert [moment["status"] for moment in hangup["timelog"]] == ["initiated", "ringing", "answered", "ended"]
    assert [one.body["createdAt"] for one in received] == [moment["timestamp"] for moment in hangup["timelog"]]
    # The same as whoever asks is told, but for the way back to a stream, which an ended call does not have.
    asked = (await rest.ask("GET", f"/v2/sip/call/{record.call_id}"))["data"]
    assert asked.pop("resumeUrl") is None
    assert {name: hangup[name] for name in asked} == asked


async def test_an_inbound_call_tells_its_whole_life(
    stage: Stage, room: str, twilio: TwilioSimulator, receiver: Receiver
) -> None:
    connector = await stage.connector(webhook_allow_private=True)
    await Rest(await stage.http(), connector.settings).register(receiver.url)
    call = place(twilio, await connect_call(stage.client(connector), room, INBOUND))
    await told(receiver, "call-answered")
    await call.hangup()
    received = await told(receiver, "call-hangup")
    assert names(received) == ["call-started", "call-answered", "call-hangup"]
    assert [one.data["status"] for one in received] == ["incoming", "answered", "ended"]


async def test_a_call_that_nobody_takes_is_missed(stage: Stage, room: str, receiver: Receiver) -> None:
    connector = await stage.connector(webhook_allow_private=True, connect_timeout=2.0)
    await Rest(await stage.http(), connector.settings).register(receiver.url)
    await connect_call(stage.client(connector), room)
    received = await told(receiver, "call-missed")
    assert names(received) == ["call-started", "call-ringing", "call-missed"]
    missed = received[-1].data
    assert (missed["status"], missed["endReason"]) == ("not-answered", "connect_timeout")


async def test_a_connectors_call_says_by_which_way_it_came_and_hides_what_is_hidden(
    stage: Stage, twilio: TwilioSimulator, receiver: Receiver
) -> None:
    connector = await stage.connector(webhook_allow_private=True)
    rest = Rest(await stage.http(), connector.settings)
    await rest.register(receiver.url)
    rule = await rest.ask(
        "POST", "/v2/sip/routing-rule", {"name": "Rule", "type": "inbound", "hidePhoneNumber": True}, 201
    )
    made = await rest.ask("POST", "/v2/connectors", {"provider": "twilio", "defaultRuleId": rule["id"]}, 201)
    call = twilio.inbound_call(made["data"]["webhookUrl"], to=CALLEE, from_=CALLER)
    await told(receiver, "call-answered")
    await call.hangup()
    received = await told(receiver, "call-hangup")
    assert names(received) == ["call-started", "call-answered", "call-hangup"]
    for one in received:
        assert (one.data["connectorId"], one.data["ruleId"]) == (made["data"]["id"], rule["id"])
        assert one.data["to"] == CALLEE
        assert CALLER.removeprefix("+").encode() not in one.raw


async def test_the_last_event_of_a_process_that_stops_is_not_lost(
    stage: Stage, room: str, twilio: TwilioSimulator, receiver: Receiver
) -> None:
    settings = stage.settings(webhook_allow_private=True)
    connector = Connector(settings)
    await connector.start()
    async with aiohttp.ClientSession() as http:
        await Rest(http, settings).register(receiver.url)
    place(twilio, await connect_call(stage.client(connector), room))
    await told(receiver, "call-answered")
    await receiver.stop()
    await connector.stop(0)
    await receiver.start()
    successor = Connector(settings)
    await successor.start()
    try:
        received = await told(receiver, "call-hangup")
    finally:
        await successor.stop(0)
    assert names(received) == ["call-started", "call-ringing", "call-answered", "call-hangup"]
    assert received[-1].data["endReason"] == "shutdown"


class Process:
    """`connector serve`, which may be killed and started again."""

    def __init__(self, stage: Stage) -> None:
        self.settings: Settings = stage.settings(webhook_allow_private=True)
        self._livekit = stage.livekit.environment
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        settings = self.settings
        environment = {
            **clean_environment(),
            **self._livekit,
            "CONNECTOR_PORT": str(settings.port),
            "CONNECTOR_GRPC_PORT": "0",
            "CONNECTOR_STORE": settings.store,
            "CONNECTOR_INSTANCE": settings.instance,
            "CONNECTOR_WEBHOOK_ALLOW_PRIVATE": "true",
            "CONNECTOR_LOG_LEVEL": "error",
            "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        }
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connector", "serve", env=environment
        )
        async with aiohttp.ClientSession() as http, asyncio.timeout(50):
            while not await self._answers(http):  # noqa: ASYNC110 - another process announces nothing
                await asyncio.sleep(0.05)

    async def _answers(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(self.settings.public_origin + "/readyz") as response:
                return response.status == 200
        except aiohttp.ClientConnectionError:
            return False

    async def kill(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            os.kill(process.pid, signal.SIGKILL)
            await process.wait()


@pytest.fixture
async def process(stage: Stage) -> AsyncIterator[Process]:
    process = Process(stage)
    await process.start()
    yield process
    await process.kill()


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_killed_process_loses_no_event_of_its_calls(
    stage: Stage, room: str, twilio: TwilioSimulator, receiver: Receiver, process: Process
) -> None:
    client: Any = process
    rest = Rest(await stage.http(), process.settings)
    webhook = await rest.register(receiver.url)
    await receiver.stop()
    guest = await stage.guest(room)
    place(twilio, await connect_call(stage.client(client), room))
    await guest.event("track_subscribed")
    await until_logged(rest, webhook)
    await until_kept(process.settings)
    key = await rest.public_key()
    await process.kill()
    await receiver.start()
    await process.start()
    received = await told(receiver, "call-hangup")
    assert names(received) == ["call-started", "call-ringing", "call-answered", "call-hangup"]
    hangup = received[-1].data
    assert (hangup["status"], hangup["endReason"]) == ("ended", "interrupted")
    assert [moment["status"] for moment in hangup["timelog"]] == ["initiated", "ringing", "answered", "ended"]
    for one in received:
        one.verify(key)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_what_a_killed_process_had_on_its_way_is_delivered_by_the_next(
    stage: Stage, room: str, receiver: Receiver, process: Process
) -> None:
    client: Any = process
    await Rest(await stage.http(), process.settings).register(receiver.url, ["call-started"])
    receiver.answering.clear()
    await connect_call(stage.client(client), room)
    (unanswered,) = await receiver.count(1)
    await process.kill()
    receiver.answering.set()
    await process.start()
    # Its lease has to run out first.
    again = (await receiver.count(2, patience=40))[1]
    assert (again.id, again.raw) == (unanswered.id, unanswered.raw)


async def until_logged(rest: Rest, webhook: str) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await rest.log_of(webhook):  # noqa: ASYNC110 - it announces nothing
            await asyncio.sleep(0.02)


async def until_kept(settings: Settings) -> None:
    """Until the answer is in the store: what is killed a moment before it has not told anybody of it."""
    store = SqliteStore(Path(settings.store.removeprefix("sqlite:///")))
    await store.open()
    try:
        async with asyncio.timeout(PATIENCE):
            while True:
                (record,) = await store.list_calls()
                told = [name for name, _ in record.timelog]
                if "call-answered" in told and await store.deliveries.pending() == len(told):
                    return
                await asyncio.sleep(0.02)
    finally:
        await store.close()
