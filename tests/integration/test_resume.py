"""Media sockets that break: at each carrier the phone comes back to the same participant, by the carrier's own way."""

from __future__ import annotations

from pathlib import Path

import pytest
from livekit import api

from carrier_simulator import CallStatus, Fault
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.tokens import TokenSigner, stream_named
from tests.integration.carriers import Line, carrier_of, line_at
from tests.integration.harness import PATIENCE, RATE, Stage, ended, only_session, strength, tone, until
from tests.integration.scene import captured_log
from tests.integration.wire import wire_to

EVERY = pytest.mark.parametrize("provider", list(Provider), ids=lambda provider: provider.value)
PUBLIC = "https://voice.example.com"
WITHOUT_REST = {
    Provider.TWILIO: {"twilio_account_sid": ""},
    Provider.TELNYX: {"telnyx_api_key": ""},
    Provider.PLIVO: {"plivo_auth_id": ""},
}
"""Nothing but the way back can bring the phone back, or hang it up."""


async def hears_again(line: Line) -> None:
    """Both directions, after the return."""
    line.guest.start_saying(tone(900, 12))
    line.call.say(tone(600, 12))
    await until(lambda: strength(line.call.heard[-RATE // 4 :], 900) > 2000)
    await line.guest.until(lambda: strength(line.guest.sound_of("caller")[-RATE // 4 :], 600) > 2000)


def has_left(line: Line) -> bool:
    return any(participant.identity == "caller" for (participant,) in line.guest.saw("participant_disconnected"))


async def stream_in_resume_url(line: Line) -> int:
    """The number of the stream in the URL that GetCall gives."""
    path = "/twirp/connector.v1.Connector/GetCall"
    reply = await line.wire.send_json({"call_id": line.session.call_id}, path)
    url = str(reply.document["call"]["resume_url"])
    start = f"{line.connector.settings.public_origin}/{line.provider.value}/"
    token = url.removeprefix(start).removesuffix("/resume")
    assert url == f"{start}{token}/resume"
    call_id, stream = stream_named(TokenSigner(line.connector.settings.own_secrets).peek(token)[0])
    assert call_id == line.session.call_id
    return stream


@EVERY
async def test_a_reset_socket_comes_back_to_the_same_participant(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider, None, **WITHOUT_REST[provider])
    await line.answer()
    assert await stream_in_resume_url(line) == 1
    line.stream.abort()
    await until(lambda: len(line.call.streams) == 2 and line.stream.started.has_come())
    await hears_again(line)
    assert await stream_in_resume_url(line) == 2
    assert not has_left(line)
    assert len(line.call.spoken) == (provider is Provider.TWILIO)  # Nobody is greeted twice.
    await line.call.hangup()
    record = await ended(line.connector)
    assert record.end_reason in (EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED)
    assert [event for event, _ in record.timelog].count("call-answered") == 1
    assert not line.call.errors


@EVERY
async def test_a_call_that_the_room_ends_is_hung_up_without_rest(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider, None, **WITHOUT_REST[provider])
    await line.answer()
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    await line.call.ended.wait(PATIENCE)
    record = await ended(line.connector)
    assert (record.end_reason, line.call.status) == (EndReason.ROOM_DELETED, CallStatus.COMPLETED)
    assert len(line.call.streams) == 1
    assert not line.call.errors


@EVERY
@pytest.mark.parametrize("moment", ["lost", "lives"])
async def test_another_process_takes_the_call(
    stage: Stage, room: str, provider: Provider, moment: str, tmp_path: Path
) -> None:
    """`lives`: only the carrier knows that the stream is lost; the first process still takes it for open."""
    carrier, credentials = carrier_of(provider)
    await stage.enter(carrier)
    settings = {"store": f"sqlite:///{tmp_path / 'shared.db'}", "public_url": PUBLIC, **credentials}
    settings |= {f"{provider.value}_api_url": carrier.base_url, **WITHOUT_REST[provider]}
    first = await stage.connector(instance="first", **settings)
    second = await stage.connector(instance="second", **settings)
    guest = await stage.guest(room)
    await guest.publish()
    line = Line(stage, provider, room, carrier, first, await wire_to(stage, first), guest)
    carrier.web.routes[PUBLIC] = f"http://127.0.0.1:{first.port}"
    await line.answer()
    carrier.web.routes[PUBLIC] = f"http://127.0.0.1:{second.port}"
    if moment == "lost":
        line.stream.abort()
    else:
        line.stream.go_silent(notices_after=0.1)
    await until(lambda: bool(second.calls.live()) and only_session(second).state == "active")
    await until(lambda: line.stream.started.has_come() and not line.stream.ended.has_come())
    await hears_again(line)
    await until(lambda: not first.calls.live())
    await line.call.hangup()
    record = await ended(second)
    assert record.end_reason in (EndReason.CARRIER_HANGUP, EndReason.CARRIER_CLOSED)
    (kept,) = await second.store.list_calls(2)
    assert [event for event, _ in kept.timelog].count("call-hangup") == 1
    # While the first process takes its stream for open, Plivo's own attempts are refused: it comes by the redirect.
    refused = {Fault.STREAM_HANDSHAKE} if (provider, moment) == (Provider.PLIVO, "lives") else set()
    assert {error.code for error in line.call.errors} <= refused


async def test_plivo_opens_the_same_url_again_by_itself(stage: Stage, room: str) -> None:
    line = await line_at(stage, room, Provider.PLIVO)
    await line.answer()
    url = line.stream.url
    line.stream.abort()
    await until(lambda: len(line.call.streams) == 2 and line.stream.started.has_come())
    assert line.stream.url == url
    await hears_again(line)
    assert not line.call.errors


async def test_telnyx_is_told_to_come_back_where_there_is_a_key(stage: Stage, room: str) -> None:
    line = await line_at(stage, room, Provider.TELNYX, telnyx_poll_seconds=600)
    await line.answer()
    line.stream.abort()
    await until(lambda: len(line.call.streams) == 2 and line.stream.started.has_come())
    await hears_again(line)
    assert not line.call.errors


async def test_telnyx_asks_in_vain_while_the_stream_lives(stage: Stage, room: str) -> None:
    with captured_log() as entries:
        line = await line_at(stage, room, Provider.TELNYX, telnyx_poll_seconds=1)
        await line.answer()

        def answers() -> list[str]:
            return [
                entry["verdict"] for entry in entries if entry["event"] == "the carrier has requested the next document"
            ]

        await until(lambda: len(answers()) >= 2)
        assert set(answers()) == {"lives"}
        assert len(line.call.streams) == 1
        await hears_again(line)
        await line.end_by_api()
        await line.call.ended.wait(PATIENCE)
    assert not line.call.errors


async def test_a_stream_in_telnyxs_connect_comes_back_at_once(stage: Stage, room: str) -> None:
    line = await line_at(stage, room, Provider.TELNYX, telnyx_connect_stream=True, telnyx_api_key="")
    await line.answer()
    line.stream.abort()
    await until(lambda: len(line.call.streams) == 2 and line.stream.started.has_come())
    await hears_again(line)
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    await line.call.ended.wait(PATIENCE)
    assert not line.call.errors
