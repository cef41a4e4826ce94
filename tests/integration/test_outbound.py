"""An outbound call from ConnectTwilioCall to the hang-up, in one piece."""

from __future__ import annotations

from livekit import rtc

from connector.model.end_reason import EndReason
from tests.integration.harness import Stage, connect_call, ended, place, strength, tone, until


async def test_a_call_is_hidden_until_answered_and_talks_both_ways(stage: Stage, room: str) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    guest = await stage.guest(room)
    await guest.publish()
    connect_url = await connect_call(stage.client(connector), room)

    assert (await stage.participants(room))["caller"].permission.hidden
    assert not guest.saw("participant_connected")

    call = place(twilio, connect_url)
    (caller,) = await guest.event("participant_connected")
    assert (caller.identity, caller.kind) == ("caller", rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR)

    await guest.event("track_subscribed")
    call.say(tone(600, 5.0))
    await guest.until(lambda: strength(guest.sound_of("caller")[-4000:], 600) > 4000)
    guest.start_saying(tone(900, 5.0))
    await until(lambda: strength(call.heard[-2000:], 900) > 4000)

    await call.hangup()
    await guest.event("participant_disconnected")
    record = await ended(connector)
    assert record.end_reason is EndReason.CARRIER_HANGUP
    assert not call.errors
