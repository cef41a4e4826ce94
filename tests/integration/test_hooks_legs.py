"""A carrier call that comes back to a connector's webhook after its stream: a new leg of the same carrier call."""

from __future__ import annotations

import re

import pytest
from livekit import api
from twilio.request_validator import RequestValidator

from carrier_simulator import Answer, Document, Outcome
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from tests.integration.carriers import carrier_of
from tests.integration.harness import TWILIO_TOKEN, Stage, ended, only_session, until
from tests.integration.rest import RestClient

CALLER, CALLED, THIRD = "+15552223333", "+15550001111", "+15557776666"
BUSY = '<Response><Dial action="{url}"><Number>{number}</Number></Dial></Response>'


@pytest.mark.parametrize("provider", Provider)
@pytest.mark.parametrize("how", ["redirect", "busy dial"])
async def test_a_phone_that_is_sent_back_is_a_new_call(stage: Stage, room: str, provider: Provider, how: str) -> None:
    carrier, credentials = carrier_of(provider)
    await stage.enter(carrier)
    connector = await stage.connector(**credentials, **{f"{provider.value}_api_url": carrier.base_url})
    rest = RestClient(await stage.http(), connector)
    made = await rest.connector(provider=provider.value, defaultRoomId=room)
    carrier.script(THIRD, Outcome(Answer.BUSY))
    call = carrier.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await until(lambda: [each.state for each in connector.calls.live()] == [CallState.ACTIVE])
    first = only_session(connector)
    guest = await stage.guest(room)
    # The stream is being taken down as the carrier asks what to do.
    if how == "redirect":
        call.order(Document(made["webhookUrl"]))
    else:
        call.order(Document(inline=BUSY.format(url=made["webhookUrl"], number=THIRD)))
    await until(lambda: first.finished.is_set())
    await until(lambda: [each.state for each in connector.calls.live()] == [CallState.ACTIVE])
    second = only_session(connector)
    assert second.call_id != first.call_id
    assert second.record.carrier_call_id == first.record.carrier_call_id == call.sid
    assert second.record.identity != first.record.identity
    await until(lambda: second.record.identity in guest.room.remote_participants)
    assert (call.spoken, call.is_over) == ([], False)
    await call.hangup()
    await ended(connector, second.call_id)
    assert not call.errors


async def test_a_document_that_goes_on_at_the_webhook_after_the_room_has_ended_the_stream(
    stage: Stage, room: str
) -> None:
    """A customer's own document: the stream of our answer, and behind it a `<Redirect>` in place of ours."""
    twilio = await stage.twilio()
    connector = await stage.connector()
    http = await stage.http()
    url = (await RestClient(http, connector).connector(defaultRoomId=room))["webhookUrl"]
    call = twilio.dial(CALLED, CALLER, Document(inline='<Response><Pause length="3600"/></Response>'))
    await call.answered.wait()
    form = dict(call.form())
    signature = RequestValidator(TWILIO_TOKEN).compute_signature(url, form)
    async with http.post(url, data=form, headers={"X-Twilio-Signature": signature}) as response:
        ours = await response.text()
    call.order(Document(inline=re.sub("<Redirect.*</Redirect>", f"<Redirect>{url}</Redirect>", ours)))
    await until(lambda: [each.state for each in connector.calls.live()] == [CallState.ACTIVE])
    first = only_session(connector)
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    await until(lambda: first.finished.is_set())
    assert first.record.end_reason is EndReason.ROOM_DELETED
    await until(lambda: [each.state for each in connector.calls.live()] == [CallState.ACTIVE])
    second = only_session(connector)
    assert second.call_id != first.call_id
    assert second.record.carrier_call_id == call.sid
    assert second.record.identity in await stage.participants(room)
    # What this one was answered leads to the resume URL after the stream: the room's end is the phone's.
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    await call.finished()
    assert (await ended(connector, second.call_id)).end_reason is EndReason.ROOM_DELETED
    assert (call.spoken, call.errors) == ([], [])
