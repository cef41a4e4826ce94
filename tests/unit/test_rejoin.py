"""The way back into a room, where LiveKit is lost once more at each moment of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from livekit import rtc

from connector.metrics import Metrics
from connector.model.call import ParticipantSpec
from connector.model.end_reason import EndReason
from connector.room import rejoin
from connector.room.admission import CallIsOver, JoinAdmission
from connector.room.engine import engine
from connector.room.gateway import RoomGateway
from connector.room.joining import Connection
from tests.unit.call.virtual_time import virtual_time


class SdkRoom:
    """The SDK's, as far as the gateway asks it."""

    def __init__(self) -> None:
        self.is_connected = True
        self.handlers: dict[str, list[Callable[..., None]]] = {}
        self.remote_participants: dict[str, Any] = {}
        self.local_participant = SimpleNamespace(sid="PA_1", name="", metadata="", attributes={}, permissions=None)
        self._ffi_handle = None  # Nothing native is to be freed.

    @property
    async def sid(self) -> str:
        return "RM_1"

    def on(self, event: str, handler: Callable[..., None]) -> None:
        self.handlers.setdefault(event, []).append(handler)

    def off(self, event: str, handler: Callable[..., None]) -> None:
        self.handlers[event].remove(handler)

    def isconnected(self) -> bool:
        return self.is_connected

    async def disconnect(self) -> None:
        self.is_connected = False

    def lose(self) -> None:
        self.is_connected = False
        for handler in list(self.handlers["disconnected"]):
            handler(rtc.DisconnectReason.SERVER_SHUTDOWN)


class Microphone:
    """Published at once; the `lost_in`-th time the connection breaks before anybody has heard of that."""

    def __init__(self, lost_in: int) -> None:
        self.handlers: list[Any] = []
        self._lost_in = lost_in

    async def publish(self, connection: Connection) -> None:
        self._lost_in -= 1
        if self._lost_in == 0:
            connection.room.lose()  # type: ignore[attr-defined]

    def detach(self) -> None:
        return

    async def settle(self) -> None:
        return

    async def close(self) -> None:
        return


class Listener:
    def __init__(self) -> None:
        self.lost = 0
        self.regained = asyncio.Event()
        self.ends: list[EndReason] = []

    def room_people(self, *_: object) -> None:
        return

    def room_lost(self) -> None:
        self.lost += 1

    def room_regained(self, *_: object) -> None:
        self.regained.set()

    def room_ended(self, reason: EndReason, _: str) -> None:
        self.ends.append(reason)


@asynccontextmanager
async def at_once() -> AsyncIterator[None]:
    yield


@virtual_time
async def test_a_connection_that_is_lost_as_it_is_regained_is_regained_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rooms: list[SdkRoom] = []

    def new_room() -> SdkRoom:
        rooms.append(SdkRoom())
        return rooms[-1]

    async def joined(*_: object) -> None:
        return

    async def find_room() -> str:
        return "RM_1"

    monkeypatch.setattr(rtc, "Room", new_room)
    monkeypatch.setattr("connector.room.gateway.join", joined)
    # Its clock is not the loop's.
    monkeypatch.setattr("connector.room.rejoin.QUIET", 0.0)
    monkeypatch.setattr(engine, "require_clock", joined)
    monkeypatch.setattr(engine, "left", joined)
    listener = Listener()
    caller = RoomGateway(
        url="ws://livekit",
        api_key="key",
        api_secret="a secret that is long enough for HS256",
        room="lobby",
        participant=ParticipantSpec("caller"),
        kind_details=(),
        reconnect_timeout=60,
        find_room=find_room,
        listener=listener,  # type: ignore[arg-type]
        metrics=Metrics(),
        turn=at_once,
    )
    await caller.join_visible(ParticipantSpec("caller"))
    caller._microphone = Microphone(lost_in=1)  # type: ignore[assignment]
    rooms[0].lose()
    async with asyncio.timeout(30):
        await caller.until_connected()
        await listener.regained.wait()
    assert caller.connected
    assert len(rooms) == 3
    assert listener.ends == []
    await caller.leave()


@virtual_time
async def test_a_call_that_has_ended_stops_trying_and_says_nothing_of_livekit() -> None:
    admission = JoinAdmission(most=1, patience=8, metrics=Metrics())
    before = rejoin._Failures.latest = float("-inf")
    attempts = 0

    async def attempt() -> None:
        nonlocal attempts
        attempts += 1

    async with admission.live_call("another"):
        trying = asyncio.create_task(rejoin.until_joined(attempt, lambda: admission.live_call("call_1")))
        await asyncio.sleep(rejoin.SPREAD)
        admission.forget("call_1")
        with pytest.raises(CallIsOver):
            await trying
    assert (attempts, rejoin._Failures.latest) == (0, before)
