"""Sockets that stall, in either direction: old audio goes, and the delay afterwards is what it was before."""

from __future__ import annotations

import asyncio

from connector.app import Connector
from connector.call.media.from_carrier import MAX_AUDIO_AGE
from connector.call.session.call_session import CallSession
from tests.integration.ears import delay_to_caller, delay_to_guest
from tests.integration.harness import Stage, connect_call, only_session, place, tone, until

STALL = 2.5
MORE_DELAY = 0.4
"""Seconds; a backlog that stays would be as long as the stall."""


def dropped(connector: Connector, path: str, why: str) -> float:
    return float(connector.metrics.dropped.labels(path, why)._value.get())


async def test_a_stalled_path_to_the_caller_leaves_no_backlog_in_any_buffer(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio(receive_buffer=4096)
    timer = await stage.guest(room, "timer")
    talker = await stage.guest(room, "talker")
    await timer.publish()
    await talker.publish()
    call = place(twilio, await connect_call(stage.client(connector), room))
    await timer.event("track_subscribed", lambda _, __, who: who.identity == "caller")
    session: CallSession = only_session(connector)
    await until(lambda: session.state == "active")
    # Somebody who never pauses: in a pause every backlog would play itself away.
    talker.start_saying(tone(400, 25, 6000))
    before = await delay_to_caller(timer, call.stream)

    call.stream.stop_reading()
    most_waiting = 0
    for _ in range(int(STALL * 50)):
        await asyncio.sleep(0.02)
        most_waiting = max(most_waiting, len(session.bridge.outbox))
        assert session.bridge.outbox.seconds <= 0.2 + 1e-6
    assert most_waiting <= 14, "marks and clears pile up"
    received = call.stream.received_frames
    call.stream.resume_reading()
    await until(lambda: call.stream.received_frames > received + 40)

    assert call.stream.received_clears >= 1
    assert dropped(connector, "to_carrier", "backed_up") > 30
    assert call.stream.buffered < MORE_DELAY
    after = await delay_to_caller(timer, call.stream)
    assert after < before + MORE_DELAY, (before, after)


async def test_of_a_long_stall_the_newest_second_is_heard_and_no_delay_stays(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    guest = await stage.guest(room)
    call = place(twilio, await connect_call(stage.client(connector), room))
    await guest.event("track_subscribed")
    await guest.until(lambda: len(guest.heard.get("caller", [])) > 20)
    before = await delay_to_guest(call, guest)

    call.say(tone(400, STALL + 1))
    call.stream.stall(STALL)
    await until(lambda: dropped(connector, "from_carrier", "late") > (STALL - MAX_AUDIO_AGE) * 50 / 2)
    await until(lambda: not call.saying)
    after = await delay_to_guest(call, guest)
    assert after < before + MORE_DELAY, (before, after)
    assert dropped(connector, "from_carrier", "late") > (STALL - MAX_AUDIO_AGE - 0.3) * 50


async def test_lost_frames_leave_a_gap_and_no_delay(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    guest = await stage.guest(room)
    call = place(twilio, await connect_call(stage.client(connector), room))
    await guest.event("track_subscribed")
    await guest.until(lambda: len(guest.heard.get("caller", [])) > 20)
    before = await delay_to_guest(call, guest)
    for _ in range(5):
        call.say(tone(400, 0.2))
        call.stream.skip(5)
        await asyncio.sleep(0.2)
    after = await delay_to_guest(call, guest)
    assert after < before + MORE_DELAY, (before, after)
