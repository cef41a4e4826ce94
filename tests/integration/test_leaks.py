"""Many short calls leave memory, threads, file descriptors, native handles and tasks where they were.

Nobody else publishes in their rooms: the SDK keeps half a megabyte of a connection that is closed while others
publish (https://github.com/livekit/rust-sdks/issues/1378), and nothing on this side of it can change that.
"""

from __future__ import annotations

import asyncio
import ctypes
import gc
import re
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from livekit import api, rtc
from livekit.rtc import _ffi_client
from livekit.rtc._ffi_client import FfiClient

from carrier_simulator import TwilioSimulator
from connector.app import Connector
from connector.call.session.call_session import CallSession
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from connector.room.gateway import RoomGateway
from connector.room.media import media_router
from demo.connector_process import ConnectorProcess
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    PATIENCE,
    TWILIO_TOKEN,
    Stage,
    connect_call,
    place,
    strength,
    tone,
    until,
)
from tests.integration.scene import tasks

CALLS = 200
WARM = 40
AT_ONCE = 4
FRAMES = 25
"""Half a second of voice."""
SETTLED_FRAMES = 60
"""More than a second: the SDK has done with the track that the call published."""
CLOSING = 5 * AT_ONCE
"""Threads and descriptors of the last connections, which the SDK may still be closing."""
VERY_SHORT_WARM, VERY_SHORT = 4, 44
NATIVE_LEAK = 0.1
"""Megabytes a call that glibc counts: a track that is kept is half a megabyte or more, of every other call."""
LEAK = 0.3
"""Megabytes a call: one connection that is kept is half a megabyte or more."""


@dataclass(frozen=True)
class Size:
    """A process as the system sees it."""

    megabytes: float
    threads: int
    descriptors: int


def size(pid: int | None = None) -> Size:
    process = psutil.Process(pid)
    return Size(process.memory_info().rss / 1e6, process.num_threads(), process.num_fds())


async def settled_size(pid: int, megabytes: float) -> Size:
    """The size once the process is smaller than `megabytes`: on a busy machine the SDK frees very short calls late. The
    last size, if that does not happen within PATIENCE."""
    with suppress(TimeoutError):
        await until(lambda: size(pid).megabytes < megabytes)
    return size(pid)


async def many_calls(twilio: TwilioSimulator, client: api.LiveKitAPI, numbers: range, frames: int) -> None:
    """Start, some frames, stop; every other one inbound, some at a time, each in a room of its own."""
    waiting = iter(numbers)

    async def worker() -> None:
        for number in waiting:
            url = await connect_call(client, f"leak-{number}", INBOUND if number % 2 else OUTBOUND)
            call = place(twilio, url)
            call.say(tone(600, 2))
            await call.stream_started.wait()
            await until(lambda call=call: call.stream.sent_frames >= frames)  # type: ignore[misc]
            await call.hangup()
            await call.finished()
            twilio.forget(call)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())


@pytest.mark.alone
@pytest.mark.timeout(240)
@pytest.mark.parametrize("frames", [SETTLED_FRAMES, FRAMES])
async def test_two_hundred_short_calls_leave_a_connector_as_large_as_forty(stage: Stage, frames: int) -> None:
    environment = {**stage.livekit.environment, "TWILIO_AUTH_TOKEN": TWILIO_TOKEN}
    twilio = await stage.twilio()
    async with ConnectorProcess(environment) as service:
        client = api.LiveKitAPI(service.url, stage.livekit.api_key, stage.livekit.api_secret, failover=False)
        try:
            await many_calls(twilio, client, range(WARM), frames)
            warm = size(service.pid)
            await many_calls(twilio, client, range(WARM, CALLS), frames)
            after = await settled_size(service.pid, warm.megabytes + (CALLS - WARM) * LEAK)
        finally:
            await client.aclose()
    assert after.threads <= warm.threads + CLOSING
    assert after.descriptors <= warm.descriptors + CLOSING
    assert after.megabytes < warm.megabytes + (CALLS - WARM) * LEAK, (warm, after)


def allocated(folder: Path) -> float:
    """Megabytes that native code of this process has allocated and not freed, by glibc's own account."""
    libc = ctypes.CDLL(None)
    libc.fopen.restype = ctypes.c_void_p
    report = folder / "malloc"
    stream = ctypes.c_void_p(libc.fopen(str(report).encode(), b"w"))
    libc.malloc_info(0, stream)
    libc.fclose(stream)
    total = report.read_text().rpartition("</heap>")[2]
    sizes = {kind: int(size) for kind, size in re.findall(r'type="(\w+)" (?:count="\d+" )?size="(\d+)"', total)}
    return (sizes["current"] - sizes["fast"] - sizes["rest"] + sizes["mmap"]) / 1e6


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_info"), reason="asks glibc")
async def test_what_very_short_calls_allocate_is_freed_without_a_collection_of_cycles(
    stage: Stage, tmp_path: Path, no_collection: None
) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    client = stage.client(connector)
    await many_calls(twilio, client, range(VERY_SHORT_WARM), FRAMES)
    before = allocated(tmp_path)
    await many_calls(twilio, client, range(VERY_SHORT_WARM, VERY_SHORT), FRAMES)
    # The SDK gives up what it negotiates as its room is left, but late.
    await until(lambda: allocated(tmp_path) < before + (VERY_SHORT - VERY_SHORT_WARM) * NATIVE_LEAK, 2 * PATIENCE)


@pytest.fixture
def no_collection() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@dataclass(frozen=True)
class Holdings:
    """What this process holds of calls that are over."""

    handles: int
    subscribers: int
    objects: int
    tasks: Counter[str]

    def beyond(self, before: Holdings) -> dict[str, object]:
        """What there is more of than before."""
        more: dict[str, object] = {
            name: (was, now)
            for name in ("handles", "subscribers", "objects")
            if (now := getattr(self, name)) > (was := getattr(before, name))
        }
        return more | ({"tasks": tasks} if (tasks := self.tasks - before.tasks) else {})


def holdings() -> Holdings:
    # Before the collection, which in a process that serves calls is hundreds of calls away.
    handles = sum(not handle.disposed for handle in _ffi_client._live_handles)
    gc.collect()
    ours = (CallSession, RoomGateway, rtc.Room)
    return Holdings(
        handles=handles,
        subscribers=len(FfiClient.instance.queue._subscribers),
        objects=sum(isinstance(thing, ours) for thing in gc.get_objects()),
        tasks=tasks(),
    )


async def short_call(
    stage: Stage, connector: Connector, client: api.LiveKitAPI, twilio: TwilioSimulator, room: str, ended_by: str
) -> None:
    call = place(twilio, await connect_call(client, room))
    (session,) = connector.calls.live()
    await until(lambda: session.state is CallState.ACTIVE)
    await until(lambda: call.stream.sent_frames >= FRAMES)
    if ended_by == "room":
        await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    else:
        await call.hangup()
    await call.finished()
    await session.finished.wait()
    assert session.record.end_reason is (EndReason.ROOM_DELETED if ended_by == "room" else EndReason.CARRIER_HANGUP)
    twilio.forget(call)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("ended_by", ["room", "carrier"])
async def test_calls_leave_no_object_handle_task_or_thread_and_the_next_caller_is_heard(
    stage: Stage, room: str, ended_by: str
) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    client = stage.client(connector)
    for number in range(3):
        await short_call(stage, connector, client, twilio, f"{room}-{number}", ended_by)
    before, warm = holdings(), size()
    for number in range(3, 15):
        await short_call(stage, connector, client, twilio, f"{room}-{number}", ended_by)
    # The SDK says a moment after LiveKit has ended a room that it is done with it.
    with suppress(TimeoutError):
        await until(lambda: not holdings().beyond(before))
    assert holdings().beyond(before) == {}
    assert (len(media_router()._taps), len(media_router()._captures)) == (0, 0)
    # Five threads of WebRTC for each connection that is kept.
    await until(lambda: size().threads <= warm.threads + CLOSING)

    guest = await stage.guest(room)
    call = place(twilio, await connect_call(client, room))
    await guest.event("track_subscribed")
    call.say(tone(600, 8))
    await guest.until(lambda: strength(guest.sound_of("caller")[-4000:], 600) > 4000)
