"""One call between a carrier and a room, and what must be left of it when it is over: nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import structlog
from livekit import api

from carrier_simulator import Document, MediaStream, OutboundCall, TwilioSimulator
from connector.app import Connector
from connector.model.call import CallRecord
from connector.model.end_reason import EndReason
from tests.integration.harness import OUTBOUND, Guest, Stage, connect_call, ended, only_session, until

AFTER = "Goodbye."
"""What the carrier's document says after the stream: it is heard when the call goes on without us."""


@dataclass
class Scene:
    stage: Stage
    connector: Connector
    twilio: TwilioSimulator
    guest: Guest
    room: str
    connect_url: str
    log: list[Any] = field(default_factory=list)
    tasks_before: Counter[str] = field(default_factory=Counter)
    phone: OutboundCall | None = None

    @property
    def call(self) -> OutboundCall:
        assert self.phone is not None
        return self.phone

    @property
    def stream(self) -> MediaStream:
        return self.call.stream

    def answer(self) -> OutboundCall:
        """The callee picks up; its document goes on after the stream."""
        inline = f'<Response><Connect><Stream url="{self.connect_url}"/></Connect><Say>{AFTER}</Say></Response>'
        self.phone = self.twilio.dial("+15551234567", "+15557654321", Document(inline=inline))
        return self.phone

    async def talk(self) -> OutboundCall:
        """Answer, and return once the call is active and its track heard of."""
        call = self.answer()
        await self.guest.event("track_subscribed")
        await until(lambda: only_session(self.connector).state == "active")
        return call

    async def assert_all_free(self, reason: EndReason, *, in_room: bool = False) -> CallRecord:
        """Nothing of the call is left; one reason everywhere. `in_room`: somebody else has its identity now."""
        record = await ended(self.connector)
        assert record.end_reason is reason, record
        assert not self.connector.calls.live()
        if self.stage.livekit.is_running and not in_room:
            assert "caller" not in await self.stage.participants(self.room)
        if self.phone is not None and self.phone.streams:
            await self.stream.ended.wait()
            await self.call.ended.wait()
        assert ended_calls(self.connector) == {reason.value: 1.0}
        assert [line["reason"] for line in self.log if line["event"] == "call ended"] == [reason.value]
        assert not [line for line in self.log if line["log_level"] in ("error", "critical")]
        try:
            await until(lambda: not tasks() - self.tasks_before)
        except TimeoutError:
            raise AssertionError(f"tasks left: {tasks() - self.tasks_before}") from None
        return record


def tasks() -> Counter[str]:
    """How many tasks run of each kind; those of the tests' own world do not count."""
    names = (str(getattr(task.get_coro(), "__qualname__", task)) for task in asyncio.all_tasks())
    return Counter(name for name in names if not name.startswith(("Guest.", "AudioStream.", "Gate.")))


def ended_calls(connector: Connector) -> dict[str, float]:
    """The metric: ended calls by reason."""
    (family,) = connector.metrics.calls.collect()
    return {sample.labels["reason"]: sample.value for sample in family.samples if sample.name.endswith("_total")}


@contextmanager
def captured_log() -> Iterator[list[Any]]:
    """Every log line of this process as a dictionary."""
    before = structlog.get_config()
    capture = structlog.testing.LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    try:
        yield capture.entries
    finally:
        structlog.configure(**before)


async def set_scene(stage: Stage, room: str, direction: Any = OUTBOUND, **settings: Any) -> Scene:
    """A connector with one call created, a guest in the room, a carrier at hand; the phone has not been answered."""
    connector = await stage.connector(**settings)
    twilio = await stage.twilio()
    guest = await stage.guest(room)
    client = stage.client(connector)
    with suppress(api.TwirpError):
        # The client keeps its connection, and the server a task for it: they are no part of the call.
        await connect_call(client, "")
    scene = Scene(stage, connector, twilio, guest, room, "", tasks_before=tasks())
    scene.connect_url = await connect_call(client, room, direction)
    return scene


async def delete_room(scene: Scene) -> None:
    await scene.stage.admin.room.delete_room(api.DeleteRoomRequest(room=scene.room))


async def remove_caller(scene: Scene) -> None:
    await scene.stage.admin.room.remove_participant(api.RoomParticipantIdentity(room=scene.room, identity="caller"))


async def take_identity(scene: Scene) -> None:
    await scene.stage.guest(scene.room, "caller")
    scene.tasks_before["Room._listen_task"] += 1
