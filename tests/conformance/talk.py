"""What is looked for in the room: the agents sent for, and sound from the telephone and back."""

from __future__ import annotations

from livekit import api

from carrier_simulator.call import PhoneCall
from tests.integration.harness import Guest, Stage, strength, tone, until


async def talk_both_ways(guest: Guest, call: PhoneCall, caller: str) -> None:
    """Wait until the caller is in the room, have both say a tone that the other must hear, and hang up."""
    await guest.publish()
    await guest.until(lambda: caller in guest.room.remote_participants)
    await guest.event("track_subscribed", lambda *args: args[2].identity == caller)
    call.say(tone(600, 1.0))
    await guest.until(lambda: strength(guest.sound_of(caller)[-4000:], 600) > 4000)
    guest.start_saying(tone(900, 3.0))
    await until(lambda: strength(call.heard[-2000:], 900) > 4000)
    await call.hangup()
    await guest.event("participant_disconnected", lambda participant: participant.identity == caller)
    assert not call.errors


async def dispatched(stage: Stage, room: str) -> list[tuple[str, str]]:
    """Name and metadata of the agents sent for; LiveKit sends unnamed ones by itself to a guest's room."""
    dispatches: list[api.AgentDispatch] = await stage.admin.agent_dispatch.list_dispatch(room)
    return [(dispatch.agent_name, dispatch.metadata) for dispatch in dispatches if dispatch.agent_name]
