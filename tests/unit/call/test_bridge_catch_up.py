"""What was held up and then came all at once does not stay in the carrier's buffer as a delay."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from numpy.typing import NDArray

from connector.call.bridge import CATCH_UP_AHEAD, MAX_AHEAD, QUIET, Bridge
from connector.metrics import Metrics
from tests.unit.call.fakes import FakeCodec

FRAME = 0.02
WORD = np.full(160, 4000, np.int16)
NOISE = np.full(160, QUIET - 1, np.int16)


class Voice:
    def capture(self, pcm: bytes) -> None: ...

    def take_dropped(self) -> int:
        return 0


class Talk:
    def __init__(self) -> None:
        self.now = 0.0
        self.bridge = Bridge(FakeCodec(), Voice(), Metrics(), lambda: self.now)
        self.bridge.open()
        self.bridge.source_added("talker")
        self._empty_at = 0.0

    async def frame(self, pcm: NDArray[np.int16]) -> bool:
        """Hand one frame over; whether it was sent."""
        before = self.bridge.sent_frames
        self.bridge.from_room("talker", pcm, self.now)
        sent = self.bridge.sent_frames > before
        await self._take()
        if sent:
            self._empty_at = max(self._empty_at, self.now) + FRAME
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


async def test_what_is_as_loud_as_a_word_is_never_left_out() -> None:
    talk = Talk()
    await talk.bursts()
    assert await talk.goes_on(np.full(160, -QUIET, np.int16), 1.0) == 0
