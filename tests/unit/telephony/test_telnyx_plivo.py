"""Telnyx's and Plivo's REST APIs: what is sent, and what each answer means."""

from __future__ import annotations

import asyncio
import re
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from connector.call.registry.hang_ups import LEASE, TRY_LIMIT
from connector.carriers.telnyx import Telnyx
from connector.carriers.transfers import TransferDial
from connector.errors import (
    CarrierCallOver,
    ConnectorError,
    CredentialsRefused,
    FailedPrecondition,
    Internal,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from connector.model.call import CarrierCall
from connector.telephony import http
from connector.telephony.plivo import PlivoCalls
from connector.telephony.telnyx import LONGEST_SPEECH, TelnyxCalls, speaking_seconds
from demo.ports import PortLease
from tests.unit.telephony.carrier_api import Api, carrier_api

KEY = "the-secret-of-the-tests"
CALL = CarrierCall("v3:KBnLO0ZK3DhKM5s7bE9V/x")
STREAMED = CarrierCall("v3:sid", "the-account", "v3:control")
QUOTED = "v3:KBnLO0ZK3DhKM5s7bE9V%2Fx"
NUMBER = "+15551234567"
PATIENCE = 10.0
TO = TransferDial(NUMBER, 30)
URL = "https://calls.example.com/plivo/token/transfer/document"
DIAL = Telnyx().transfer_document(TO)


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with carrier_api() as api:
        yield api


@pytest.fixture
async def telnyx(api: Api) -> AsyncIterator[TelnyxCalls]:
    calls = TelnyxCalls(KEY, api.url, speaking=lambda text: 0.0)
    await calls.start()
    yield calls
    await calls.close()


@pytest.fixture
async def plivo(api: Api) -> AsyncIterator[PlivoCalls]:
    calls = PlivoCalls("MA1", KEY, lambda text: f"https://calls.example.com/plivo/say/{len(text)}", api.url)
    await calls.start()
    yield calls
    await calls.close()


HAS_ENDED = {"errors": [{"code": "90018", "title": "Call has already ended"}]}
NOT_KNOWN = {"errors": [{"code": "10005", "title": "Resource not found"}]}
REFUSES = {"errors": [{"code": "90046", "title": "Stream could not be started"}]}


class TestBringingBack:
    """Of a call that is not there, only the carrier's word that it has ended proves that it is over."""

    @pytest.mark.parametrize(
        ("answers", "kind"),
        [
            ([(422, HAS_ENDED)], CarrierCallOver),
            ([(404, NOT_KNOWN), (422, HAS_ENDED)], CarrierCallOver),
            ([(404, NOT_KNOWN), (404, NOT_KNOWN), (200, {"data": {"is_alive": False}})], CarrierCallOver),
            ([(404, NOT_KNOWN), (404, NOT_KNOWN), (422, HAS_ENDED)], CarrierCallOver),
            ([(404, NOT_KNOWN)], NotFound),
            ([(404, NOT_KNOWN), (422, REFUSES), (200, {"data": {"is_alive": True}})], FailedPrecondition),
            ([(404, NOT_KNOWN), (422, REFUSES), (503, {})], FailedPrecondition),
            ([(401, {})], CredentialsRefused),
            ([(503, {})], Unavailable),
        ],
    )
    async def test_telnyx(
        self, api: Api, telnyx: TelnyxCalls, answers: list[tuple[int, Any]], kind: type[ConnectorError]
    ) -> None:
        api.answers = answers
        with pytest.raises(ConnectorError) as caught:
            await telnyx.bring_back(CALL, URL, "wss://calls.example.com/telnyx?ref=x")
        assert type(caught.value) is kind

    @pytest.mark.parametrize(
        ("answers", "kind"),
        [
            ([(404, {}), (200, {"call_uuid": "x"})], CarrierCallOver),
            ([(404, {})], NotFound),
            ([(404, {}), (503, {})], NotFound),
            ([(401, {})], CredentialsRefused),
        ],
    )
    async def test_plivo(
        self, api: Api, plivo: PlivoCalls, answers: list[tuple[int, Any]], kind: type[ConnectorError]
    ) -> None:
        api.answers = answers
        with pytest.raises(ConnectorError) as caught:
            await plivo.bring_back(CALL, URL, "wss://calls.example.com/plivo/x")
        assert type(caught.value) is kind


class TestTelnyx:
    async def test_hanging_up(self, api: Api, telnyx: TelnyxCalls) -> None:
        await telnyx.hang_up(CALL)
        (asked,) = api.asked
        assert (asked.method, asked.path) == ("POST", f"/v2/calls/{QUOTED}/actions/hangup")
        assert asked.authorization == f"Bearer {KEY}"

    @pytest.mark.parametrize("status", [404, 422])
    async def test_a_call_that_only_texml_knows_is_hung_up_there(
        self, api: Api, telnyx: TelnyxCalls, status: int
    ) -> None:
        api.answers = [(status, {"errors": [{"code": "10005", "title": "Resource not found"}]}), (200, {})]
        await telnyx.hang_up(CALL)
        asked = api.asked[1]
        assert (asked.method, asked.path, asked.body) == (
            "POST",
            f"/v2/texml/calls/{QUOTED}/update",
            {"Status": "completed"},
        )

    async def test_each_way_takes_the_name_that_it_knows(self, api: Api, telnyx: TelnyxCalls) -> None:
        api.answers = [(404, {}), (200, {})]
        await telnyx.hang_up(STREAMED)
        api.answers = [(404, {}), (200, {})]
        await telnyx.transfer(STREAMED, TO, URL)
        assert [(asked.path, asked.body) for asked in api.asked] == [
            ("/v2/calls/v3:control/actions/hangup", {}),
            ("/v2/texml/Accounts/the-account/Calls/v3:sid", {"Status": "completed"}),
            ("/v2/texml/Accounts/the-account/Calls/v3:sid", {"Texml": DIAL}),
            ("/v2/calls/v3:control/actions/transfer", {"to": NUMBER, "timeout_secs": 30}),
        ]

    @pytest.mark.parametrize("answer", [(404, {}), (422, {"errors": [{"code": "90018", "title": "ended"}]})])
    async def test_hanging_up_what_has_ended_is_no_error(
        self, api: Api, telnyx: TelnyxCalls, answer: tuple[int, Any]
    ) -> None:
        api.answers = [answer]
        await telnyx.hang_up(CALL)

    async def test_a_sentence_takes_the_place_of_the_document_that_holds_the_phone(
        self, api: Api, telnyx: TelnyxCalls
    ) -> None:
        await telnyx.hang_up(STREAMED, "Bye & bye.")
        (asked,) = api.asked
        assert asked.path == "/v2/texml/Accounts/the-account/Calls/v3:sid"
        assert "<Say>Bye &amp; bye.</Say>\n  <Hangup />" in asked.body["Texml"]

    async def test_a_call_that_only_call_control_knows_is_told_the_sentence_and_hung_up_after_it(
        self, api: Api
    ) -> None:
        asked_for: list[str] = []

        def speaking(text: str) -> float:
            asked_for.append(text)
            assert api.asked[-1].path.endswith("speak")
            return 0.0

        telnyx = TelnyxCalls(KEY, api.url, speaking)
        await telnyx.start()
        api.answers = [(404, {}), (200, {"data": {"result": "ok"}})]
        await telnyx.hang_up(STREAMED, "Goodbye." + "x" * 500)
        await telnyx.close()
        assert [(asked.method, asked.path) for asked in api.asked[1:]] == [
            ("POST", "/v2/calls/v3:control/actions/speak"),
            ("POST", "/v2/calls/v3:control/actions/hangup"),
        ]
        assert api.asked[1].body == {
            "payload": asked_for[0],
            "voice": "female",
            "language": "en-US",
            "command_id": "connector-farewell",
        }
        assert len(asked_for[0]) == 400

    @pytest.mark.parametrize("status", [404, 422])
    async def test_a_phone_that_cannot_hear_a_sentence_is_hung_up_without(
        self, api: Api, telnyx: TelnyxCalls, status: int
    ) -> None:
        api.answers = [(status, {}), (status, {}), (200, {})]
        await telnyx.hang_up(STREAMED, "Goodbye.")
        assert [asked.path.rpartition("/")[2] for asked in api.asked] == ["v3:sid", "speak", "hangup"]

    async def test_a_sentence_that_could_not_be_asked_for_is_tried_again_and_not_left_out(
        self, api: Api, telnyx: TelnyxCalls
    ) -> None:
        api.answers = [(404, {}), (503, {})]
        with pytest.raises(Unavailable):
            await telnyx.hang_up(STREAMED, "Goodbye.")
        assert len(api.asked) == 2

    def test_a_phone_gets_the_time_that_a_sentence_takes_and_no_more_than_a_try_has(self) -> None:
        assert 2 < speaking_seconds("We are sorry. Goodbye.") < 6
        assert speaking_seconds("x" * 400) == LONGEST_SPEECH
        # Of a try that asks TeXML, speaks and hangs up by either way.
        assert LONGEST_SPEECH + 4 * http.TIMEOUT < TRY_LIMIT < LEASE

    async def test_a_transfer_replaces_the_document(self, api: Api, telnyx: TelnyxCalls) -> None:
        await telnyx.transfer(CALL, TO, URL)
        (asked,) = api.asked
        assert (asked.path, asked.body) == (f"/v2/texml/calls/{QUOTED}/update", {"Texml": DIAL})

    async def test_a_call_that_texml_does_not_know_is_transferred_by_call_control(
        self, api: Api, telnyx: TelnyxCalls
    ) -> None:
        api.answers = [(404, {}), (200, {})]
        await telnyx.transfer(CALL, TO, URL)
        asked = api.asked[1]
        assert (asked.path, asked.body) == (f"/v2/calls/{QUOTED}/actions/transfer", {"to": NUMBER, "timeout_secs": 30})

    async def test_a_call_that_nobody_knows_is_not_transferred(self, api: Api, telnyx: TelnyxCalls) -> None:
        api.answers = [(404, {})]
        with pytest.raises(NotFound):
            await telnyx.transfer(CALL, TO, URL)


class TestPlivo:
    async def test_hanging_up(self, api: Api, plivo: PlivoCalls) -> None:
        api.answers = [(204, "")]
        await plivo.hang_up(CarrierCall("u/1"))
        (asked,) = api.asked
        assert (asked.method, asked.path) == ("DELETE", "/v1/Account/MA1/Call/u%2F1/")
        assert asked.authorization == "Basic " + b64encode(f"MA1:{KEY}".encode()).decode()

    async def test_hanging_up_what_has_ended_is_no_error(self, api: Api, plivo: PlivoCalls) -> None:
        api.answers = [(404, {"error": "call not found"})]
        await plivo.hang_up(CarrierCall("u1"))

    async def test_a_sentence_before_the_hang_up_is_a_document_to_fetch(self, api: Api, plivo: PlivoCalls) -> None:
        await plivo.hang_up(CarrierCall("u1"), "x" * 5000)
        (asked,) = api.asked
        assert (asked.method, asked.body["aleg_url"]) == ("POST", "https://calls.example.com/plivo/say/400")

    async def test_a_phone_that_cannot_hear_a_sentence_is_hung_up_without(self, api: Api, plivo: PlivoCalls) -> None:
        api.answers = [(404, {"error": "not found"})]
        await plivo.hang_up(CarrierCall("u1"), "Goodbye.")
        assert [asked.method for asked in api.asked] == ["POST", "DELETE"]

    async def test_a_transfer_has_the_phones_leg_fetch_a_document(self, api: Api, plivo: PlivoCalls) -> None:
        api.answers = [(202, {"message": "call transferred"})]
        await plivo.transfer(CarrierCall("u1"), TO, URL)
        (asked,) = api.asked
        assert (asked.method, asked.path) == ("POST", "/v1/Account/MA1/Call/u1/")
        assert asked.body == {
            "legs": "aleg",
            "aleg_url": URL,
            "aleg_method": "POST",
        }


ANSWERS = [
    ((400, {"error": "bad legs"}), FailedPrecondition, "Plivo answered 400: bad legs"),
    ((401, "nope"), CredentialsRefused, "check PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN"),
    ((403, {}), Internal, "check PLIVO_AUTH_ID"),
    ((404, {"error": "no such call"}), NotFound, "no such call"),
    ((410, {"error": "gone"}), NotFound, "gone"),
    ((429, {}), ResourceExhausted, "answered 429"),
    ((500, {"error": ["not", "text"]}), Unavailable, "answered 500"),
    ((503, "<html>"), Unavailable, "answered 503"),
    ((302, "elsewhere"), Unavailable, "(302) is not from Plivo's API"),
    ((400, {"errors": [{"code": "1", "title": "Bad", "detail": "x" * 5000}]}), FailedPrecondition, ": 1 Bad xxx"),
    ((400, {"errors": ["text"]}), FailedPrecondition, "answered 400"),
    ((400, "[" * 50_000), FailedPrecondition, "answered 400"),
]


@pytest.mark.parametrize(("answer", "meaning", "says"), ANSWERS)
async def test_each_answer_has_its_meaning(
    api: Api, plivo: PlivoCalls, answer: tuple[int, Any], meaning: type[ConnectorError], says: str
) -> None:
    api.answers = [answer]
    with pytest.raises(ConnectorError) as caught:
        await plivo.transfer(CarrierCall("u1"), TO, URL)
    assert type(caught.value) is meaning
    assert says in caught.value.message
    assert len(caught.value.message) < 500
    assert KEY not in caught.value.message
    assert len(api.asked) == 1


async def test_nobody_there() -> None:
    lease = PortLease()
    calls = TelnyxCalls(KEY, f"http://127.0.0.1:{lease.port}")
    await calls.start()
    with pytest.raises(Unavailable, match="cannot be reached"):
        await calls.hang_up(CALL)
    await calls.close()
    await calls.close()
    lease.close()


async def test_an_answer_that_never_comes_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    monkeypatch.setattr(http, "TIMEOUT", 0.1)
    server = await asyncio.start_server(never, "127.0.0.1", 0)
    calls = TelnyxCalls(KEY, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await calls.start()
    with pytest.raises(Unavailable, match="Timeout"):
        await asyncio.wait_for(calls.hang_up(CALL), 5)
    await calls.close()
    server.close()


ENDED = b'{"errors": [{"code": "90018", "title": "Call has already ended", "detail": "x"}]}'


class Pieces:
    """A server that sends its answer's head, and its body in pieces: the next one when `go_on` is set."""

    def __init__(self, status: str, *pieces: bytes, length: int | None = None, ends: bool = True) -> None:
        self.status, self.pieces, self.ends = status, pieces, ends
        self.length = sum(map(len, pieces)) if length is None else length
        self.asked = 0
        self.first_sent = asyncio.Event()
        self.go_on = asyncio.Event()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.asked += 1
        asked = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", asked)[1]))  # type: ignore[index]
        more = f"Content-Type: application/json\r\nContent-Length: {self.length}\r\nConnection: close\r\n\r\n"
        head = f"HTTP/1.1 {self.status}\r\n{more}"
        writer.write(head.encode())
        for number, piece in enumerate(self.pieces):
            if number:
                await self.go_on.wait()
            writer.write(piece)
            await writer.drain()
            self.first_sent.set()
        if not self.ends:
            await reader.read()
        writer.close()


@asynccontextmanager
async def telnyx_at(answer: Pieces) -> AsyncIterator[TelnyxCalls]:
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    calls = TelnyxCalls(KEY, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
    await calls.start()
    try:
        yield calls
    finally:
        await calls.close()
        server.close()


@pytest.mark.parametrize("cut", [1, 40, len(ENDED) - 1])
async def test_an_answer_in_two_pieces_is_read_whole(cut: int) -> None:
    answer = Pieces("422 Unprocessable Entity", ENDED[:cut], ENDED[cut:])
    async with telnyx_at(answer) as calls:
        hanging_up = asyncio.create_task(calls.hang_up(CALL))
        await answer.first_sent.wait()
        # The head and the first piece have been read by now, or will be before the rest: both is right.
        await asyncio.sleep(0)
        answer.go_on.set()
        await hanging_up
    assert answer.asked == 2


@pytest.mark.parametrize(
    "answer",
    [
        Pieces("422 Unprocessable Entity", ENDED[:40], length=len(ENDED)),
        Pieces("422 Unprocessable Entity", b'{"errors": "' + b"x" * 200_000 + b'"}'),
    ],
    ids=["cut off", "too long"],
)
async def test_of_an_answer_that_cannot_be_read_the_status_counts(answer: Pieces) -> None:
    async with telnyx_at(answer) as calls:
        with pytest.raises(FailedPrecondition, match="answered 422"):
            await asyncio.wait_for(calls.hang_up(CALL), PATIENCE)


async def test_an_answer_that_does_not_end_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "TIMEOUT", 0.2)
    async with telnyx_at(Pieces("200 OK", b"{", length=100, ends=False)) as calls:
        await asyncio.wait_for(calls.hang_up(CALL), PATIENCE)


async def test_an_error_is_found_wherever_it_stands_and_as_a_number(api: Api, telnyx: TelnyxCalls) -> None:
    api.answers = [(422, {"errors": ["text", {"code": "1"}, {"code": 90018}]})]
    await telnyx.hang_up(CALL)


async def test_it_must_be_started_first() -> None:
    with pytest.raises(RuntimeError, match="not been started"):
        await TelnyxCalls(KEY).hang_up(CALL)
