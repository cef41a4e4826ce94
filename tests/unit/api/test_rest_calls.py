"""/v2/sip/call: records in VideoSDK's words, filters, and what is asked of live calls."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from connector.api.rest.call_operations import shown, status
from connector.errors import ConnectorError, DeadlineExceeded, FailedPrecondition, Unavailable, Unimplemented
from connector.model.call import CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from tests.unit.api.rest_stage import Rest, rest_api

PATH = "/v2/sip/call"
RECORD = CallRecord(
    call_id="call_1",
    provider=Provider.TWILIO,
    direction=Direction.INBOUND,
    room="support",
    identity="twilio_ab",
    state=CallState.ENDED,
    owner="me",
    created_at=1_750_000_000.0,
    from_number="+15552223333",
    to_number="+15550001111",
    started_at=1_750_000_001.0,
    ended_at=1_750_000_009.5,
    end_reason=EndReason.CARRIER_HANGUP,
    rule_id="rule_1",
    connector_id="cn_1",
    region="us002",
    timelog=(("call-started", 1_750_000_000.0), ("call-answered", 1_750_000_001.0), ("call-hangup", 1_750_000_009.5)),
)
NEVER = replace(RECORD, started_at=0.0, timelog=())
OUT = replace(NEVER, direction=Direction.OUTBOUND)


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    async with rest_api() as rest:
        yield rest


async def test_a_call_as_the_sdk_reads_it(rest: Rest) -> None:
    await rest.store.save_call(RECORD)
    call = (await rest.ok("GET", f"{PATH}/call_1"))["data"]
    assert call == {
        "id": "call_1",
        "callId": "call_1",
        "type": "inbound",
        "provider": "twilio",
        "ruleId": "rule_1",
        "connectorId": "cn_1",
        "roomId": "support",
        "participantId": "twilio_ab",
        "to": "+15550001111",
        "from": "+15552223333",
        "status": "ended",
        "region": "us002",
        "start": "2025-06-15T15:06:40.000Z",
        "end": "2025-06-15T15:06:49.500Z",
        "endReason": "carrier_hangup",
        "transferTo": None,
        "transferStatus": None,
        "resumeUrl": None,
        "timelog": [
            {"status": "incoming", "timestamp": "2025-06-15T15:06:40.000Z"},
            {"status": "answered", "timestamp": "2025-06-15T15:06:41.000Z"},
            {"status": "ended", "timestamp": "2025-06-15T15:06:49.500Z"},
        ],
    }


async def test_a_call_that_goes_on_tells_where_its_carrier_comes_back(rest: Rest) -> None:
    await rest.store.save_call(replace(RECORD, state=CallState.ACTIVE, end_reason=None, ended_at=0.0))
    call = (await rest.ok("GET", f"{PATH}/call_1"))["data"]
    assert call["resumeUrl"] == "https://calls.example.com/twilio/call_1/resume"
    assert "resumeUrl" not in (await rest.ok("GET", PATH))["data"][0]


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (replace(NEVER, state=CallState.PENDING), "incoming"),
        (replace(OUT, state=CallState.PENDING), "initiated"),
        (replace(OUT, state=CallState.RINGING), "ringing"),
        (replace(RECORD, state=CallState.ACTIVE), "answered"),
        (RECORD, "ended"),
        (replace(RECORD, timelog=(("call-transferred", 1.0),)), "transferred"),
        (NEVER, "missed"),
        (replace(OUT, end_reason=EndReason.NO_ANSWER), "not-answered"),
        (replace(OUT, end_reason=EndReason.CONNECT_TIMEOUT), "not-answered"),
        (replace(OUT, end_reason=EndReason.BUSY), "rejected"),
        (replace(OUT, end_reason=EndReason.CANCELED), "abandoned"),
        (replace(OUT, end_reason=EndReason.LIVEKIT_UNAVAILABLE), "failed"),
    ],
)
def test_the_state_in_one_word(record: CallRecord, expected: str) -> None:
    assert status(record) == expected


def test_an_event_that_a_later_version_wrote_is_shown_as_it_is() -> None:
    record = replace(OUT, timelog=(("call-started", 1.0), ("call-parked", 2.0), ("call-update", 3.0)))
    assert [moment.status for moment in shown(record).timelog] == ["initiated", "call-parked", "call-update"]


async def test_filters_and_pages(rest: Rest) -> None:
    for number in range(5):
        await rest.store.save_call(replace(RECORD, call_id=f"c{number}", created_at=1000.0 + number))
    await rest.store.save_call(
        replace(
            OUT, call_id="out", created_at=2000.0, room="sales", rule_id="", from_number="+4930111", connector_id=""
        )
    )
    for query, expected in (
        ("", ["out", "c4", "c3", "c2", "c1", "c0"]),
        ("page=2&perPage=4", ["c1", "c0"]),
        ("roomId=support&perPage=2", ["c4", "c3"]),
        ("id=c3", ["c3"]),
        ("id=none", []),
        ("ruleId=rule_1&page=3&perPage=2", ["c0"]),
        ("connectorId=cn_1&perPage=1", ["c4"]),
        ("type=outbound", ["out"]),
        ("search=SALE", ["out"]),
        ("search=4930", ["out"]),
        ("startDate=1002000&endDate=1004000", ["c3", "c2"]),
        ("startDate=1002000&endDate=1004000&type=outbound", []),
    ):
        answer = await rest.ok("GET", f"{PATH}?{query}")
        assert [call["id"] for call in answer["data"]] == expected, query
    assert (await rest.ok("GET", f"{PATH}?perPage=4"))["pageInfo"]["total"] == 6


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("", None),
        ("/end", {"callId": "none"}),
        ("/transfer", {"callId": "none", "transferTo": "+15550009999"}),
        ("/switch-room", {"callId": "none", "roomId": "r"}),
    ],
)
async def test_an_unknown_call_404(rest: Rest, path: str, body: Any) -> None:
    answer = await rest("POST" if body else "GET", f"{PATH}{path or '/none'}", body)
    assert answer == (404, {"message": "no such call", "code": "not_found"})


async def test_end(rest: Rest) -> None:
    await rest.store.save_call(replace(RECORD, state=CallState.ACTIVE))
    answer = await rest.ok("POST", f"{PATH}/end", {"callId": "call_1"})
    assert rest.control.asked == [("end",)]
    assert (answer["message"], answer["data"]["status"]) == ("Call ended successfully", "ended")


async def test_transfer_and_switch(rest: Rest) -> None:
    await rest.store.save_call(RECORD)
    await rest.ok("POST", f"{PATH}/transfer", {"callId": "call_1", "transferTo": "1 (555) 000-9999"})
    answer = await rest.ok("POST", f"{PATH}/switch-room", {"callId": "call_1", "roomId": "sales", "token": "x"})
    assert rest.control.asked == [("transfer", "+15550009999"), ("switch", "sales")]
    assert answer["data"]["roomId"] == "sales"


@pytest.mark.parametrize("number", ["sip:a@b", "911", "+", "hello"])
async def test_a_transfer_goes_to_a_number(rest: Rest, number: str) -> None:
    await rest.store.save_call(RECORD)
    got, answer = await rest("POST", f"{PATH}/transfer", {"callId": "call_1", "transferTo": number})
    assert (got, answer["message"][:12]) == (400, "transferTo: ")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (FailedPrecondition("the call is ringing, not active"), 409),
        (Unavailable("the process host:1, which held the call, is gone"), 503),
        (DeadlineExceeded("the process host:1 did not answer in time"), 504),
        (Unimplemented("no credential"), 501),
    ],
)
async def test_what_the_call_cannot_do(rest: Rest, error: ConnectorError, code: int) -> None:
    await rest.store.save_call(RECORD)
    rest.control.error = error
    for path, more in (("end", {}), ("transfer", {"transferTo": "+15550009999"}), ("switch-room", {"roomId": "r"})):
        got, answer = await rest("POST", f"{PATH}/{path}", {"callId": "call_1"} | more)
        assert (got, answer["message"]) == (code, error.message)
