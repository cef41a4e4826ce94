"""What was held up and then came all at once does not stay in the carrier's buffer as a delay."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from connector.audio.levels import QUIET
from connector.call.media.bridge import Bridge
from connector.call.media.to_carrier import CATCH_UP_AHEAD, MAX_AHEAD, MAX_STANDING
from connector.metrics import Metrics
from tests.unit.call.clock import Clock
from tests.unit.call.fakes import FakeCodec

FRAME = 0.02
WORD = np.random.default_rng(1).choice(np.array([-4000, 4000], np.int16), 160)
"""Loud, and without a period that could be left out of it."""
NOISE = np.random.default_rng(2).choice(np.array([1 - QUIET, QUIET - 1], np.int16), 160)
"""As loud as may be left out."""


class Voice:
    def capture(self, pcm: bytes) -> None: ...

    def take_dropped(self) -> int:
        return 0


class Talk:
    def __init__(self) -> None:
        self.now = 0.0
        self.bridge = Bridge(FakeCodec(), Voice(), Metrics(), lambda: self.now, Clock().later)
        self.bridge.open_to_carrier()
        self.bridge.source_added("talker")
        self._empty_at = 0.0

    async def frame(self, pcm: NDArray[np.int16]) -> bool:
        """Hand one frame over; whether it was sent."""
        before = self.bridge.sent_frames
        self.bridge.from_room("talker", pcm, self.now)
        sent = self.bridge.sent_frames > before
        seconds = self.bridge.outbox.seconds
        await self._take()
        if seconds:
            assert seconds >= FRAME, "no carrier has to take less than 20 ms at once"
            self._empty_at = max(self._empty_at, self.now) + seconds
        return sent

    async def _take(self) -> None:
        """The socket takes all that waits for it."""
        taking = asyncio.create_task(self.bridge.outbox.send_to(self))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        taking.cancel()
        await asyncio.gather(taking, return_exceptions=True)

    async def send(self, text: str) -> None: ...

    @property
    def waiting(self) -> float:
        """Seconds in the carrier's buffer."""
        return max(0.0, self._empty_at - self.now)

    async def goes_on(self, pcm: NDArray[np.int16], seconds: float) -> int:
        """An even flow of the same; how many frames were left out."""
        left_out = 0
        for _ in range(round(seconds / FRAME)):
            left_out += not await self.frame(pcm)
            self.now += FRAME
        return left_out

    async def bursts(self) -> None:
        """What was held up comes at once."""
        for _ in range(8):
            await self.frame(WORD)


async def test_an_even_flow_is_sent_whole() -> None:
    talk = Talk()
    assert await talk.goes_on(NOISE, 2.0) == 0


@pytest.mark.parametrize("shake", [0.0, 0.015, 0.03])
async def test_frames_that_shake_on_their_way_are_sent_whole(shake: float) -> None:
    talk = Talk()
    for index in range(200):
        talk.now = index * FRAME + (shake if index % 3 == 0 else 0.0)
        assert await talk.frame(NOISE)


async def test_a_delay_is_made_up_for_in_the_gaps_between_words() -> None:
    talk = Talk()
    await talk.bursts()
    assert MAX_AHEAD > talk.waiting > CATCH_UP_AHEAD + 0.05
    assert await talk.goes_on(WORD, 0.4) == 0, "no piece of a word is left out"
    assert talk.waiting > CATCH_UP_AHEAD + 0.05

    left_out = await talk.goes_on(NOISE, 0.4)

    assert left_out == pytest.approx((8 * FRAME - CATCH_UP_AHEAD) / FRAME, abs=1)
    assert talk.waiting <= CATCH_UP_AHEAD
    assert await talk.goes_on(NOISE, 2.0) == 0, "and then no more"


def voice(index: int) -> NDArray[np.int16]:
    time = (np.arange(160) + index * 160) / 8000
    return np.asarray(np.round(5000 * np.sin(2 * np.pi * 140 * time) + 2000 * np.sin(2 * np.pi * 280 * time)), np.int16)


async def test_a_delay_in_speech_without_gaps_is_made_up_for_by_the_voices_periods() -> None:
    talk = Talk()
    await talk.bursts()
    assert talk.waiting > 0.15
    for index in range(150):
        await talk.frame(voice(index))
        talk.now += FRAME
    assert talk.waiting <= MAX_STANDING + FRAME
    assert talk.bridge.dropped_frames == 0


async def test_the_rest_of_a_shortened_frame_is_not_lost_in_silence() -> None:
    talk = Talk()
    await talk.bursts()
    held = 0
    for index in range(30):
        await talk.frame(voice(index))
        if held := len(talk.bridge._to_carrier._held):
            break
        talk.now += FRAME
    assert 0 < held < 160
    for _ in range(10):
        await talk.frame(np.zeros(160, np.int16))
        talk.now += FRAME
    assert len(talk.bridge._to_carrier._held) == 0
    before = talk.bridge.sent_frames
    await talk.frame(np.zeros(160, np.int16))
    assert talk.bridge.sent_frames == before


async def test_an_even_voice_is_never_shortened() -> None:
    talk = Talk()
    for index in range(200):
        talk.now = index * FRAME + (0.015 if index % 3 == 0 else 0.0)
        await talk.frame(voice(index))
        assert not len(talk.bridge._to_carrier._held)


async def test_what_is_as_loud_as_a_word_is_never_left_out() -> None:
    talk = Talk()
    await talk.bursts()
    assert await talk.goes_on(np.random.default_rng(2).choice(np.array([-QUIET, 100], np.int16), 160), 1.0) == 0
