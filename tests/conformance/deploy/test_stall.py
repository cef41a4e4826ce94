"""A proxy takes in minutes of audio for a carrier that does not read: the connector must not count on its socket."""

from __future__ import annotations

import asyncio

from tests.conformance.deploy.service import Service
from tests.integration.ears import delay_to_caller
from tests.integration.harness import connect_call, only_session, place, tone, until

STALL = 6.0
MORE_DELAY = 0.4
"""Seconds; a backlog that stays would be as long as the stall."""


async def test_after_a_stall_behind_the_proxy_nothing_old_is_heard(service: Service, room: str) -> None:
    twilio = await service.twilio(receive_buffer=8192)
    timer = await service.guest(room, "timer")
    talker = await service.guest(room, "talker")
    await timer.publish()
    await talker.publish()
    call = place(twilio, await connect_call(await service.sdk(), room))
    await timer.event("track_subscribed", lambda _, __, who: who.identity == "caller")
    await until(lambda: only_session(service.connector).state == "active")
    talker.start_saying(tone(400, 40, 6000))
    before = await delay_to_caller(timer, call.stream)
    # The carrier has to be seen to return marks before a missing one means anything.
    await until(lambda: call.stream.received_marks >= 2)

    call.stream.stop_reading()
    await asyncio.sleep(STALL)
    call.stream.resume_reading()
    await until(lambda: call.stream.received_clears >= 1)
    received = call.stream.received_frames
    await until(lambda: call.stream.received_frames > received + 40)

    assert call.stream.buffered < MORE_DELAY
    after = await delay_to_caller(timer, call.stream)
    assert after < before + MORE_DELAY, (before, after)
