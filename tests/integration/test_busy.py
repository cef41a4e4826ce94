"""Calls that get no turn to join: whoever calls hears that all lines are busy, and whoever asks the API is told so."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from carrier_simulator import Document, TelnyxSimulator
from connector.app import Connector
from connector.call.dependencies import BUSY
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.room import admission
from connector.telephony import telnyx
from tests.integration.carriers import CALLEE, OURS, Line, carrier_of, line_at
from tests.integration.harness import Stage, ended
from tests.integration.rest import RestClient
from tests.integration.wire import JSON

ONE_AT_A_TIME: dict[str, Any] = {"joins_at_once": 1, "join_wait": 0.2}


@pytest.fixture(autouse=True)
def _joins_may_take_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "SLOT_LIMIT", 1000.0)


def another_joins(connector: Connector) -> AbstractAsyncContextManager[None]:
    return connector.joins.live_call("another")


async def _is_refused(line: Line) -> None:
    """An inbound call whose document was asked for in time, and whose stream starts among too many others."""
    url = await line.connect("INBOUND")
    async with another_joins(line.connector):
        phone = line.carrier.dial(CALLEE, OURS, Document(url))
        await phone.finished()
    record = await ended(line.connector)
    assert record.end_reason is EndReason.OVERLOADED
    assert (phone.spoken, phone.errors) == ([BUSY], [])
    assert "caller" not in await line.stage.participants(line.room)


@pytest.mark.parametrize("provider", Provider)
async def test_an_inbound_stream_that_gets_no_turn_hears_the_busy_sentence(
    stage: Stage, room: str, provider: Provider
) -> None:
    line = await line_at(stage, room, provider, **ONE_AT_A_TIME, greeting="")
    await _is_refused(line)


async def test_a_phone_that_only_call_control_knows_hears_it_too_and_is_hung_up(
    stage: Stage, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(telnyx, "_SPEECH_BEGINS", 0.5)
    monkeypatch.setattr(telnyx, "_CHARACTERS_A_SECOND", 1e6)
    line = await line_at(stage, room, Provider.TELNYX, **ONE_AT_A_TIME, greeting="")
    assert isinstance(line.carrier, TelnyxSimulator)
    line.carrier.knows_texml = False
    await _is_refused(line)


@pytest.mark.parametrize("provider", Provider)
async def test_a_call_at_a_webhook_among_too_many_others_hears_it_before_there_is_a_stream(
    stage: Stage, room: str, provider: Provider, log: list[Any]
) -> None:
    carrier, credentials = carrier_of(provider)
    await stage.enter(carrier)
    connector = await stage.connector(**credentials, **ONE_AT_A_TIME)
    made = await RestClient(await stage.http(), connector).connector(provider=provider.value, defaultRoomId=room)
    async with another_joins(connector):
        phone = carrier.inbound_call(made["webhookUrl"], to=OURS, from_=CALLEE)
        await phone.finished()
    assert (phone.spoken, phone.errors, phone.streams) == ([BUSY], [], [])
    assert not await connector.store.list_calls()
    (line,) = [line for line in log if line["event"] == "incoming call refused"]
    assert line["reason"].startswith("too many calls begin at once")


@pytest.mark.parametrize("direction", ["INBOUND", "OUTBOUND"])
async def test_who_asks_for_a_connect_url_among_too_many_others_is_told_so(
    stage: Stage, room: str, direction: str
) -> None:
    line = await line_at(stage, room, Provider.TWILIO, **ONE_AT_A_TIME)
    fields = {"twilio_call_direction": f"TWILIO_CALL_DIRECTION_{direction}", "room_name": room}
    async with another_joins(line.connector):
        reply = await line.wire.send_json(fields, "/twirp/livekit.Connector/ConnectTwilioCall")
    assert (reply.status, reply.content_type) == (429, JSON)
    assert reply.document["code"] == "resource_exhausted"
    assert not await line.connector.store.list_calls()
