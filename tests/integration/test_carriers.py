"""The same call over each of the three carriers: sound, digits, marks, clears, and the end from either side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
import pytest
from livekit import api

from carrier_simulator import Answer, Callback, CallOptions, CallStatus, Outcome
from carrier_simulator.faults import Refused
from connector.audio import dtmf
from connector.call.registry.control import TransferWish
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from demo import script
from tests.integration.carriers import (
    CALLEE,
    HANGS_UP,
    OURS,
    Line,
    carrier_of,
    line_at,
    phone_says,
    room_says,
    speech_passes,
)
from tests.integration.ears import PATIENCE
from tests.integration.harness import RATE, Stage, ended, strength, tone, until
from tests.integration.rest import RestClient
from tests.integration.test_media_dtmf import digits, send, send_clear, sounds, tones

THIRD = "+15550009999"


@pytest.fixture(params=list(Provider), ids=lambda provider: provider.value)
def provider(request: pytest.FixtureRequest) -> Provider:
    which: Provider = request.param
    return which


@pytest.fixture
async def line(stage: Stage, room: str, provider: Provider) -> Line:
    line = await line_at(stage, room, provider)
    await line.answer()
    return line


async def test_what_the_phone_says_is_what_the_room_hears(line: Line) -> None:
    sentence = await asyncio.to_thread(script.sentence)
    assert await speech_passes(sentence, lambda: phone_says(line, sentence), lambda: line.guest.sound_of("caller"))
    assert not line.call.errors


async def test_what_the_room_says_is_what_the_phone_hears(line: Line) -> None:
    greeting = await asyncio.to_thread(script.greeting)
    assert await speech_passes(greeting, lambda: room_says(line, greeting), lambda: line.call.heard)
    assert not line.call.errors


async def test_nothing_that_the_room_says_comes_back_to_it(line: Line) -> None:
    """At Telnyx it does come back to the connector, as a track of its own: to be known by its name alone."""
    line.guest.start_saying(tone(900, 12))
    line.call.say(tone(600, 12))
    await until(lambda: strength(line.call.heard[-RATE // 4 :], 900) > 4000, PATIENCE)
    await line.guest.until(lambda: strength(line.guest.sound_of("caller")[-RATE // 2 :], 600) > 4000, PATIENCE)
    before = len(line.guest.sound_of("caller"))
    await line.guest.until(lambda: len(line.guest.sound_of("caller")) > before + RATE)
    assert strength(line.guest.sound_of("caller")[before:], 900) < 100
    echoes = line.stream.sent_echoes
    assert (echoes > 50) == (line.provider is Provider.TELNYX)
    # It is no loss: who looks for one must not find it there.
    assert line.connector.metrics.dropped.labels("from_carrier", "wrong_track")._value.get() == 0


async def test_every_key_of_the_phone_reaches_the_room_in_order(line: Line) -> None:
    keys = "0123456789*#"
    await line.call.press(keys)
    await line.guest.until(lambda: len(line.guest.saw("sip_dtmf_received")) == len(keys))
    received = [event for (event,) in line.guest.saw("sip_dtmf_received")]
    assert [(event.digit, event.code) for event in received] == [(key, dtmf.event_code(key)) for key in keys]
    assert {event.participant.identity for event in received} == {"caller"}


async def test_every_digit_of_the_room_is_a_tone_in_the_callers_ear(line: Line) -> None:
    for digit in "159#":
        await send(line.guest, digit)
    await until(lambda: len(tones(line.call.heard)) >= 4)
    await until(lambda: line.stream.buffered == 0)
    assert digits(line.call.heard) == "159#"
    assert line.stream.received_digits == ""


async def test_marks_tell_how_far_playback_has_come(line: Line) -> None:
    line.guest.start_saying(tone(900, 12))
    await until(lambda: lag(line, "count") >= 2, PATIENCE)
    assert line.stream.received_marks >= 2
    assert 0 < lag(line, "sum") / lag(line, "count") < 1
    assert not line.call.errors


def lag(line: Line, what: str) -> float:
    (family,) = line.connector.metrics.playback_lag.collect()
    (value,) = [sample.value for sample in family.samples if sample.name.endswith(what)]
    return float(value)


async def test_a_clear_drops_what_the_phone_has_yet_to_hear_and_the_line_is_free_at_once(line: Line) -> None:
    for _ in range(16):
        await send(line.guest, "7")
    await until(lambda: line.stream.buffered > 1)
    await send_clear(line.guest)
    await until(lambda: line.stream.received_clears == 1)
    assert line.stream.buffered < 0.3
    cleared = len(line.call.heard)
    await send(line.guest, "8")
    await until(lambda: sounds(line.call.heard, "8"))
    assert digits(line.call.heard[cleared:]).count("7") <= 2
    # Marks that the clear took with it do not hold up those that follow.
    seen = lag(line, "count")
    line.guest.start_saying(tone(900, 12))
    await until(lambda: lag(line, "count") > seen, PATIENCE)
    assert not line.call.errors


# Ends


async def deletes_the_room(line: Line) -> None:
    await line.stage.admin.room.delete_room(api.DeleteRoomRequest(room=line.room))


async def removes_the_caller(line: Line) -> None:
    who = api.RoomParticipantIdentity(room=line.room, identity="caller")
    await line.stage.admin.room.remove_participant(who)


async def asks_the_api(line: Line) -> None:
    await line.end_by_api()


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (deletes_the_room, EndReason.ROOM_DELETED),
        (removes_the_caller, EndReason.PARTICIPANT_REMOVED),
        (asks_the_api, EndReason.ENDED_BY_API),
    ],
    ids=["room deleted", "participant removed", "EndCall"],
)
async def test_when_the_call_ends_here_the_phone_is_hung_up(
    line: Line, act: Callable[[Line], Awaitable[None]], reason: EndReason
) -> None:
    await act(line)
    record = await ended(line.connector)
    await line.call.ended.wait()
    assert (record.end_reason, line.call.status) == (reason, CallStatus.COMPLETED)
    assert not line.call.errors


async def test_a_sentence_is_heard_before_the_phone_is_hung_up(line: Line) -> None:
    sentence = 'Nobody is here: "please" <try> again & again.'
    line.session.end(EndReason.MAX_DURATION, say=sentence)
    record = await ended(line.connector)
    await line.call.ended.wait()
    assert line.call.spoken[-1] == sentence
    assert (record.end_reason, line.call.status) == (EndReason.MAX_DURATION, CallStatus.COMPLETED)
    assert not line.call.errors


async def test_when_the_phone_hangs_up_the_caller_leaves(line: Line) -> None:
    call_id = line.session.call_id
    await line.call.hangup()
    await line.guest.event("participant_disconnected")
    record = await ended(line.connector, call_id)
    assert record.end_reason is HANGS_UP[line.provider]
    assert (record.carrier_call_id, record.from_number, record.to_number) == (line.call.sid, OURS, CALLEE)
    assert "caller" not in await line.stage.participants(line.room)


async def test_a_connection_that_breaks_ends_the_call_here_and_there(
    stage: Stage, room: str, provider: Provider
) -> None:
    """Where lost streams are not waited for; that they come back otherwise is in test_resume.py."""
    line = await line_at(stage, room, provider, resume_grace=0)
    await line.answer()
    line.stream.abort()
    record = await ended(line.connector)
    assert record.end_reason is EndReason.CARRIER_LOST
    await line.call.ended.wait()


async def test_a_transferred_phone_talks_to_somebody_else_until_they_hang_up(line: Line) -> None:
    line.carrier.script(THIRD, Outcome(talks=0.2))
    await line.connector.control.transfer(line.session.call_id, TransferWish(THIRD))
    await line.call.transferred.wait()
    assert [target.address for target in line.call.dialled] == [THIRD]
    await line.call.ended.wait()
    record = await ended(line.connector)
    assert (record.end_reason, line.call.status) == (EndReason.TRANSFERRED, CallStatus.COMPLETED)
    assert not line.call.errors


@pytest.mark.parametrize("answer", [Answer.BUSY, Answer.NO_ANSWER, Answer.FAILED])
async def test_a_phone_that_reached_nobody_is_back_with_the_room(line: Line, answer: Answer) -> None:
    line.carrier.script(THIRD, Outcome(answer))
    participant = next(iter(line.guest.room.remote_participants.values()))
    record = await line.connector.control.transfer(line.session.call_id, TransferWish(THIRD, timeout=5), wait=True)
    assert (record.state, record.transfer_to, record.transfer_status) == (CallState.ACTIVE, THIRD, answer.value)
    await until(lambda: len(line.call.streams) == 2)
    await until(lambda: participant.attributes["connector.callStatus"] == "active")
    # The same participant all the while, and both hear each other again.
    assert list(line.guest.room.remote_participants.values()) == [participant]
    await send(line.guest, "1")
    await until(lambda: bool(tones(line.call.heard)))
    await line.call.hangup()
    assert (await ended(line.connector)).end_reason is HANGS_UP[line.provider]
    assert not line.call.errors


async def test_a_caller_who_hangs_up_while_the_number_rings_has_hung_up(line: Line) -> None:
    line.carrier.script(THIRD, Outcome(after=30))
    await line.connector.control.transfer(line.session.call_id, TransferWish(THIRD))
    await until(lambda: line.stream.ended.has_come())
    await until(lambda: bool(line.call.dialled))
    await line.call.hangup()
    assert (await ended(line.connector)).end_reason is EndReason.CARRIER_HANGUP
    await line.guest.event("participant_disconnected")
    assert not line.call.errors


async def test_a_second_stream_of_a_call_is_refused(line: Line) -> None:
    with pytest.raises(Refused, match="HTTP 4"):
        await line.carrier.web.open_stream(line.stream.url)
    await send(line.guest, "1")
    await until(lambda: bool(tones(line.call.heard)))


# Signatures


async def test_a_document_asked_for_with_a_wrong_signature_is_refused(
    stage: Stage, room: str, provider: Provider
) -> None:
    line = await line_at(stage, room, provider)
    line.carrier.web.signing_token = "somebody else's"
    call = line.carrier.call_in(await line.connect("INBOUND"), OURS, CALLEE)
    await call.ended.wait()
    assert "HTTP 403" in call.errors[0].message
    assert not call.streams


# A number that points at a connector's webhook


async def inbound(line: Line, webhook: str) -> None:
    line.phone = line.carrier.call_in(webhook, OURS, CALLEE)
    await line.talks()


async def rest_of(line: Line) -> RestClient:
    return RestClient(await line.stage.http(), line.connector)


async def test_a_number_whose_webhook_is_a_connectors_reaches_its_room(
    stage: Stage, room: str, provider: Provider
) -> None:
    line = await line_at(stage, room, provider)
    made = await (await rest_of(line)).connector(provider=provider.value, defaultRoomId=room)
    await inbound(line, made["webhookUrl"])
    assert line.session.record.from_number == OURS
    assert line.session.record.to_number == CALLEE
    (identity,) = [who for who in await stage.participants(room) if who != "guest"]
    line.call.say(tone(600, 10))
    await line.guest.until(lambda: strength(line.guest.sound_of(identity)[-RATE // 2 :], 600) > 4000, PATIENCE)
    await line.call.hangup()
    record = await ended(line.connector)
    assert (record.end_reason, line.call.errors) == (HANGS_UP[provider], [])


async def test_the_report_of_a_calls_end_at_the_same_address_is_no_new_call(
    stage: Stage, room: str, provider: Provider
) -> None:
    line = await line_at(stage, room, provider)
    made = await (await rest_of(line)).connector(provider=provider.value, defaultRoomId=room)
    webhook = made["webhookUrl"]
    line.phone = line.carrier.call_in(webhook, OURS, CALLEE, callback=Callback(webhook))
    await line.talks()
    await line.call.hangup()
    await line.call.finished()
    await ended(line.connector)
    assert not line.call.errors
    assert len(await line.connector.store.list_calls()) == 1


async def test_a_blocked_caller_is_rejected_and_nobody_pays(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider)
    rest = await rest_of(line)
    rule: Any = await rest.rule(phoneNumbers=[CALLEE], blockedNumbers=["+1555*"], blockWithheld=True)
    made = await rest.connector(provider=provider.value, defaultRuleId=rule["id"])
    for caller in (OURS, "anonymous"):
        call = line.carrier.call_in(made["webhookUrl"], caller, CALLEE)
        await call.ended.wait()
        assert not call.answered.has_come()
        assert (call.spoken, call.streams, call.errors) == ([], [], [])
    assert await line.connector.store.list_calls() == []


async def test_a_pin_is_asked_for_before_the_caller_joins(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider)
    rest = await rest_of(line)
    rule: Any = await rest.rule(phoneNumbers=[CALLEE], room={"type": "static", "id": room, "pin": "4711"})
    made = await rest.connector(provider=provider.value, defaultRuleId=rule["id"])
    line.phone = line.carrier.call_in(made["webhookUrl"], OURS, CALLEE)
    await line.call.enter("1234")
    assert list(await stage.participants(room)) == ["guest"]
    await line.call.enter("4711")
    await line.talks()
    assert line.session.record.rule_id == rule["id"]
    assert not line.call.errors


async def test_a_caller_who_presses_nothing_is_asked_three_times_and_refused(
    stage: Stage, room: str, provider: Provider
) -> None:
    line = await line_at(stage, room, provider, world={"options": CallOptions(gather_seconds=0.1)})
    rest = await rest_of(line)
    rule: Any = await rest.rule(phoneNumbers=[CALLEE], room={"type": "static", "id": room, "pin": "4711"})
    made = await rest.connector(provider=provider.value, defaultRuleId=rule["id"])
    call = line.carrier.call_in(made["webhookUrl"], OURS, CALLEE)
    await call.ended.wait()
    assert len(call.spoken) == 4
    assert (call.streams, call.errors) == ([], [])
    assert list(await stage.participants(room)) == ["guest"]


async def test_a_webhook_with_a_wrong_signature_is_refused(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider)
    made = await (await rest_of(line)).connector(provider=provider.value, defaultRoomId=room)
    line.carrier.web.signing_token = None
    call = line.carrier.call_in(made["webhookUrl"], OURS, CALLEE)
    await call.ended.wait()
    assert "HTTP 403" in call.errors[0].message


async def test_a_call_that_nothing_routes_is_refused_politely(stage: Stage, room: str, provider: Provider) -> None:
    line = await line_at(stage, room, provider)
    made = await (await rest_of(line)).connector(provider=provider.value)
    call = line.carrier.call_in(made["webhookUrl"], OURS, CALLEE)
    await call.ended.wait()
    assert call.spoken
    assert not call.errors
    assert not call.streams


def test_the_suite_has_a_simulator_for_every_carrier() -> None:
    assert [carrier_of(provider)[0].dialect.name.lower() for provider in Provider] == list(Provider)
    assert len(np.unique([carrier_of(provider)[0].dialect.call_id() for provider in Provider])) == len(Provider)
