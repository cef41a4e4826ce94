"""Digits in both directions, and the room's word to drop what the caller has yet to hear."""

from __future__ import annotations

import re
import time
from typing import Any

import jwt
import numpy as np
import pytest
from livekit import rtc
from numpy.typing import NDArray

from connector.audio import dtmf
from connector.model.call import CallState
from tests.integration.harness import RATE, Guest, Stage, connect_call, only_session, place, tone, until

PAUSE = RATE // 50
"""Samples of silence that part two digits; between tones of ours there are three times as many."""


def tones(pcm: NDArray[np.int16]) -> list[tuple[str | None, float]]:
    """Each sound between two silences: the digit it is, None for something else, and its seconds."""
    loud = np.flatnonzero(np.abs(pcm.astype(np.int32)) > 500)
    if not len(loud):
        return []
    pieces = np.split(loud, np.flatnonzero(np.diff(loud) > PAUSE) + 1)
    return [
        (dtmf.detect(pcm[piece[0] : piece[-1] + 1], RATE), (piece[-1] + 1 - piece[0]) / RATE)
        for piece in pieces
        if len(piece) > 80
    ]


def digits(pcm: NDArray[np.int16]) -> str:
    return "".join(digit or "?" for digit, _ in tones(pcm))


def sounds(pcm: NDArray[np.int16], digit: str) -> bool:
    """Whether the digit is somewhere in the last two seconds, next to whatever else."""
    last, window = pcm[-RATE * 2 :], round(0.14 * RATE)
    return any(dtmf.detect(last[at : at + window], RATE) == digit for at in range(0, len(last) - window, 160))


class Line:
    """One active call, and a guest who hears it."""

    def __init__(self, stage: Stage, room: str) -> None:
        self.stage = stage
        self.room = room

    async def open(self) -> None:
        self.connector = await self.stage.connector()
        self.twilio = await self.stage.twilio()
        self.client = self.stage.client(self.connector)
        self.guest = await self.stage.guest(self.room)
        self.connect_url = await connect_call(self.client, self.room)

    async def answer(self) -> None:
        self.call = place(self.twilio, self.connect_url)
        await self.guest.event("track_subscribed")
        self.session = only_session(self.connector)
        await until(lambda: self.session.state is CallState.ACTIVE)

    def refused(self, why: str) -> float:
        return float(self.connector.metrics.refused.labels("dtmf", why)._value.get())


@pytest.fixture
async def line(stage: Stage, room: str) -> Line:
    line = Line(stage, room)
    await line.open()
    await line.answer()
    return line


async def send(guest: Guest, digit: str, code: int | None = None) -> None:
    code = dtmf.event_code(digit) if code is None else code
    await guest.room.local_participant.publish_dtmf(code=code, digit=digit)


async def test_every_key_the_caller_presses_reaches_the_room_with_code_and_digit_in_order(line: Line) -> None:
    await line.call.press(dtmf.DIGITS)
    await line.guest.until(lambda: len(line.guest.saw("sip_dtmf_received")) == 16)
    received = [event for (event,) in line.guest.saw("sip_dtmf_received")]
    assert [(event.code, event.digit) for event in received] == list(enumerate(dtmf.DIGITS))
    assert {event.participant.identity for event in received} == {"caller"}


async def test_every_digit_of_the_room_is_a_tone_in_the_callers_ear_long_enough_for_any_machine(line: Line) -> None:
    for digit in dtmf.DIGITS:
        await send(line.guest, digit)
    await until(lambda: len(tones(line.call.heard)) >= 16)
    await until(lambda: line.call.stream.buffered == 0)
    heard = tones(line.call.heard)
    assert "".join(str(digit) for digit, _ in heard) == dtmf.DIGITS
    assert min(seconds for _, seconds in heard) >= 0.1


async def test_a_digit_is_clear_even_while_somebody_speaks(line: Line) -> None:
    await line.guest.publish()
    line.guest.start_saying(tone(400, 20, 9000))
    await until(lambda: bool(tones(line.call.heard[-RATE:])))
    await send(line.guest, "5")
    await until(lambda: sounds(line.call.heard, "5"))


def sip_token(stage: Stage, room: str) -> str:
    now = int(time.time())
    claims: dict[str, Any] = {
        "iss": stage.livekit.api_key,
        "sub": "sip phone",
        "nbf": now - 10,
        "exp": now + 600,
        "kind": "sip",
        "video": {"roomJoin": True, "room": room},
    }
    return jwt.encode(claims, stage.livekit.api_secret, algorithm="HS256")


async def test_digits_of_other_phones_are_not_played(line: Line) -> None:
    url = await connect_call(line.client, line.room, participant_identity="other phone")
    other = place(line.twilio, url)
    await line.guest.event("track_subscribed", lambda _, __, who: who.identity == "other phone")
    sip = Guest()
    await sip.room.connect(line.stage.livekit.url, sip_token(line.stage, line.room), rtc.RoomOptions())
    try:
        await line.guest.event("participant_connected", lambda who: who.identity == "sip phone")
        await other.press("1")
        await send(sip, "2")
        received = line.guest.saw
        await until(lambda: {event.digit for (event,) in received("sip_dtmf_received")} == {"1", "2"})
        # Comes after them on the same channel: when it is heard, they would have been.
        await send(line.guest, "9")
        await until(lambda: "9" in digits(line.call.heard))
        assert digits(line.call.heard) == "9"
    finally:
        await sip.leave()


async def test_what_is_no_digit_is_refused_and_a_flood_is_bounded(line: Line) -> None:
    await send(line.guest, "X", code=99)
    await send(line.guest, "12", code=1)
    await send(line.guest, "", code=0)
    await until(lambda: line.refused("unknown_digit") == 3)
    for _ in range(60):
        await send(line.guest, "3")
    await until(lambda: line.refused("too_many") > 10)
    # 33 tones of 0.22 s, which the carrier holds ready.
    assert line.call.stream.buffered < 8
    await send_clear(line.guest)
    await until(lambda: line.call.stream.buffered < 0.3)
    # The clear may have cut the last one off.
    assert re.fullmatch("3*[3?]", digits(line.call.heard))


async def test_a_digit_sent_before_the_answer_is_not_played_after_it(stage: Stage, room: str) -> None:
    line = Line(stage, room)
    await line.open()
    await send(line.guest, "1")
    await line.answer()
    await send(line.guest, "2")
    # Later than the other one on the same channel.
    await until(lambda: sounds(line.call.heard, "2"))
    assert "1" not in digits(line.call.heard)
    assert not sounds(line.call.heard, "1")


async def send_clear(guest: Guest, topic: str = "connector.clear") -> None:
    await guest.room.local_participant.publish_data(b"", topic=topic)


async def call_clear(guest: Guest) -> None:
    answer = await guest.room.local_participant.perform_rpc(
        destination_identity="caller", method="connector.clear", payload=""
    )
    assert answer == "ok"


@pytest.mark.parametrize("clear", [send_clear, call_clear], ids=["data message", "RPC"])
async def test_the_room_can_drop_what_the_caller_has_yet_to_hear(line: Line, clear: Any) -> None:
    for _ in range(16):
        await send(line.guest, "7")
    await until(lambda: line.call.stream.buffered > 1)
    await send_clear(line.guest, "another topic")
    assert line.call.stream.received_clears == 0
    await clear(line.guest)
    await until(lambda: line.call.stream.received_clears == 1)
    assert line.call.stream.buffered < 0.3
    # And the line is free at once for what comes next.
    cleared = len(line.call.heard)
    await send(line.guest, "8")
    await until(lambda: sounds(line.call.heard, "8"))
    assert digits(line.call.heard[cleared:]).count("7") <= 2
