"""The connect_url over http: TwiML, as often as it is asked for; what it teaches, and what it changes."""

from __future__ import annotations

import asyncio
import time
from xml.etree import ElementTree

import aiohttp
import pytest

from connector.app import Connector
from connector.carriers.resume_url import resume_url
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from tests.integration.harness import INBOUND, OUTBOUND, Stage, connect_call, ended, only_session, until
from tests.integration.stranger import CALL_SID, FORM, fetch, open_socket, socket_status, start_stream

OTHER_SID = "CA" + "9" * 32


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await stage.connector()


@pytest.fixture
async def http(stage: Stage) -> aiohttp.ClientSession:
    return await stage.http()


def twiml(connect_url: str, say: str) -> str:
    said = f"  {say}\n" if say else ""
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n<Response>\n'
        f'{said}  <Connect>\n    <Stream url="{connect_url}" />\n  </Connect>\n'
        f'  <Redirect method="POST">{resume_url(connect_url)}</Redirect>\n</Response>\n'
    )


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_it_is_twiml_that_greets_and_streams_and_nothing_more(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession, method: str
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    page = await fetch(http, connect_url, FORM, method)
    assert (page.status, page.content_type.partition(";")[0]) == (200, "text/xml")
    assert page.text == twiml(connect_url, "<Say>This is LiveKit Twilio Connector</Say>")


async def test_it_can_be_fetched_any_number_of_times_before_and_while_it_is_used(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    pages = [await fetch(http, connect_url, FORM, method) for method in ("GET", "POST") * 5]
    socket = await open_socket(http, connect_url)
    await start_stream(socket)
    call = only_session(connector)
    await until(lambda: call.state is CallState.ACTIVE)
    pages.append(await fetch(http, connect_url, FORM))
    assert len({page.text for page in pages}) == 1
    assert {page.status for page in pages} == {200}
    assert call.state is CallState.ACTIVE
    await socket.close()


@pytest.mark.parametrize(
    ("greeting", "say"),
    [
        ("", ""),
        ("   ", ""),
        ("Guten Tag, Grüße!", "<Say>Guten Tag, Grüße!</Say>"),
        ('<Hangup/> & "more"', '<Say>&lt;Hangup/&gt; &amp; "more"</Say>'),
    ],
)
async def test_the_greeting_is_the_operators(
    stage: Stage, room: str, http: aiohttp.ClientSession, greeting: str, say: str
) -> None:
    connector = await stage.connector(greeting=greeting)
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    page = await fetch(http, connect_url, FORM)
    assert page.text == twiml(connect_url, say)
    ElementTree.fromstring(page.text)


async def test_a_fetch_leaves_time_to_open_the_stream(stage: Stage, room: str, http: aiohttp.ClientSession) -> None:
    connector = await stage.connector(connect_timeout=2.0, answer_grace=6)
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    call = only_session(connector)
    created = call.record.created_at
    await fetch(http, connect_url, FORM)
    assert call.deadline >= time.time() + 5.9
    await asyncio.sleep(created + 2.3 - time.time())
    assert call.state is CallState.RINGING
    assert (await fetch(http, connect_url, FORM)).status == 200
    assert await socket_status(http, connect_url) == 101


async def test_a_fetch_gives_time_once_and_not_for_ever(stage: Stage, room: str, http: aiohttp.ClientSession) -> None:
    connector = await stage.connector(connect_timeout=2.0, answer_grace=2.2)
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    await fetch(http, connect_url, FORM)
    record = await ended(connector)
    assert record.end_reason is EndReason.CONNECT_TIMEOUT
    assert 2.2 <= record.ended_at - record.created_at < 6


async def test_a_fetch_never_shortens_the_time(stage: Stage, room: str, http: aiohttp.ClientSession) -> None:
    connector = await stage.connector(connect_timeout=60, answer_grace=1)
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    call = only_session(connector)
    before = call.deadline
    await fetch(http, connect_url, FORM)
    assert call.deadline == before


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
async def test_what_the_form_says_becomes_attributes_and_record(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession, method: str, direction: int
) -> None:
    connect_url = await connect_call(stage.client(connector), room, direction)
    await fetch(http, connect_url, FORM, method)
    await fetch(http, connect_url, (), "GET")
    await fetch(http, connect_url, (("CallStatus", "in-progress"),), "POST")
    socket = await open_socket(http, connect_url)
    await start_stream(socket)
    call = only_session(connector)
    await until(lambda: call.state is CallState.ACTIVE)
    attributes = (await stage.participants(room))["caller"].attributes
    assert attributes["phone.from"] == "+15557654321"
    assert attributes["phone.to"] == "+15551234567"
    assert attributes["twilio.callSid"] == CALL_SID
    await socket.close()
    record = await ended(connector)
    assert (record.carrier_call_id, record.from_number, record.to_number) == (
        CALL_SID,
        "+15557654321",
        "+15551234567",
    )


async def test_nothing_is_claimed_of_a_call_whose_document_nobody_fetched(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    connect_url = await connect_call(stage.client(connector), room, INBOUND)
    socket = await open_socket(http, connect_url)
    await start_stream(socket)
    call = only_session(connector)
    await until(lambda: call.state is CallState.ACTIVE)
    attributes = (await stage.participants(room))["caller"].attributes
    assert attributes["twilio.callSid"] == CALL_SID
    assert not [name for name in attributes if name.startswith("phone.")]
    await socket.close()


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_another_call_cannot_fetch_it(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession, method: str
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    await fetch(http, connect_url, FORM)
    page = await fetch(http, connect_url, (("CallSid", OTHER_SID), ("From", "+1999")), method)
    assert page.status == 410
    assert "<Hangup" in page.text
    assert only_session(connector).record.from_number == "+15557654321"
    assert (await fetch(http, connect_url, FORM)).status == 200


@pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
async def test_a_stream_of_another_call_is_refused_and_ends_the_call_unseen(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession, direction: int
) -> None:
    guest = await stage.guest(room)
    connect_url = await connect_call(stage.client(connector), room, direction)
    await fetch(http, connect_url, FORM)
    socket = await open_socket(http, connect_url)
    await start_stream(socket, OTHER_SID)
    message = await socket.receive(5)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1008)
    record = await ended(connector)
    assert (record.end_reason, record.started_at) == (EndReason.CALL_MISMATCH, 0.0)
    assert (await stage.participants(room)).keys() == {"guest"}
    assert not guest.saw("participant_connected")


BROKEN_FORMS = [
    ("application/x-www-form-urlencoded; charset=no-such-charset", b"CallSid=CA1"),
    ("application/x-www-form-urlencoded; charset=utf-16", b"CallSid=CA1"),
    ("application/x-www-form-urlencoded", b"\xff\xfe=\xff&CallSid=%ff"),
    ("multipart/form-data", b"nothing"),
    ("multipart/form-data; boundary=x", b"--x\r\ngarbage"),
    (
        "multipart/form-data; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\nx\r\n--x--',
    ),
    ("application/json", b'{"CallSid": "CA1"}'),
    ("text/plain", b"CallSid=CA1"),
    ("application/x-www-form-urlencoded", b"a=" + b"x" * (65 * 1024)),
    ("application/x-www-form-urlencoded", b"&".join(b"k%d=v" % n for n in range(9000))),
]


@pytest.mark.parametrize(("content_type", "body"), BROKEN_FORMS, ids=lambda value: repr(value)[:50])
async def test_a_broken_form_is_no_error_of_ours(
    stage: Stage, room: str, http: aiohttp.ClientSession, content_type: str, body: bytes
) -> None:
    connector = await stage.connector(twilio_auth_token="")
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    page = await fetch(http, connect_url, headers={"Content-Type": content_type}, data=body)
    assert page.status in (200, 400, 413)
    assert only_session(connector).state is CallState.RINGING
    assert await socket_status(http, connect_url) == 101


async def test_only_so_much_of_a_value_is_kept(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    await fetch(http, connect_url, (("CallSid", CALL_SID), ("From", "x" * 5000), ("To", "+1\n2")))
    record = only_session(connector).record
    assert record.from_number == "x" * 128
