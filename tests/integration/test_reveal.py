"""The answer of an outbound call: publishers in the room learn of their subscriber, and what they say is heard."""

from __future__ import annotations

import asyncio

from tests.integration.harness import Stage, strength, tone, until
from tests.integration.scene import set_scene


async def test_a_track_published_while_the_phone_rings_is_told_of_its_subscriber_at_the_answer(
    stage: Stage, room: str
) -> None:
    scene = await set_scene(stage, room)
    await scene.guest.publish()
    publication = scene.guest._publication
    assert publication is not None
    subscribed = asyncio.create_task(publication.wait_for_subscription())
    # Somebody who is seen would be announced at once, as this one is to the other track.
    other = await stage.guest(room, "other", auto_subscribe=False)
    await other.publish()
    assert other._publication is not None
    await other._publication.wait_for_subscription()
    assert not subscribed.done()

    call = scene.answer()
    await asyncio.wait_for(subscribed, 20)
    scene.guest.start_saying(tone(900, 3))
    await until(lambda: strength(call.heard[-3000:], 900) > 4000)


async def test_a_track_published_after_the_answer_is_told_at_once(stage: Stage, room: str) -> None:
    scene = await set_scene(stage, room)
    call = await scene.talk()
    await scene.guest.publish()
    assert scene.guest._publication is not None
    await asyncio.wait_for(scene.guest._publication.wait_for_subscription(), 20)
    scene.guest.start_saying(tone(900, 3))
    await until(lambda: strength(call.heard[-3000:], 900) > 4000)
