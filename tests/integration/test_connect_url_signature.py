"""With Twilio's auth token set, a connect_url serves Twilio alone; the public URL counts, whatever a proxy does."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp
import pytest
from yarl import URL

from carrier_simulator.twilio.signing import sign
from connector.app import Connector
from connector.model.call import CallState
from tests.integration.harness import OUTBOUND, TWILIO_TOKEN, Stage, connect_call, only_session, place
from tests.integration.stranger import FORM, document_url, fetch, socket_status

HEADER = "X-Twilio-Signature"
Ask = Callable[[aiohttp.ClientSession, str, dict[str, str]], Awaitable[int]]


async def by_get(http: aiohttp.ClientSession, connect_url: str, headers: dict[str, str]) -> int:
    return (await fetch(http, connect_url, FORM, "GET", headers=headers)).status


async def by_post(http: aiohttp.ClientSession, connect_url: str, headers: dict[str, str]) -> int:
    return (await fetch(http, connect_url, FORM, headers=headers)).status


async def by_socket(http: aiohttp.ClientSession, connect_url: str, headers: dict[str, str]) -> int:
    return await socket_status(http, connect_url, headers=headers)


WAYS = pytest.mark.parametrize(("ask", "good"), [(by_get, 200), (by_post, 200), (by_socket, 101)])


@pytest.fixture
async def http(stage: Stage) -> aiohttp.ClientSession:
    return await stage.http()


async def url_of(stage: Stage, connector: Connector, room: str) -> str:
    """ConnectTwilioCall over the loopback, whatever the public URL is."""
    client = stage.client(connector)
    client._connector._client.host = f"http://127.0.0.1:{connector.port}"
    return await connect_call(client, room, OUTBOUND)


@WAYS
async def test_a_good_signature_is_let_in(
    stage: Stage, room: str, http: aiohttp.ClientSession, ask: Ask, good: int
) -> None:
    connect_url = await url_of(stage, await stage.connector(), room)
    assert await ask(http, connect_url, {}) == good


@WAYS
@pytest.mark.parametrize(
    "signature",
    ["", "nonsense", "AAAAAAAAAAAAAAAAAAAAAAAAAAA=", sign("another-token", "https://x/"), "é" * 10],
)
async def test_a_bad_signature_is_refused_and_changes_nothing(
    stage: Stage, room: str, http: aiohttp.ClientSession, ask: Ask, good: int, signature: str
) -> None:
    connector = await stage.connector()
    connect_url = await url_of(stage, connector, room)
    deadline = only_session(connector).deadline
    assert await ask(http, connect_url, {HEADER: signature}) == 403
    call = only_session(connector)
    assert (call.state, call.record.from_number, call.deadline) == (CallState.RINGING, "", deadline)
    assert await ask(http, connect_url, {}) == good


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_missing_signature_is_refused(
    stage: Stage, room: str, http: aiohttp.ClientSession, method: str
) -> None:
    connect_url = await url_of(stage, await stage.connector(), room)
    page = await fetch(http, connect_url, FORM, method, token="")
    assert (page.status, "<Hangup" in page.text) == (403, True)
    assert await socket_status(http, connect_url, token="") == 403


async def test_fields_and_queries_that_were_not_signed_are_refused(
    stage: Stage, room: str, http: aiohttp.ClientSession
) -> None:
    connector = await stage.connector()
    connect_url = await url_of(stage, connector, room)
    signed = {HEADER: sign(TWILIO_TOKEN, document_url(connect_url), FORM)}
    forged = [*FORM[:2], ("To", "+19990000000")]
    assert (await fetch(http, connect_url, FORM, headers=signed)).status == 200
    assert (await fetch(http, connect_url, forged, headers=signed)).status == 403
    assert (await fetch(http, connect_url, [*FORM, ("Extra", "1")], headers=signed)).status == 403
    assert (await fetch(http, connect_url, FORM[:2], headers=signed)).status == 403
    query = {HEADER: sign(TWILIO_TOKEN, document_url(connect_url) + "?a=1")}
    assert (await fetch(http, connect_url, (("a", "1"),), "GET", headers=query)).status == 200
    assert (await fetch(http, connect_url, (("a", "2"),), "GET", headers=query)).status == 403
    assert only_session(connector).record.to_number == "+15551234567"


async def test_the_signature_of_one_url_does_not_open_another(
    stage: Stage, room: str, http: aiohttp.ClientSession
) -> None:
    connector = await stage.connector()
    one, other = await url_of(stage, connector, room), await url_of(stage, connector, f"{room}-2")
    assert await socket_status(http, one, headers={HEADER: sign(TWILIO_TOKEN, other)}) == 403
    assert await socket_status(http, one, headers={HEADER: sign(TWILIO_TOKEN, document_url(one))}) == 403
    assert await socket_status(http, one) == 101


PUBLIC = [
    # The public URL, and the origin that is signed: Twilio adds or leaves out a default port as it likes.
    ("https://voice.example.com", "wss://voice.example.com"),
    ("https://voice.example.com", "wss://voice.example.com:443"),
    ("https://voice.example.com:443", "wss://voice.example.com"),
    ("https://voice.example.com:8443", "wss://voice.example.com:8443"),
    ("https://example.com/voice", "wss://example.com/voice"),
    ("https://example.com/voice/", "wss://example.com/voice"),
]


@WAYS
@pytest.mark.parametrize(("public", "signed"), PUBLIC)
async def test_behind_a_proxy_the_public_url_counts(
    stage: Stage, room: str, http: aiohttp.ClientSession, ask: Ask, good: int, public: str, signed: str
) -> None:
    connector = await stage.connector(public_url=public)
    connect_url = await url_of(stage, connector, room)
    origin = f"wss://{public.rstrip('/').removeprefix('https://')}"
    assert connect_url.startswith(f"{origin}/twilio/")
    path = connect_url.removeprefix(origin)
    # What the proxy hands on: another host, another scheme, no prefix.
    inner = f"ws://127.0.0.1:{connector.port}{path}"
    outer = signed + path
    proxied = {"Host": "10.1.2.3:9", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "evil.example"}
    assert await ask(http, inner, proxied) == 403  # `ask` signs the inner URL.
    assert await ask(http, inner, proxied | {HEADER: _signature(ask, outer)}) == good


def _signature(ask: Ask, url: str) -> str:
    if ask is by_socket:
        return sign(TWILIO_TOKEN, url)
    if ask is by_post:
        return sign(TWILIO_TOKEN, document_url(url), FORM)
    return sign(TWILIO_TOKEN, str(URL(document_url(url)).with_query(dict(FORM))).replace("+", "%2B"))


async def test_a_signature_for_the_host_that_was_asked_does_not_count(
    stage: Stage, room: str, http: aiohttp.ClientSession
) -> None:
    """Only somebody with the auth token can sign, but a replayed one must not follow a Host of the replayer's."""
    connector = await stage.connector(public_url="https://voice.example.com")
    path = URL(await url_of(stage, connector, room)).path
    inner = f"ws://127.0.0.1:{connector.port}{path}"
    forged = {"Host": "evil.example", HEADER: sign(TWILIO_TOKEN, f"wss://evil.example{path}")}
    assert await socket_status(http, inner, headers=forged) == 403


async def test_a_whole_call_goes_through_a_proxy(stage: Stage, room: str) -> None:
    connector = await stage.connector(public_url="https://voice.example.com")
    twilio = await stage.twilio()
    twilio.web.routes["https://voice.example.com"] = f"http://127.0.0.1:{connector.port}"
    guest = await stage.guest(room)
    call = place(twilio, await url_of(stage, connector, room))
    await guest.event("participant_connected")
    assert call.spoken == ["This is LiveKit Twilio Connector"]
    await call.hangup()
    assert call.errors == []


@WAYS
@pytest.mark.parametrize("headers", [{}, {HEADER: "nonsense"}], ids=["unsigned", "wrongly signed"])
async def test_without_an_auth_token_nothing_is_checked(
    stage: Stage, room: str, http: aiohttp.ClientSession, ask: Any, good: int, headers: dict[str, str]
) -> None:
    connector = await stage.connector(twilio_auth_token="")
    connect_url = await url_of(stage, connector, room)
    if ask is by_socket:
        assert await socket_status(http, connect_url, token="", headers=headers) == good
    else:
        method = "GET" if ask is by_get else "POST"
        assert (await fetch(http, connect_url, FORM, method, token="", headers=headers)).status == good
