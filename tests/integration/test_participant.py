"""The caller as the room sees it: when it appears, as what, and what it is called."""

from __future__ import annotations

from typing import Any

import pytest
from livekit import api, rtc

from connector.app import Connector
from connector.model.call import CallState
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    Guest,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    until,
)
from tests.integration.stranger import CALL_SID, FORM, STREAM_SID, fetch, open_socket, start_stream

BOTH = pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
CONNECTOR_KIND = 7
TWILIO_DETAIL = 3


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await stage.connector()


def later_statuses(guest: Guest) -> list[str]:
    """What callStatus changed to after the caller had appeared, as this guest saw it."""
    changes = [args[0] for args in guest.saw("participant_attributes_changed") if args[1].identity == "caller"]
    return [change["connector.callStatus"] for change in changes if "connector.callStatus" in change]


async def test_an_outbound_caller_waits_hidden_and_appears_with_the_stream(
    stage: Stage, room: str, connector: Connector
) -> None:
    guest, http = await stage.guest(room), await stage.http()
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    hidden = (await stage.participants(room))["caller"]
    assert hidden.permission.hidden
    assert hidden.attributes["connector.callStatus"] == "ringing"
    assert len(hidden.tracks) == 0

    await fetch(http, connect_url, FORM)
    socket = await open_socket(http, connect_url)
    await socket.send_str('{"event": "connected", "protocol": "Call", "version": "1.0.0"}')
    # The socket alone is not the answer: what the connector does about it, it has done when this returns.
    assert (await stage.participants(room))["caller"].permission.hidden
    late = await stage.guest(room, "late")
    assert "caller" not in late.room.remote_participants
    await guest.event("participant_connected", lambda participant: participant.identity == "late")
    await socket.close()

    await ended(connector)
    assert [args[0].identity for args in guest.saw("participant_connected")] == ["late"]
    assert not guest.saw("track_published")


async def test_on_start_others_see_the_caller_join_and_publish_one_microphone(
    stage: Stage, room: str, connector: Connector
) -> None:
    guest, http = await stage.guest(room), await stage.http()
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    socket = await open_socket(http, connect_url)
    assert not guest.saw("participant_connected")
    await start_stream(socket)
    (caller,) = await guest.event("participant_connected")
    assert caller.identity == "caller"
    publication, publisher = await guest.event("track_published")
    assert publisher.identity == "caller"
    assert publication.source == rtc.TrackSource.SOURCE_MICROPHONE
    assert publication.kind == rtc.TrackKind.KIND_AUDIO
    call = only_session(connector)
    await until(lambda: call.state is CallState.ACTIVE)
    seen = (await stage.participants(room))["caller"]
    assert not seen.permission.hidden
    assert [(track.type, track.source, track.muted) for track in seen.tracks] == [
        (api.TrackType.AUDIO, api.TrackSource.MICROPHONE, False)
    ]
    await socket.close()
    await ended(connector)
    assert len(guest.saw("track_published")) == 1
    assert len(guest.saw("participant_connected")) == 1


async def test_an_inbound_caller_is_nowhere_before_the_stream_starts(
    stage: Stage, room: str, connector: Connector
) -> None:
    http = await stage.http()
    connect_url = await connect_call(stage.client(connector), room, INBOUND)
    assert room not in await stage.rooms()
    await fetch(http, connect_url, FORM)
    socket = await open_socket(http, connect_url)
    await socket.send_str('{"event": "connected", "protocol": "Call", "version": "1.0.0"}')
    assert room not in await stage.rooms()
    guest = await stage.guest(room)
    assert (await stage.participants(room)).keys() == {"guest"}
    await socket.close()
    await ended(connector)
    assert (await stage.participants(room)).keys() == {"guest"}
    assert not guest.saw("participant_connected")


async def test_an_inbound_caller_joins_visible_with_its_track(stage: Stage, room: str, connector: Connector) -> None:
    guest, twilio = await stage.guest(room), await stage.twilio()
    call = place(twilio, await connect_call(stage.client(connector), room, INBOUND))
    (caller,) = await guest.event("participant_connected")
    assert caller.attributes["connector.callStatus"] == "active"
    await guest.event("track_subscribed")
    assert not (await stage.participants(room))["caller"].permission.hidden
    await call.hangup()
    await guest.event("participant_disconnected")


@BOTH
async def test_it_is_a_connector_of_twilios_with_all_that_was_asked(
    stage: Stage, room: str, connector: Connector, direction: Any
) -> None:
    guest, twilio = await stage.guest(room), await stage.twilio()
    connect_url = await connect_call(
        stage.client(connector),
        room,
        direction,
        participant_identity="sip_+15551234567",
        participant_name="Ada Löwe",
        participant_metadata='{"plan": "gold"}',
        participant_attributes={"account": "42", "lang": "de"},
    )
    call = place(twilio, connect_url)
    (caller,) = await guest.event("participant_connected")
    assert (caller.identity, caller.name, caller.metadata) == ("sip_+15551234567", "Ada Löwe", '{"plan": "gold"}')
    assert caller.kind == rtc.ParticipantKind.PARTICIPANT_KIND_CONNECTOR
    assert {"account": "42", "lang": "de"}.items() <= caller.attributes.items()
    listed = (await stage.participants(room))["sip_+15551234567"]
    assert (listed.kind, list(listed.kind_details)) == (CONNECTOR_KIND, [TWILIO_DETAIL])
    await call.hangup()


@BOTH
async def test_its_attributes_are_the_documented_ones(
    stage: Stage, room: str, connector: Connector, direction: Any
) -> None:
    guest, http = await stage.guest(room), await stage.http()
    connect_url = await connect_call(stage.client(connector), room, direction, participant_attributes={"mine": "1"})
    session = only_session(connector)
    await fetch(http, connect_url, FORM)
    socket = await open_socket(http, connect_url)
    await start_stream(socket, parameters={"tier": "gold", "Ünïcode": "ja"})
    (caller,) = await guest.event("participant_connected")
    assert caller.attributes == {
        "mine": "1",
        "connector.callId": session.call_id,
        "connector.provider": "twilio",
        "connector.direction": "inbound" if direction == INBOUND else "outbound",
        "connector.callStatus": "active",
        "phone.number": "+15557654321" if direction == INBOUND else "+15551234567",
        "phone.from": "+15557654321",
        "phone.to": "+15551234567",
        "twilio.callSid": CALL_SID,
        "twilio.accountSid": "AC" + "3" * 32,
        "twilio.streamSid": STREAM_SID,
        "twilio.param.tier": "gold",
        "twilio.param.Ünïcode": "ja",
    }
    await socket.close()


@BOTH
async def test_a_stream_parameter_cannot_speak_for_the_connector(
    stage: Stage, room: str, connector: Connector, direction: Any
) -> None:
    guest, http = await stage.guest(room), await stage.http()
    connect_url = await connect_call(stage.client(connector), room, direction)
    socket = await open_socket(http, connect_url)
    await start_stream(socket, parameters={"connector.callStatus": "hangup", "../phone.from": "+1"})
    (caller,) = await guest.event("participant_connected")
    assert caller.attributes["connector.callStatus"] == "active"
    assert "phone.from" not in caller.attributes
    await socket.close()


@BOTH
async def test_more_parameters_than_livekit_takes_do_not_keep_the_caller_out(
    stage: Stage, room: str, connector: Connector, direction: Any
) -> None:
    guest, http = await stage.guest(room), await stage.http()
    connect_url = await connect_call(
        stage.client(connector), room, direction, participant_attributes={"mine": "v" * (60 * 1024 - 4)}
    )
    socket = await open_socket(http, connect_url)
    await start_stream(socket, parameters={f"p{n}": "v" * 400 for n in range(20)})
    (caller,) = await guest.event("participant_connected")
    assert len(caller.attributes["mine"]) == 60 * 1024 - 4
    assert caller.attributes["connector.callStatus"] == "active"
    await socket.close()
    await guest.event("participant_disconnected")
    assert later_statuses(guest) == ["hangup"]


@BOTH
async def test_the_call_status_is_true_from_ringing_to_hangup(
    stage: Stage, room: str, connector: Connector, direction: Any
) -> None:
    guest, twilio = await stage.guest(room), await stage.twilio()
    connect_url = await connect_call(stage.client(connector), room, direction)
    if direction == OUTBOUND:
        assert (await stage.participants(room))["caller"].attributes["connector.callStatus"] == "ringing"
    call = place(twilio, connect_url)
    (caller,) = await guest.event("participant_connected")
    assert caller.attributes["connector.callStatus"] == "active"
    assert (await stage.participants(room))["caller"].attributes["connector.callStatus"] == "active"
    await guest.event("track_subscribed")
    await call.hangup()
    await guest.event("participant_disconnected")
    assert later_statuses(guest) == ["hangup"]
    assert [name for name, _ in guest.events if name.startswith("participant")] == [
        "participant_connected",
        "participant_attributes_changed",
        "participant_disconnected",
    ]


async def test_the_requests_own_attributes_outlive_the_reveal(stage: Stage, room: str, connector: Connector) -> None:
    guest, http = await stage.guest(room), await stage.http()
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND, participant_attributes={"mine": "1"})
    socket = await open_socket(http, connect_url)
    await start_stream(socket)
    (caller,) = await guest.event("participant_connected")
    assert caller.attributes["mine"] == "1"
    permission = (await stage.participants(room))["caller"].permission
    assert permission.can_publish
    assert permission.can_subscribe
    assert permission.can_publish_data
    assert permission.can_update_metadata
    await socket.close()


async def test_callers_without_an_identity_get_one_each(stage: Stage, room: str, connector: Connector) -> None:
    client = stage.client(connector)
    for _ in range(3):
        await connect_call(client, room, OUTBOUND, participant_identity="")
    identities = (await stage.participants(room)).keys()
    assert len(identities) == 3
    assert all(identity.startswith("twilio_") for identity in identities)


async def test_two_calls_share_a_room(stage: Stage, room: str, connector: Connector) -> None:
    guest, twilio, client = await stage.guest(room), await stage.twilio(), stage.client(connector)
    outbound = place(twilio, await connect_call(client, room, OUTBOUND, participant_identity="one"))
    inbound = place(twilio, await connect_call(client, room, INBOUND, participant_identity="two"))
    await guest.event("track_subscribed", lambda *args: args[2].identity == "one")
    await guest.event("track_subscribed", lambda *args: args[2].identity == "two")
    await outbound.hangup()
    await guest.event("participant_disconnected", lambda participant: participant.identity == "one")
    assert (await stage.participants(room)).keys() == {"guest", "two"}
    await inbound.hangup()
    await guest.event("participant_disconnected", lambda participant: participant.identity == "two")
