"""What waits for the carrier: in order, bounded, and gone when it is old."""

from __future__ import annotations

import asyncio

from connector.call.media.outbox import Outbox
from tests.unit.call.fakes import FakeSocket, Faults
from tests.unit.call.virtual_time import virtual_time


async def sent_by(outbox: Outbox) -> list[str]:
    """What a socket that takes everything is sent."""
    socket = FakeSocket(Faults())
    sending = asyncio.create_task(outbox.send_to(socket))
    for _ in range(len(outbox) + 2):
        await asyncio.sleep(0)
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)
    return socket.sent


@virtual_time
async def test_everything_leaves_in_the_order_it_came() -> None:
    outbox = Outbox()
    outbox.put_audio("a", 0.02)
    outbox.put_mark("m")
    outbox.put_tone("t")
    outbox.put_audio("b", 0.02)
    assert (outbox.seconds, outbox.tones, len(outbox)) == (0.04, 1, 4)
    assert await sent_by(outbox) == ["a", "m", "t", "b"]
    assert (outbox.seconds, outbox.tones) == (0.0, 0)


@virtual_time
async def test_what_comes_while_it_waits_for_more_is_sent_at_once() -> None:
    outbox = Outbox()
    socket = FakeSocket(Faults())
    sending = asyncio.create_task(outbox.send_to(socket))
    await asyncio.sleep(1)
    outbox.put_audio("a", 0.02)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert socket.sent == ["a"]
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


def test_there_is_room_for_a_fifth_of_a_second_and_no_more() -> None:
    outbox = Outbox()
    for _ in range(10):
        assert outbox.has_room_for(0.02)
        outbox.put_audio("a", 0.02)
    assert not outbox.has_room_for(0.02)


@virtual_time
async def test_starting_over_forgets_audio_and_marks_and_keeps_the_tones_behind_the_clear() -> None:
    outbox = Outbox()
    outbox.put_audio("old", 0.02)
    outbox.put_tone("five")
    outbox.put_mark("m")
    outbox.put_audio("older", 0.02)
    outbox.put_tone("six")
    assert outbox.start_over("clear") == 2
    assert outbox.start_over("clear") == 0
    assert (outbox.seconds, outbox.tones) == (0.0, 2)
    outbox.put_audio("new", 0.02)
    assert await sent_by(outbox) == ["clear", "five", "six", "new"]


@virtual_time
async def test_a_clear_of_the_room_forgets_the_tones_too() -> None:
    outbox = Outbox()
    outbox.put_audio("old", 0.02)
    outbox.put_tone("five")
    outbox.replace_all("clear")
    assert await sent_by(outbox) == ["clear"]


@virtual_time
async def test_it_ends_quietly_when_the_socket_is_gone() -> None:
    faults = Faults()
    faults.planned["socket.send"] = ConnectionResetError()
    outbox = Outbox()
    outbox.put_audio("a", 0.02)
    await outbox.send_to(FakeSocket(faults))
