"""The room on its way to the caller: everybody who speaks, mixed; nothing when nobody does; never a picture."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from livekit import rtc

from carrier_simulator import OutboundCall, TwilioSimulator
from connector.call.session.call_session import CallSession
from tests.integration.ears import PATIENCE, purity
from tests.integration.harness import RATE, Guest, Stage, connect_call, only_session, place, strength, tone, until


class Line:
    """A connector, a carrier, and one active call of the room's `caller`."""

    def __init__(self, stage: Stage, room: str) -> None:
        self.stage = stage
        self.room = room
        self.twilio: TwilioSimulator
        self.call: OutboundCall
        self.session: CallSession

    async def open(self) -> None:
        self.connector = await self.stage.connector()
        self.twilio = await self.stage.twilio()
        self.client = self.stage.client(self.connector)
        self.call = await self.dial("caller")
        self.session = only_session(self.connector)
        await until(lambda: self.session.state == "active")

    async def dial(self, identity: str) -> OutboundCall:
        url = await connect_call(self.client, self.room, participant_identity=identity)
        call = place(self.twilio, url)
        await call.stream_started.wait()
        return call

    def level(self, frequency: float, seconds: float = 0.5) -> float:
        """How loud the caller hears this frequency of late."""
        return strength(self.call.heard[-int(RATE * seconds) :], frequency)

    async def until_heard(self, *frequencies: float, level: float = 4000) -> None:
        await until(lambda: all(self.level(frequency) > level for frequency in frequencies), PATIENCE)

    async def until_gone(self, frequency: float) -> None:
        await until(lambda: self.level(frequency) < 100, PATIENCE)


@pytest.fixture
async def line(stage: Stage, room: str) -> Line:
    line = Line(stage, room)
    await line.open()
    return line


async def speaker(line: Line, identity: str, frequency: float, level: float = 8000) -> Guest:
    """Somebody who holds a tone for longer than a test lasts."""
    guest = await line.stage.guest(line.room, identity, auto_subscribe=False)
    await guest.publish()
    guest.start_saying(tone(frequency, 40, level))
    return guest


async def test_one_voice_arrives_pure_and_as_loud_as_it_was(line: Line) -> None:
    await speaker(line, "anna", 900)

    def is_pure() -> bool:
        last = line.call.heard[-RATE // 2 :]
        return 6800 < strength(last, 900) < 9200 and purity(last, 900) > 0.97

    await until(is_pure, PATIENCE)


async def test_two_people_and_another_phone_are_mixed_and_each_can_come_and_go(line: Line) -> None:
    anna = await speaker(line, "anna", 900)
    await speaker(line, "bert", 1300)
    other = await line.dial("other phone")
    other.say(tone(1900, 40))
    await line.until_heard(900, 1300, 1900)

    await anna.unpublish()
    await line.until_gone(900)
    await line.until_heard(1300, 1900)

    await anna.publish()
    anna.start_saying(tone(700, 40))
    await line.until_heard(700, 1300, 1900)

    await other.hangup()
    await line.until_gone(1900)
    await line.until_heard(700, 1300)

    await anna.room.disconnect()
    await line.until_gone(700)
    await line.until_heard(1300)
    assert len(line.session.bridge._to_carrier._mixer._queues) == 1


async def test_a_phone_does_not_hear_itself(line: Line) -> None:
    guest = await line.stage.guest(line.room)
    await guest.event("track_subscribed")
    line.call.say(tone(600, 10))
    await guest.until(lambda: strength(guest.sound_of("caller")[-4000:], 600) > 4000, PATIENCE)
    assert line.level(600) < 100


async def test_voices_too_loud_together_are_limited_and_do_not_wrap(line: Line) -> None:
    for index in range(3):
        await speaker(line, f"loud {index}", 500, 20_000)
    # Clipped, a sine becomes a square: louder at its pitch than full scale. Wrapped, it would be noise.
    await line.until_heard(500, level=20_000)


async def test_a_mute_is_silence_and_sends_nothing(line: Line) -> None:
    anna = await speaker(line, "anna", 900)
    await line.until_heard(900)
    anna.track.mute()
    await line.until_gone(900)
    await until_quiet(line)
    anna.track.unmute()
    await line.until_heard(900)


async def until_quiet(line: Line, seconds: float = 0.5) -> None:
    """Until for so long no message has come: what is under way may take a while to arrive."""
    async with asyncio.timeout(PATIENCE):
        while True:
            before = line.call.stream.received_frames
            await asyncio.sleep(seconds)
            if line.call.stream.received_frames == before:
                return


async def test_nothing_is_sent_when_nobody_publishes_or_speaks(line: Line) -> None:
    guest = await line.stage.guest(line.room)
    await guest.event("track_subscribed")
    line.call.say(tone(600, 1))
    await guest.until(lambda: strength(guest.sound_of("caller")[-4000:], 600) > 4000, PATIENCE)
    assert line.call.stream.received_frames == 0
    await guest.publish()
    guest.start_saying(np.zeros(RATE, np.int16))
    await until(lambda: bool(line.session.bridge._to_carrier._mixer._queues))
    await asyncio.sleep(0.5)
    assert line.call.stream.received_bytes == 0
    assert line.call.stream.received_marks == 0


async def test_video_is_never_subscribed_to(line: Line) -> None:
    guest = await line.stage.guest(line.room, auto_subscribe=False)
    source = rtc.VideoSource(64, 64)
    video = await guest.room.local_participant.publish_track(rtc.LocalVideoTrack.create_video_track("camera", source))
    subscribed: list[Any] = []
    guest.room.on("local_track_subscribed", subscribed.append)
    await guest.publish()
    guest.start_saying(tone(900, 10))
    source.capture_frame(rtc.VideoFrame(64, 64, rtc.VideoBufferType.RGBA, bytes(64 * 64 * 4)))
    await line.until_heard(900)
    await until(lambda: bool(subscribed))
    assert [track.kind for track in subscribed] == [rtc.TrackKind.KIND_AUDIO]
    sdk: rtc.Room = line.session.presence._place.room._connection.room  # type: ignore[attr-defined]
    seen = sdk.remote_participants["guest"].track_publications
    assert {sid: publication.subscribed for sid, publication in seen.items()}[video.sid] is False


async def test_a_voice_that_was_there_before_the_answer_is_heard_from_the_answer_on(stage: Stage, room: str) -> None:
    line = Line(stage, room)
    guest = await stage.guest(room, "early")
    await guest.publish()
    guest.start_saying(tone(1100, 40))
    await line.open()
    await line.until_heard(1100)


async def test_the_delay_of_playback_is_measured_by_marks(line: Line) -> None:
    await speaker(line, "anna", 900)
    await line.until_heard(900)
    await until(lambda: lag(line, "count") >= 2, PATIENCE)
    assert line.call.stream.received_marks >= 2
    assert 0 < lag(line, "sum") / lag(line, "count") < 1


def lag(line: Line, what: str) -> float:
    (family,) = line.connector.metrics.playback_lag.collect()
    (value,) = [sample.value for sample in family.samples if sample.name.endswith(what)]
    return float(value)
