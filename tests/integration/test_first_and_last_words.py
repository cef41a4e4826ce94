"""What is said as a call begins and as it ends is heard, whole."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from livekit import api

from tests.integration.ears import loudness
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    tone,
    until,
)

SLOW = 0.3
"""Seconds by which each request of LiveKit's server API takes longer."""


def heard_for(pcm: np.ndarray[Any, np.dtype[np.int16]], frequency: float) -> float:
    """Seconds for which a tone is heard, to 20 ms."""
    return float((loudness(pcm, frequency) > 2500).sum() * 0.02)


@pytest.mark.parametrize("direction", [OUTBOUND, INBOUND], ids=["outbound", "inbound"])
async def test_a_hello_that_is_said_at_once_is_heard_although_livekit_is_slow(
    stage: Stage, room: str, monkeypatch: pytest.MonkeyPatch, direction: Any
) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    guest = await stage.guest(room)
    for name in ("ensure_room", "reveal"):
        monkeypatch.setattr(connector.admin, name, slowed(getattr(connector.admin, name)))
    call = place(twilio, await connect_call(stage.client(connector), room, direction))
    call.say(tone(500, 0.2))
    call.say(tone(700, 0.4))
    # Not all of it: the delay is worked off by periods of the voice that are left out.
    await guest.until(lambda: heard_for(guest.sound_of("caller"), 700) > 0.24)
    assert heard_for(guest.sound_of("caller"), 500) >= 0.1
    assert connector.metrics.dropped.labels("from_carrier", "not_ready")._value.get() == 0
    assert connector.metrics.dropped.labels("from_carrier", "late")._value.get() == 0


def slowed(method: Any) -> Any:
    async def slow(*args: Any, **more: Any) -> Any:
        await asyncio.sleep(SLOW)
        return await method(*args, **more)

    return slow


async def test_the_last_word_before_the_room_is_deleted_is_heard_to_its_end(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    guest = await stage.guest(room)
    await guest.publish()
    call = place(twilio, await connect_call(stage.client(connector), room))
    await guest.event("track_subscribed")
    await until(lambda: only_session(connector).state == "active")
    await guest.say(tone(500, 0.5))
    await until(lambda: heard_for(call.stream.heard, 500) > 0.3)
    await guest.say(np.concatenate([tone(700, 0.3), tone(900, 0.1)]))
    bridge = only_session(connector).bridge
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    await ended(connector)
    await until(lambda: call.stream.ended.has_come())
    assert call.stream.received_frames == bridge.sent_frames
    assert call.stream.buffered == 0.0
    # What WebRTC still had in its own buffer when the room was closed is lost: a frame or two.
    assert heard_for(call.stream.heard, 900) >= 0.04
