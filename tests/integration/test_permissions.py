"""What an admin of the room takes from the caller and gives back: to publish, to subscribe, to be heard."""

from __future__ import annotations

from typing import Any

import pytest
from livekit import api

from connector.model.end_reason import EndReason
from tests.integration.harness import Guest, Stage, strength, tone, until
from tests.integration.scene import Scene, set_scene

SECONDS = 30
TAKEN = "the caller has lost the permission to publish: nobody hears it"
BACK = "the caller's track is published again"


async def talking(stage: Stage, room: str, log: list[Any]) -> Scene:
    """Both talk without end."""
    scene = await set_scene(stage, room)
    scene.log = log
    await scene.guest.publish()
    call = await scene.talk()
    call.say(tone(600, SECONDS))
    scene.guest.start_saying(tone(900, SECONDS))
    await until_caller_heard(scene.guest)
    await until_room_heard(scene)
    return scene


async def until_caller_heard(guest: Guest) -> None:
    await guest.until(lambda: strength(guest.sound_of("caller")[-2000:], 600) > 4000)


async def until_room_heard(scene: Scene) -> None:
    await until(lambda: strength(scene.call.heard[-2000:], 900) > 4000)


async def permit(scene: Scene, **changes: Any) -> None:
    everything = {"can_publish": True, "can_subscribe": True, "can_publish_data": True, "can_update_metadata": True}
    await scene.stage.admin.room.update_participant(
        api.UpdateParticipantRequest(
            room=scene.room, identity="caller", permission=api.ParticipantPermission(**(everything | changes))
        )
    )


def lines(scene: Scene, event: str) -> int:
    return sum(line["event"] == event for line in scene.log)


async def subscriptions(guest: Guest, number: int) -> None:
    """Until the guest has been subscribed this often to the caller."""
    await guest.until(lambda: sum(args[2].identity == "caller" for args in guest.saw("track_subscribed")) == number)


@pytest.mark.parametrize(
    "without",
    [{"can_publish": False}, {"can_publish_sources": [api.TrackSource.CAMERA]}],
    ids=["at all", "this source"],
)
async def test_a_caller_who_may_publish_again_is_heard_again(
    stage: Stage, room: str, log: list[Any], without: dict[str, Any]
) -> None:
    scene = await talking(stage, room, log)
    for time in (1, 2):
        await permit(scene, **without)
        await until(lambda time=time: lines(scene, TAKEN) == time)  # type: ignore[misc]
        await scene.guest.until(lambda time=time: len(scene.guest.saw("track_unpublished")) == time)  # type: ignore[misc]
        assert not (await scene.stage.participants(scene.room))["caller"].tracks
        await permit(scene)
        await until(lambda time=time: lines(scene, BACK) == time)  # type: ignore[misc]
        await subscriptions(scene.guest, time + 1)
        scene.guest.heard["caller"].clear()
        await until_caller_heard(scene.guest)
    await scene.call.hangup()
    await scene.assert_all_free(EndReason.CARRIER_HANGUP)


async def test_a_call_that_ends_without_the_right_to_publish_leaves_nothing(
    stage: Stage, room: str, log: list[Any]
) -> None:
    scene = await talking(stage, room, log)
    await permit(scene, can_publish=False)
    await until(lambda: lines(scene, TAKEN) == 1)
    await scene.call.hangup()
    await scene.assert_all_free(EndReason.CARRIER_HANGUP)


async def test_a_caller_who_may_subscribe_again_hears_again(stage: Stage, room: str, log: list[Any]) -> None:
    scene = await talking(stage, room, log)
    await permit(scene, can_subscribe=False)
    await until(lambda: strength(scene.call.heard[-2000:], 900) < 4000 or scene_is_silent(scene))
    await permit(scene)
    before = len(scene.call.heard)
    await until(lambda: len(scene.call.heard) > before + 4000 and strength(scene.call.heard[-2000:], 900) > 4000)


def scene_is_silent(scene: Scene) -> bool:
    return not scene.connector.calls.live()[0].presence.room._sounds._taps  # type: ignore[attr-defined]


async def test_a_caller_muted_by_an_admin_is_silent_until_unmuted_and_the_log_says_so(
    stage: Stage, room: str, log: list[Any]
) -> None:
    scene = await talking(stage, room, log)
    (track,) = (await scene.stage.participants(scene.room))["caller"].tracks
    mute = api.MuteRoomTrackRequest(room=scene.room, identity="caller", track_sid=track.sid, muted=True)
    await scene.stage.admin.room.mute_published_track(mute)
    await until(lambda: lines(scene, "the caller was muted by an admin of the room") == 1)
    await scene.guest.until(lambda: strength(scene.guest.sound_of("caller")[-2000:], 600) < 100)
    mute.muted = False
    await scene.stage.admin.room.mute_published_track(mute)
    await until(lambda: lines(scene, "the caller is no longer muted by an admin of the room") == 1)
    await until_caller_heard(scene.guest)
