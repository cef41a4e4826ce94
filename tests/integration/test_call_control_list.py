"""ListCalls over every transport: every filter alone and together, and pages that lose and repeat nothing."""

from __future__ import annotations

import base64
import struct
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from connector.app import Connector
from connector.model.call import CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connectorpb.v1 import connector_pb2 as pb
from tests.integration.harness import Stage, connect_call, only_session
from tests.integration.rpc import TRANSPORTS, Rpc, RpcFailed, grpc_connector, rpc_over

NOON = 1_790_000_000.0


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await grpc_connector(stage)


@pytest.fixture(params=TRANSPORTS)
async def rpc(request: pytest.FixtureRequest, stage: Stage, connector: Connector) -> AsyncIterator[Rpc]:
    async with rpc_over(request.param, stage, connector) as rpc:
        yield rpc


async def keep(connector: Connector, call_id: str, created_at: float = NOON, **changes: Any) -> None:
    record = CallRecord(
        call_id=call_id,
        provider=Provider.TWILIO,
        direction=Direction.OUTBOUND,
        room="a",
        identity="caller",
        state=CallState.ENDED,
        # Of a process that lives: another one's open calls would be ended here.
        owner=connector.settings.owner,
        created_at=created_at,
        ended_at=created_at + 60,
        end_reason=EndReason.CARRIER_HANGUP,
    )
    await connector.store.save_call(replace(record, **changes))


@pytest.fixture
async def calls(connector: Connector) -> None:
    """Four calls, one a second."""
    await keep(connector, "call_1", NOON + 1)
    await keep(connector, "call_2", NOON + 2, room="b", provider=Provider.TELNYX)
    await keep(connector, "call_3", NOON + 3.123456789, room="b", state=CallState.ACTIVE, end_reason=None, ended_at=0.0)
    await keep(connector, "call_4", NOON + 4, provider=Provider.PLIVO, state=CallState.RINGING, end_reason=None)


def at(seconds: float) -> Timestamp:
    stamp = Timestamp()
    stamp.FromNanoseconds(round((NOON + seconds) * 1000) * 1_000_000)
    return stamp


def ids(response: pb.ListCallsResponse) -> list[str]:
    return [call.call_id.removeprefix("call_") for call in response.calls]


@pytest.mark.usefixtures("calls")
@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, "4321"),
        ({"room_name": "a"}, "41"),
        ({"room_name": "b"}, "32"),
        ({"room_name": "nobody's"}, ""),
        ({"room_name": "A"}, ""),
        ({"room_name": "%"}, ""),
        ({"state": pb.Call.STATE_ENDED}, "21"),
        ({"state": pb.Call.STATE_ACTIVE}, "3"),
        ({"state": pb.Call.STATE_RINGING}, "4"),
        ({"state": pb.Call.STATE_PENDING}, ""),
        ({"provider": pb.Call.PROVIDER_TWILIO}, "31"),
        ({"provider": pb.Call.PROVIDER_TELNYX}, "2"),
        ({"provider": pb.Call.PROVIDER_PLIVO}, "4"),
        ({"created_after": at(2)}, "432"),
        ({"created_after": at(2.001)}, "43"),
        ({"created_before": at(2)}, "1"),
        ({"created_before": at(2.001)}, "21"),
        ({"created_after": at(2), "created_before": at(4)}, "32"),
        ({"created_after": at(4), "created_before": at(2)}, ""),
        ({"created_after": at(2), "room_name": "b", "state": pb.Call.STATE_ENDED}, "2"),
        ({"room_name": "b", "provider": pb.Call.PROVIDER_PLIVO}, ""),
    ],
    ids=str,
)
async def test_filters(rpc: Rpc, filters: dict[str, Any], found: str) -> None:
    response = await rpc.list_calls(**filters)
    assert "".join(ids(response)) == found
    assert response.next_page_token == ""


@pytest.mark.usefixtures("calls")
async def test_a_calls_own_time_finds_it_again(rpc: Rpc) -> None:
    for call in (await rpc.list_calls()).calls:
        since = await rpc.list_calls(created_after=call.created_at)
        before = await rpc.list_calls(created_before=call.created_at)
        assert since.calls[-1] == call
        assert call.call_id not in [other.call_id for other in before.calls]
        assert len(since.calls) + len(before.calls) == 4


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 1000])
async def test_pages_lose_and_repeat_nothing_also_where_times_are_equal(
    connector: Connector, rpc: Rpc, size: int
) -> None:
    times = [0, 1, 1, 1, 1, 2, 2, 3]
    for number, second in enumerate(times):
        await keep(connector, f"call_{(number * 5) % 8}", NOON + second)
    pages = [await rpc.list_calls(page_size=size)]
    while pages[-1].next_page_token:
        pages.append(await rpc.list_calls(page_size=size, page_token=pages[-1].next_page_token))
    assert [len(page.calls) for page in pages[:-1]] == [size] * (len(pages) - 1)
    seen = [call for page in pages for call in page.calls]
    assert sorted(call.call_id for call in seen) == [f"call_{n}" for n in range(8)]
    created = [call.created_at.ToNanoseconds() for call in seen]
    assert created == sorted(created, reverse=True)
    assert len(pages) == -(-8 // size)


async def test_a_call_that_comes_between_two_pages_moves_nothing(connector: Connector, rpc: Rpc) -> None:
    for number in range(4):
        await keep(connector, f"call_{number}", NOON + number)
    first = await rpc.list_calls(page_size=2)
    await keep(connector, "call_9", NOON + 9)
    second = await rpc.list_calls(page_size=2, page_token=first.next_page_token)
    assert (ids(first), ids(second)) == (["3", "2"], ["1", "0"])


async def test_filters_hold_on_every_page(connector: Connector, rpc: Rpc) -> None:
    for number in range(6):
        await keep(connector, f"call_{number}", NOON + number, room="ab"[number % 2])
    first = await rpc.list_calls(page_size=2, room_name="a")
    second = await rpc.list_calls(page_size=2, room_name="a", page_token=first.next_page_token)
    assert (ids(first), ids(second), second.next_page_token) == (["4", "2"], ["0"], "")


async def test_a_page_has_fifty_calls_when_nothing_is_said(connector: Connector, rpc: Rpc) -> None:
    for number in range(51):
        await keep(connector, f"call_{number}", NOON + number)
    page = await rpc.list_calls()
    assert len(page.calls) == 50
    assert ids(await rpc.list_calls(page_token=page.next_page_token)) == ["0"]


def _token(seconds: float, call_id: bytes) -> str:
    return base64.urlsafe_b64encode(struct.pack(">d", seconds) + call_id).decode()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("page_size", 1001),
        ("page_size", 2**32 - 1),
        ("page_token", "nonsense"),
        ("page_token", "!!!!"),
        ("page_token", "AAAA"),
        ("page_token", "é"),
        ("page_token", _token(NOON, b"")),
        ("page_token", _token(NOON, b"\xff")),
        ("page_token", _token(float("nan"), b"call_1")),
        ("page_token", _token(float("inf"), b"call_1")),
        ("state", 9),
        ("provider", 9),
    ],
    ids=str,
)
async def test_what_cannot_be_asked_is_named(rpc: Rpc, field: str, value: Any) -> None:
    with pytest.raises(RpcFailed) as caught:
        await rpc.list_calls(**{field: value})
    assert (caught.value.code, caught.value.message.split(":")[0]) == ("invalid_argument", field)


async def test_live_calls_are_listed_with_the_ended(stage: Stage, room: str, connector: Connector, rpc: Rpc) -> None:
    await keep(connector, "call_old")
    await connect_call(stage.client(connector), room)
    live, old = (await rpc.list_calls()).calls
    assert (live.call_id, live.state) == (only_session(connector).call_id, pb.Call.STATE_RINGING)
    assert (old.state, old.end_reason) == (pb.Call.STATE_ENDED, "carrier_hangup")
