"""The events of calls in real rooms, as somebody who listens is told them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest
from livekit import api

from carrier_simulator import OutboundCall, TwilioSimulator
from connector.app import Connector
from connector.model.call import CallRecord, CallState, Transfer
from connector.model.end_reason import EndReason
from connector.model.webhook import LifecycleEvent
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    PATIENCE,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    until,
)


class Listener:
    """In the place of the webhooks."""

    def __init__(self) -> None:
        self.told: list[tuple[str, CallRecord, dict[str, str]]] = []

    async def happened(self, event: LifecycleEvent, record: CallRecord, details: Mapping[str, str]) -> None:
        self.told.append((event.value, record, dict(details)))

    @property
    def events(self) -> list[str]:
        return [event for event, _, _ in self.told]


def listen(connector: Connector, monkeypatch: pytest.MonkeyPatch, happened: Any = None) -> Listener:
    listener = Listener()
    monkeypatch.setattr(connector.webhooks.lifecycle, "happened", happened or listener.happened)
    return listener


@pytest.fixture
async def twilio(stage: Stage) -> TwilioSimulator:
    return await stage.twilio()


@pytest.fixture
async def connector(stage: Stage, twilio: TwilioSimulator) -> Connector:
    return await stage.connector(twilio_account_sid=twilio.account_sid, twilio_api_url=twilio.base_url)


async def talk(
    stage: Stage, room: str, connector: Connector, twilio: TwilioSimulator, direction: Any = OUTBOUND
) -> OutboundCall:
    call = place(twilio, await connect_call(stage.client(connector), room, direction))
    await until(lambda: [each.state for each in connector.calls.live()] == [CallState.ACTIVE])
    return call


@pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
async def test_a_call_that_is_changed_moved_and_transferred(
    stage: Stage,
    room: str,
    connector: Connector,
    twilio: TwilioSimulator,
    direction: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    listener = listen(connector, monkeypatch)
    await stage.guest(room)
    await talk(stage, room, connector, twilio, direction)
    session = only_session(connector)
    change = api.UpdateParticipantRequest(room=room, identity="caller", attributes={"mood": "good", "topic": "bill"})
    await stage.admin.room.update_participant(change)
    await until(lambda: "call-update" in listener.events)
    await session.switch_room(f"{room}-other")
    await session.transfer(Transfer("+15550001111", timeout=30))
    await session.finished.wait()

    ringing = ["call-ringing"] if direction == OUTBOUND else []
    assert listener.events == [
        "call-started",
        *ringing,
        "call-answered",
        "call-update",
        "call-update",
        "call-transfer-initiated",
        "call-transferring",
        "call-transfer-ringing",
        "call-transfer-accepted",
        "call-transferred",
        "call-hangup",
    ]
    details = [details for _, _, details in listener.told if details]
    assert details == [
        {"change": "attributes", "names": "mood,topic"},
        {"change": "room", "from_room": room, "to_room": f"{room}-other"},
        *[{"to": "+15550001111"}] * 5,
        {"reason": "transferred"},
    ]
    rooms = {event: record.room for event, record, _ in listener.told}
    assert (rooms["call-answered"], rooms["call-hangup"]) == (room, f"{room}-other")
    record = await ended(connector)
    assert [event for event, _ in record.timelog] == listener.events
    assert record.timelog == listener.told[-1][1].timelog


@pytest.mark.parametrize("manner", ["raises", "hangs"])
async def test_a_listener_that_fails_holds_up_no_call(
    stage: Stage,
    room: str,
    connector: Connector,
    twilio: TwilioSimulator,
    manner: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = asyncio.Event()

    async def fail(*_: Any) -> None:
        asked.set()
        if manner == "raises":
            raise ZeroDivisionError
        await asyncio.get_running_loop().create_future()

    listen(connector, monkeypatch, fail)
    guest = await stage.guest(room)
    async with asyncio.timeout(PATIENCE):
        call = await talk(stage, room, connector, twilio)
        await guest.event("track_subscribed")
    assert asked.is_set()
    await call.hangup()
    record = await ended(connector)
    assert record.end_reason is EndReason.CARRIER_HANGUP
    assert [event for event, _ in record.timelog] == ["call-started", "call-ringing", "call-answered", "call-hangup"]
    await stage.gone(room, "caller")
