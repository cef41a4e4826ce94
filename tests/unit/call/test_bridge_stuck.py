"""What the bridge concludes from marks that do not come back, on a socket that takes everything."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from connector.call.bridge import MARK_EVERY, MAX_UNHEARD, Bridge
from connector.metrics import Metrics
from tests.unit.call.fakes import FakeCodec

LOUD = np.full(160, 4000, np.int16)
FRAME = 0.02


class Voice:
    def capture(self, pcm: bytes) -> None: ...

    def take_dropped(self) -> int:
        return 0


class Talk:
    """Somebody who talks on and on into a bridge whose socket is never full."""

    def __init__(self) -> None:
        self.now = 0.0
        self.sent: list[str] = []
        self.bridge = Bridge(FakeCodec(), Voice(), Metrics(), lambda: self.now)
        self.bridge.open()
        self.bridge.source_added("talker")

    async def goes_on(self, seconds: float) -> list[str]:
        """What is sent to the carrier meanwhile."""
        before = len(self.sent)
        for _ in range(round(seconds / FRAME)):
            self.bridge.from_room("talker", LOUD, self.now)
            await self._send()
            self.now += FRAME
        return self.sent[before:]

    async def _send(self) -> None:
        """A proxy takes in whatever it is given."""
        sending = asyncio.create_task(self.bridge.outbox.send_to(self))  # type: ignore[arg-type]
        await asyncio.sleep(0)
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)

    async def send(self, text: str) -> None:
        self.sent.append(text)

    def come_back(self) -> None:
        """The carrier has played all that it was sent."""
        for text in self.sent:
            if text.startswith("mark "):
                self.bridge.mark_reached(text.removeprefix("mark "))


@pytest.fixture
def talk() -> Talk:
    return Talk()


async def stuck(talk: Talk) -> list[str]:
    """One mark has come back, then none does; what is sent from then on."""
    await talk.goes_on(MARK_EVERY + FRAME)
    talk.come_back()
    return await talk.goes_on(MARK_EVERY + MAX_UNHEARD + 5)


async def test_nothing_is_sent_into_a_way_that_is_stuck(talk: Talk) -> None:
    sent = await stuck(talk)
    assert sent.count("clear") == 1
    clear, probe = sent[-2:]
    assert (clear, probe.split()[0]) == ("clear", "mark")
    heard = sum(text.startswith("audio") for text in sent) * FRAME
    assert heard == pytest.approx(MARK_EVERY + MAX_UNHEARD, abs=3 * FRAME)
    assert talk.bridge.dropped_frames == pytest.approx(5 / FRAME, abs=3)


async def test_sound_goes_on_when_the_mark_behind_the_clear_is_back(talk: Talk) -> None:
    *_, probe = await stuck(talk)
    assert talk.bridge.mark_reached("lag-1") is None
    assert await talk.goes_on(1.0) == []
    assert talk.bridge.mark_reached(probe.removeprefix("mark ")) is None
    sent = await talk.goes_on(0.5)
    assert len(sent) == pytest.approx(0.5 / FRAME, abs=1)
    talk.come_back()
    assert "clear" not in await talk.goes_on(MAX_UNHEARD - FRAME)


async def test_it_can_get_stuck_again(talk: Talk) -> None:
    *_, probe = await stuck(talk)
    talk.bridge.mark_reached(probe.removeprefix("mark "))
    assert (await talk.goes_on(MARK_EVERY + MAX_UNHEARD + 1)).count("clear") == 1


async def test_a_carrier_that_has_never_returned_a_mark_is_not_taken_for_stuck(talk: Talk) -> None:
    sent = await talk.goes_on(MARK_EVERY + MAX_UNHEARD + 5)
    assert "clear" not in sent
    assert talk.bridge.dropped_frames == 0


async def test_a_clear_that_somebody_asks_for_does_not_lose_the_mark_that_is_waited_for(talk: Talk) -> None:
    await stuck(talk)
    talk.bridge.clear()
    sent = await talk.goes_on(1.0)
    assert [text.split()[0] for text in sent] == ["clear", "mark"]
    talk.bridge.mark_reached(sent[-1].removeprefix("mark "))
    assert len(await talk.goes_on(0.5)) == pytest.approx(0.5 / FRAME, abs=1)
