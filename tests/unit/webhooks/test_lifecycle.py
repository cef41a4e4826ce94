"""From an event of a call to what is put into the queue."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from connector.api.rest.call_operations import as_json
from connector.errors import Unavailable
from connector.model.call import CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.webhook import LifecycleEvent
from connector.webhooks.lifecycle import SAVE_AGAIN, LifecycleWebhooks
from tests.captured_logs import captured_logs, lines_of
from tests.unit.call.virtual_time import virtual_time
from tests.unit.webhooks.fakes import FakeEndpoints, FakeQueue, endpoint

RECORD = CallRecord(
    call_id="call_1",
    provider=Provider.TELNYX,
    direction=Direction.INBOUND,
    room="lobby",
    identity="sip_+15550001111",
    state=CallState.ENDED,
    owner="here",
    created_at=1_700_000_000.0,
    carrier_call_id="v3:abc",
    from_number="+15550001111",
    to_number="+15550002222",
    started_at=1_700_000_001.5,
    ended_at=1_700_000_011.75,
    end_reason=EndReason.CARRIER_HANGUP,
    rule_id="rule_1",
    connector_id="cn_1",
    region="eu",
    timelog=(
        ("call-started", 1_700_000_000.25),
        ("call-update", 1_700_000_005.0),
        ("call-hangup", 1_700_000_011.75),
    ),
)


class Stage:
    def __init__(self, *names: str, events: tuple[LifecycleEvent, ...] = tuple(LifecycleEvent)) -> None:
        self.endpoints = FakeEndpoints({name: endpoint(name, events) for name in names})
        self.queue = FakeQueue()
        self.woken = 0
        self.webhooks = LifecycleWebhooks(self.endpoints, self.queue, as_json, self._wake, lambda: 1_700_000_020.0)

    def _wake(self) -> None:
        self.woken += 1

    def bodies(self) -> list[dict[str, object]]:
        return [json.loads(one.body) for one in self.queue.waiting]


async def test_the_body_has_everything_that_is_known() -> None:
    stage = Stage("a")
    await stage.webhooks.happened(LifecycleEvent.HANGUP, RECORD, {"why_it": "test"})
    (delivery,), (body,) = stage.queue.waiting, stage.bodies()
    assert body == {
        "webhookType": "call-hangup",
        "id": delivery.id,
        "createdAt": "2023-11-14T22:13:31.750Z",
        "data": {
            "id": "call_1",
            "callId": "call_1",
            "type": "inbound",
            "provider": "telnyx",
            "ruleId": "rule_1",
            "connectorId": "cn_1",
            "roomId": "lobby",
            "participantId": "sip_+15550001111",
            "to": "+15550002222",
            "from": "+15550001111",
            "status": "ended",
            "region": "eu",
            "start": "2023-11-14T22:13:20.000Z",
            "end": "2023-11-14T22:13:31.750Z",
            "endReason": "carrier_hangup",
            "transferTo": None,
            "transferStatus": None,
            "timelog": [
                {"status": "incoming", "timestamp": "2023-11-14T22:13:20.250Z"},
                {"status": "ended", "timestamp": "2023-11-14T22:13:31.750Z"},
            ],
            "providerCallId": "v3:abc",
            "answeredAt": "2023-11-14T22:13:21.500Z",
            "durationSeconds": 10.25,
            "additionalDetails": {"whyIt": "test"},
        },
    }
    assert (delivery.endpoint_id, delivery.call_id, delivery.event) == ("a", "call_1", LifecycleEvent.HANGUP)
    assert stage.woken == 1


async def test_what_is_not_known_is_null() -> None:
    stage = Stage("a")
    record = CallRecord("c", Provider.TWILIO, Direction.OUTBOUND, "r", "i", CallState.PENDING, "o", 1.0)
    await stage.webhooks.happened(LifecycleEvent.STARTED, record, {})
    data = stage.bodies()[0]["data"]
    assert isinstance(data, dict)
    unknown = ("connectorId", "ruleId", "region", "providerCallId", "answeredAt", "end", "durationSeconds", "endReason")
    assert [data[key] for key in unknown] == [None] * len(unknown)
    assert stage.bodies()[0]["createdAt"] == "2023-11-14T22:13:40.000Z"


async def test_only_endpoints_that_want_the_event_get_it_each_under_its_own_id() -> None:
    stage = Stage("a", "b", events=(LifecycleEvent.ANSWERED,))
    await stage.webhooks.happened(LifecycleEvent.STARTED, RECORD, {})
    assert (stage.queue.waiting, stage.woken) == ([], 0)
    await stage.webhooks.happened(LifecycleEvent.ANSWERED, RECORD, {})
    assert [one.endpoint_id for one in stage.queue.waiting] == ["a", "b"]
    assert len({one.id for one in stage.queue.waiting}) == 2


async def test_a_move_and_a_transfer_say_so() -> None:
    stage = Stage("a")
    live = replace(RECORD, state=CallState.ACTIVE)
    details = {"change": "room", "from_room": "lobby", "to_room": "office"}
    await stage.webhooks.happened(LifecycleEvent.UPDATE, live, details)
    await stage.webhooks.happened(LifecycleEvent.UPDATE, live, {"change": "attributes", "names": "a,b"})
    await stage.webhooks.happened(LifecycleEvent.TRANSFERRED, live, {"to": "+15550003333"})
    data: list[Any] = [body["data"] for body in stage.bodies()]
    assert data[0]["additionalDetails"] == {"change": "room", "fromRoom": "lobby", "toRoom": "office"}
    assert [each["status"] for each in data] == ["switch-room-completed", "answered", "transferred"]


@virtual_time
async def test_while_the_store_fails_events_wait_in_order() -> None:
    stage = Stage("a")
    stage.queue.broken = True
    with captured_logs() as log:
        await stage.webhooks.happened(LifecycleEvent.STARTED, RECORD, {})
        stage.queue.broken = False
        # The store is well again, but the one before it is not saved yet.
        await stage.webhooks.happened(LifecycleEvent.ANSWERED, RECORD, {})
        assert stage.queue.waiting == []
        await asyncio.sleep(SAVE_AGAIN + 0.1)
        await stage.webhooks.happened(LifecycleEvent.HANGUP, RECORD, {})
    assert [one.event.value for one in stage.queue.waiting] == ["call-started", "call-answered", "call-hangup"]
    assert "+1555" not in log.getvalue()
    await stage.webhooks.close()


@virtual_time
async def test_a_put_whose_success_was_not_heard_of_does_not_deliver_twice() -> None:
    stage = Stage("a")
    put = stage.queue.put

    async def put_and_lose_the_answer(deliveries: object) -> None:
        await put(deliveries)  # type: ignore[arg-type]
        stage.queue.put = put  # type: ignore[method-assign]
        stage.queue.broken = False
        raise Unavailable("no answer")

    stage.queue.put = put_and_lose_the_answer  # type: ignore[method-assign]
    await stage.webhooks.happened(LifecycleEvent.STARTED, RECORD, {})
    await asyncio.sleep(SAVE_AGAIN + 0.1)
    assert len(stage.queue.waiting) == 1
    await stage.webhooks.close()


@virtual_time
async def test_an_event_for_which_the_call_does_not_wait_any_longer_is_kept() -> None:
    stage = Stage("a")
    put, slow = stage.queue.put, asyncio.Event()

    async def put_slowly(deliveries: object) -> None:
        await slow.wait()
        await put(deliveries)  # type: ignore[arg-type]

    stage.queue.put = put_slowly  # type: ignore[method-assign]
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(2):
            await stage.webhooks.happened(LifecycleEvent.STARTED, RECORD, {})
    await stage.webhooks.happened(LifecycleEvent.HANGUP, RECORD, {})
    slow.set()
    await asyncio.sleep(SAVE_AGAIN + 0.1)
    assert [one.event.value for one in stage.queue.waiting] == ["call-started", "call-hangup"]
    await stage.webhooks.close()


@virtual_time
async def test_closing_saves_what_waits_or_says_what_is_lost() -> None:
    stage = Stage("a")
    stage.endpoints.broken = True
    with captured_logs() as log:
        await stage.webhooks.happened(LifecycleEvent.STARTED, RECORD, {})
        stage.endpoints.broken = False
        await stage.webhooks.close()
        assert len(stage.queue.waiting) == 1
        stage.queue.broken = True
        await stage.webhooks.happened(LifecycleEvent.HANGUP, RECORD, {})
        await stage.webhooks.close()
    (lost,) = [line for line in lines_of(log) if line["event"] == "webhooks are lost: the store fails"]
    assert lost["webhooks"] == 1
