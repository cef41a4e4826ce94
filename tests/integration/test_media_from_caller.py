"""The caller's voice on its way into the room: any frame the carrier may send, and those it should not."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from carrier_simulator import CallOptions, OutboundCall
from connector.audio.g711 import ulaw_encode
from demo.compare import find_delay
from tests.integration.ears import PATIENCE, loudness, purity
from tests.integration.harness import RATE, Guest, Stage, connect_call, only_session, place, strength, tone, until

LEVEL = 8000


async def talk(stage: Stage, room: str, **options: Any) -> tuple[Any, OutboundCall, Guest]:
    connector = await stage.connector()
    twilio = await stage.twilio(options=CallOptions(**options))
    guest = await stage.guest(room)
    call = place(twilio, await connect_call(stage.client(connector), room))
    await guest.event("track_subscribed")
    await guest.until(lambda: len(guest.heard.get("caller", [])) > 20)
    return connector, call, guest


def is_heard(guest: Guest, frequency: float) -> bool:
    """The last half second is the tone and nothing but the tone, as loud as it was said."""
    last = guest.sound_of("caller")[-RATE // 2 :]
    return 0.85 * LEVEL < strength(last, frequency) < 1.15 * LEVEL and purity(last, frequency) > 0.97


@pytest.mark.parametrize(
    "lengths",
    [(1, 159), (79, 80, 81), (80,), (160,), (161,), (400,), (1600,), (7, 1, 333, 160)],
    ids=str,
)
async def test_frames_of_any_length_arrive_as_one_pure_tone(stage: Stage, room: str, lengths: tuple[int, ...]) -> None:
    connector, call, guest = await talk(stage, room, frame_samples=lengths)
    call.say(tone(600, 8, LEVEL))
    await guest.until(lambda: is_heard(guest, 600), PATIENCE)
    assert not connector.metrics.dropped.labels("from_carrier", "late")._value.get()


async def test_a_message_of_half_a_second_is_heard_whole(stage: Stage, room: str) -> None:
    connector, call, guest = await talk(stage, room)
    call.stream.stall(60)
    payload = np.concatenate([tone(600, 0.25), tone(1400, 0.25)])
    await call.stream.send_raw(media(ulaw_encode(payload)))
    await guest.until(lambda: strength(guest.sound_of("caller")[-400:], 1400) > 2000)
    assert loudness(guest.sound_of("caller")[-RATE:], 600).max() > 4000
    assert connector.metrics.dropped.labels("from_carrier", "late")._value.get() == 0


def media(payload: bytes, track: str = "inbound") -> str:
    encoded = base64.b64encode(payload).decode()
    return json.dumps({"event": "media", "media": {"track": track, "payload": encoded}})


@pytest.mark.parametrize(
    ("message", "why"),
    [
        (media(ulaw_encode(tone(1800, 0.02, 30000)), "outbound"), "wrong_track"),
        ('{"event":"media","media":{"track":"inbound","payload":"*no base64*"}}', "bad_base64"),
        ('{"event":"media","media":{"track":"inbound","payload":"//8"}}', "bad_base64"),
        (media(b""), "empty"),
    ],
    ids=["wrong track", "no base64", "no padding", "empty"],
)
async def test_audio_that_cannot_be_used_is_counted_and_disturbs_nothing(
    stage: Stage, room: str, message: str, why: str
) -> None:
    connector, call, guest = await talk(stage, room)
    call.say(tone(600, 8, LEVEL))
    for _ in range(25):
        await call.stream.send_raw(message)
    await until(lambda: connector.metrics.dropped.labels("from_carrier", why)._value.get() == 25)
    await guest.until(lambda: is_heard(guest, 600), PATIENCE)
    assert only_session(connector).state == "active"


async def test_speech_arrives_in_order_and_whole(stage: Stage, room: str) -> None:
    _, call, guest = await talk(stage, room)
    said = chirps()

    best = 0.0
    for _ in range(6):  # A busy machine may lose a frame of one; never of all.
        start = len(guest.sound_of("caller"))
        call.say(said)
        call.say_silence(1.0)
        # Judged once, when it is there: a comparison at every frame would itself hold the frames up.
        await guest.until(lambda start=start: len(guest.sound_of("caller")) > start + len(said) + RATE)  # type: ignore[misc]
        best = max(best, find_delay(said, guest.sound_of("caller")[start:], RATE).score)
        if best > 0.9:
            break
    assert best > 0.9


def chirps() -> np.ndarray[Any, np.dtype[np.int16]]:
    """Two seconds of a sound that is like itself nowhere else: tones that rise, each from another pitch."""
    time = np.arange(RATE // 5) / RATE
    rising = [8000 * np.sin(2 * np.pi * (low + 900 * time) * time) for low in range(400, 2400, 200)]
    return np.concatenate(rising).astype(np.int16)


async def test_silence_in_between_is_silence(stage: Stage, room: str) -> None:
    _, call, guest = await talk(stage, room)
    call.say(tone(600, 3, LEVEL))
    await guest.until(lambda: is_heard(guest, 600), PATIENCE)
    await guest.until(lambda: np.abs(guest.sound_of("caller")[-RATE // 2 :].astype(int)).max() < 50, PATIENCE)
