"""SIGTERM, twice, and SIGKILL, to a real `python -m connector serve` that holds a call."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from livekit import api

from carrier_simulator import Fault, OutboundCall, TwilioSimulator
from connector import app
from connector.app import Connector
from connector.config import Settings
from connector.model.call import CallRecord
from connector.model.end_reason import EndReason
from connector.storage.sqlite import SqliteStore
from demo.connector_process import clean_environment
from tests.integration.harness import (
    INBOUND,
    PATIENCE,
    TWILIO_TOKEN,
    Guest,
    Stage,
    connect_call,
    place,
    strength,
    tone,
    until,
)

# A Python process with all its libraries starts slowly on a busy machine.
pytestmark = pytest.mark.timeout(120)
START = 50


class Service:
    """`connector serve` with one call: active and talking, or still ringing."""

    def __init__(self, stage: Stage, room: str, **changes: Any) -> None:
        self.stage = stage
        self.room = room
        self.settings: Settings = stage.settings(**changes)
        self.guest: Guest
        self.twilio: TwilioSimulator
        self.connect_url = ""
        self._http: aiohttp.ClientSession
        self._process: asyncio.subprocess.Process

    @property
    def environment(self) -> dict[str, str]:
        settings = self.settings
        return {
            **clean_environment(),
            **self.stage.livekit.environment,
            "CONNECTOR_PORT": str(settings.port),
            "CONNECTOR_GRPC_PORT": "0",
            "CONNECTOR_PUBLIC_URL": settings.public_url,
            "CONNECTOR_STORE": settings.store,
            "CONNECTOR_INSTANCE": settings.instance,
            "CONNECTOR_DRAIN_TIMEOUT": str(settings.drain_timeout),
            "CONNECTOR_RESUME_GRACE": str(settings.resume_grace),
            "CONNECTOR_LOG_FORMAT": "json",
            "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        }

    async def start(self) -> None:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "connector", "serve", env=self.environment, stderr=asyncio.subprocess.DEVNULL
        )
        await self.until_status("/readyz", 200, START)

    async def status(self, path: str) -> int:
        """0 when nobody answers."""
        try:
            async with self._http.get(self.settings.public_url + path) as response:
                return response.status
        except aiohttp.ClientConnectionError:
            return 0

    async def until_status(self, path: str, status: int, patience: float = PATIENCE) -> None:
        async with asyncio.timeout(patience):
            while await self.status(path) != status:  # noqa: ASYNC110 - another process announces nothing
                await asyncio.sleep(0.02)

    def send(self, number: signal.Signals) -> None:
        os.kill(self._process.pid, number)

    async def exit_status(self, patience: float = PATIENCE) -> int:
        async with asyncio.timeout(patience):
            return await self._process.wait()

    async def ring(self) -> api.LiveKitAPI:
        client = self.stage.client(self)  # type: ignore[arg-type]  # only its settings are looked at
        self.connect_url = await connect_call(client, self.room)
        return client

    async def talk(self) -> OutboundCall:
        call = place(self.twilio, self.connect_url)
        await self.guest.event("track_subscribed")
        await until(lambda: call.stream.sent_frames > 10)
        return call

    async def record(self) -> CallRecord:
        """The one call as the process left it."""
        store = SqliteStore(Path(self.settings.store.removeprefix("sqlite:///")))
        await store.open()
        try:
            (record,) = await store.list_calls()
            return record
        finally:
            await store.close()


@asynccontextmanager
async def service_on(stage: Stage, room: str, **changes: Any) -> AsyncIterator[Service]:
    service = Service(stage, room, **changes)
    service._http = await stage.http()
    service.twilio = await stage.twilio()
    service.guest = await stage.guest(room)
    await service.start()
    try:
        yield service
    finally:
        if service._process.returncode is None:
            service._process.kill()
            await service._process.wait()


async def test_a_drain_refuses_new_calls_and_lets_the_live_one_finish(stage: Stage, room: str) -> None:
    async with service_on(stage, room, drain_timeout=30) as service:
        client = await service.ring()
        call = await service.talk()
        service.send(signal.SIGTERM)
        await service.until_status("/readyz", 503)
        assert await service.status("/healthz") == 200
        with pytest.raises(api.TwirpError) as refused:
            await connect_call(client, room, participant_identity="another")
        assert refused.value.code == "unavailable"
        assert set(await stage.participants(room)) == {"guest", "caller"}

        call.say(tone(600, 1.0))
        await service.guest.until(lambda: strength(service.guest.sound_of("caller")[-4000:], 600) > 4000)
        await call.hangup()
        assert await service.exit_status() == 0
        assert (await service.record()).end_reason is EndReason.CARRIER_HANGUP


async def test_a_drain_has_a_limit_then_calls_are_ended(stage: Stage, room: str) -> None:
    async with service_on(stage, room, drain_timeout=1.0) as service:
        await service.ring()
        call = await service.talk()
        stopped = time.monotonic()
        service.send(signal.SIGTERM)
        # Without the limit the call would go on.
        ended = await call.ended.wait()
        assert ended - stopped > 0.9
        assert call.stream.close_code == 1000
        assert not call.errors
        await service.guest.event("participant_disconnected")
        assert await service.exit_status() == 0
        assert (await service.record()).end_reason is EndReason.SHUTDOWN


async def test_a_second_signal_cuts_the_drain_short(stage: Stage, room: str) -> None:
    async with service_on(stage, room, drain_timeout=60) as service:
        await service.ring()
        call = await service.talk()
        service.send(signal.SIGTERM)
        await service.until_status("/readyz", 503)
        assert not call.is_over
        service.send(signal.SIGINT)
        assert await service.exit_status() == 0
        assert call.stream.close_code == 1000
        assert (await service.record()).end_reason is EndReason.SHUTDOWN


async def test_a_call_that_rings_is_ended_with_the_service(stage: Stage, room: str) -> None:
    async with service_on(stage, room, drain_timeout=0) as service:
        await service.ring()
        assert set(await stage.participants(room)) == {"guest", "caller"}
        service.send(signal.SIGTERM)
        assert await service.exit_status() == 0
        assert set(await stage.participants(room)) == {"guest"}
        assert (await service.record()).end_reason is EndReason.SHUTDOWN


async def test_a_process_that_drains_leaves_new_calls_to_another_one_on_its_ports(stage: Stage, room: str) -> None:
    first = stage.settings(share_ports=True, instance="leaves")
    leaving = Connector(first)
    await leaving.start()
    url = await connect_call(stage.client(leaving), room, INBOUND)
    shared = {"port": first.port, "public_url": first.public_url, "store": first.store, "share_ports": True}
    staying = await stage.connector(instance="stays", **shared)
    async with asyncio.timeout(PATIENCE):
        while not await leaving.calls.resumes.has_others():  # noqa: ASYNC110 - seen in the store, once a second
            await asyncio.sleep(0.05)
    draining = asyncio.create_task(leaving.stop(10 * PATIENCE))
    await until(lambda: not leaving._http.is_listening)
    # The system chooses a process for each connection.
    for number in range(8):
        await connect_call(stage.client(staying), room, INBOUND, participant_identity=f"later-{number}")
    assert not draining.done()
    # The phone of the earlier call reaches the other process, which takes it over.
    call = place(await stage.twilio(), url)
    await call.stream_started.wait()
    async with asyncio.timeout(PATIENCE):
        await draining
    assert {"caller", "later-0"} <= {one.request.participant.identity for one in staying.calls.live()}
    await call.hangup()


async def test_processes_that_stop_together_end_their_calls_and_hand_none_over(stage: Stage, room: str) -> None:
    settings = stage.settings(instance="one")
    one, other = Connector(settings), Connector(stage.settings(instance="other", store=settings.store))
    await one.start()
    await other.start()
    async with asyncio.timeout(PATIENCE):
        while not await one.calls.resumes.has_others():  # noqa: ASYNC110 - seen in the store, once a second
            await asyncio.sleep(0.05)
    guest = await stage.guest(room)
    call = place(await stage.twilio(), await connect_call(stage.client(one), room))
    await guest.event("track_subscribed")
    async with asyncio.timeout(PATIENCE):
        await asyncio.gather(one.stop(0), other.stop(0))
    assert call.stream.close_code == 1000
    store = SqliteStore(Path(settings.store.removeprefix("sqlite:///")))
    await store.open()
    (record,) = await store.list_calls()
    await store.close()
    assert record.end_reason is EndReason.SHUTDOWN


async def test_a_process_that_dies_leaves_a_call_that_its_successor_finds(stage: Stage, room: str) -> None:
    async with service_on(stage, room, resume_grace=0) as service:
        await service.ring()
        call = await service.talk()
        service.send(signal.SIGKILL)
        assert await service.exit_status() == -signal.SIGKILL
        await call.ended.wait()
        # Twilio asks how the call goes on, and reaches nobody.
        assert [error.code for error in call.errors] == [Fault.STREAM_CLOSED, Fault.HTTP_RETRIEVAL]
        assert (await service.record()).end_reason is None
        await service.start()
        assert (await service.record()).end_reason is EndReason.INTERRUPTED


async def test_every_step_is_undone_even_when_one_raises(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others would stay open: a store that is locked, a port that is taken."""
    connector = Connector(stage.settings())
    closed: list[str] = []

    async def close(name: str, close: Callable[[], Awaitable[None]], fails: bool) -> None:
        await close()
        closed.append(name)
        if fails:
            raise ZeroDivisionError(name)

    steps: dict[str, Any] = {"store": connector.store, "livekit": connector.livekit, "admin": connector.admin}
    for name, part in steps.items():
        monkeypatch.setattr(part, "close", partial(close, name, part.close, name != "store"))
    await connector.start()
    with pytest.raises(ZeroDivisionError, match="livekit"):
        await connector.stop(0)
    assert closed == ["admin", "livekit", "store"]
    assert connector._http._runner is None
    assert all(chore.done() for chore in connector._chores)


async def test_a_chore_that_breaks_once_goes_on(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "SWEEP_EVERY", 0.01)
    connector = Connector(stage.settings())
    sweeps = 0
    swept = asyncio.Event()

    async def sweep() -> None:
        nonlocal sweeps
        sweeps += 1
        if sweeps == 1:
            raise ZeroDivisionError("a bug")
        swept.set()

    monkeypatch.setattr(connector.calls.take_overs, "sweep", sweep)
    await connector.start()
    async with asyncio.timeout(PATIENCE):
        await swept.wait()
    await connector.stop(0)
