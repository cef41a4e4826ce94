"""Two hundred short calls leave memory, threads, file descriptors and tasks where they were.

Nobody else publishes in their rooms: the SDK keeps half a megabyte of a connection that is closed while others
publish (https://github.com/livekit/rust-sdks/issues/1378), and nothing on this side of it can change that.
"""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from dataclasses import dataclass

import psutil
import pytest
from livekit import api, rtc
from livekit.rtc import _ffi_client
from livekit.rtc._ffi_client import FfiClient

from connector.app import Connector
from connector.call.session import CallSession
from connector.demo.carrier import TwilioSimulator
from connector.model import CallState, EndReason
from connector.room.gateway import RoomGateway
from connector.room.media import media_router
from tests.integration.harness import INBOUND, OUTBOUND, Stage, connect_call, place, strength, tone, until
from tests.integration.scene import tasks

CALLS = 200
WARM = 40
AT_ONCE = 4
CLOSING = 5 * AT_ONCE
"""Threads and descriptors of the last connections, which the SDK may still be closing."""
FRAMES = 25
"""Half a second: the SDK keeps a connection, too, that is closed while it negotiates a track just published."""


async def short_call(connector: Connector, twilio: TwilioSimulator, client: api.LiveKitAPI, number: int) -> None:
    """Start, a few frames, stop; every other one inbound. Each has its room to itself: see the module."""
    direction = INBOUND if number % 2 else OUTBOUND
    url = await connect_call(client, f"leak-{number}", direction)
    (session,) = [call for call in connector.calls.live() if call.request.room == f"leak-{number}"]
    call = place(twilio, url)
    call.say(tone(600, 1))
    await until(lambda: session.state is CallState.ACTIVE)
    await until(lambda: call.stream.sent_frames >= FRAMES)
    await call.hangup()
    await call.finished()
    twilio.forget(call)


async def many_calls(connector: Connector, twilio: TwilioSimulator, client: api.LiveKitAPI, numbers: range) -> None:
    waiting = iter(numbers)

    async def worker() -> None:
        for number in waiting:
            await short_call(connector, twilio, client, number)

    async with asyncio.TaskGroup() as group:
        for _ in range(AT_ONCE):
            group.create_task(worker())
    await until(lambda: not connector.calls.live())


@dataclass(frozen=True)
class Holdings:
    """What this process holds."""

    megabytes: float
    threads: int
    descriptors: int
    handles: int
    subscribers: int
    objects: int
    tasks: Counter[str]


def holdings() -> Holdings:
    gc.collect()
    process = psutil.Process()
    ours = (CallSession, RoomGateway, rtc.Room)
    return Holdings(
        megabytes=process.memory_info().rss / 1e6,
        threads=process.num_threads(),
        descriptors=len(os.listdir("/proc/self/fd")),
        handles=len(_ffi_client._live_handles),
        subscribers=len(FfiClient.instance.queue._subscribers),
        objects=sum(isinstance(thing, ours) for thing in gc.get_objects()),
        tasks=tasks(),
    )


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_hundred_short_calls_leave_nothing_behind(stage: Stage) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    client = stage.client(connector)
    await many_calls(connector, twilio, client, range(WARM))
    warm = holdings()
    await many_calls(connector, twilio, client, range(WARM, CALLS))
    after = holdings()
    assert after.objects <= warm.objects
    assert after.handles <= warm.handles + 2
    assert after.subscribers <= warm.subscribers
    assert after.threads <= warm.threads + CLOSING
    assert after.descriptors <= warm.descriptors + CLOSING
    # A leaked connection is half a megabyte or more; what a busy machine scatters is far less.
    assert after.megabytes < warm.megabytes + (CALLS - WARM) * 0.35
    assert not after.tasks - warm.tasks
    assert (len(media_router()._taps), len(media_router()._captures)) == (0, 0)
    records = await connector.store.list_calls(CALLS)
    assert {str(record.end_reason) for record in records} == {"carrier_hangup"}
    assert len(records) == CALLS


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_calls_whose_room_is_deleted_leave_no_threads_and_the_next_caller_is_heard(stage: Stage) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    client = stage.client(connector)

    async def deleted_call(room: str) -> None:
        call = place(twilio, await connect_call(client, room))
        (session,) = [call for call in connector.calls.live() if call.request.room == room]
        await until(lambda: session.state is CallState.ACTIVE)
        await until(lambda: call.stream.sent_frames >= FRAMES)
        await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
        await call.ended.wait()
        await session.finished.wait()
        assert session.record.end_reason is EndReason.ROOM_DELETED

    for number in range(4):
        await deleted_call(f"deleted-{number}")
    warm = holdings()
    for number in range(4, 24):
        await deleted_call(f"deleted-{number}")
    after = holdings()
    assert after.threads <= warm.threads + CLOSING, "five threads for each call"
    assert after.megabytes < warm.megabytes + 10

    guest = await stage.guest("heard")
    call = place(twilio, await connect_call(client, "heard"))
    await guest.event("track_subscribed")
    call.say(tone(600, 8))
    await guest.until(lambda: strength(guest.sound_of("caller")[-4000:], 600) > 4000)
