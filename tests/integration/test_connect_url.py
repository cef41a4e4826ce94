"""A connect_url opens one WebSocket, for one call, for a while; every other attempt ends before the upgrade."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import aiohttp
import pytest
from livekit import api

from connector.app import Connector
from connector.model.call import CallState, new_call_id
from connector.model.end_reason import EndReason
from connector.tokens import TokenSigner
from tests.integration.harness import INBOUND, OUTBOUND, Stage, connect_call, ended, only_session, until
from tests.integration.stranger import FORM, fetch, open_socket, socket_status, start_stream

BOTH = pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])
EMPTY_TWIML = '<?xml version="1.0" encoding="UTF-8"?>\n<Response>\n  <Hangup />\n</Response>\n'


def base_of(connect_url: str) -> str:
    return connect_url.rpartition("/")[0]


def token_of(connect_url: str) -> str:
    return connect_url.rpartition("/")[2]


async def assert_refused(http: aiohttp.ClientSession, connect_url: str, status: int) -> None:
    """As a WebSocket and as a document, and the document ends the call without a word."""
    assert await socket_status(http, connect_url) == status
    page = await fetch(http, connect_url, FORM)
    assert (page.status, page.text) == (status, EMPTY_TWIML)


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await stage.connector()


@pytest.fixture
async def http(stage: Stage) -> aiohttp.ClientSession:
    return await stage.http()


async def test_it_is_a_path_without_a_query_that_nobody_can_guess(
    stage: Stage, room: str, connector: Connector
) -> None:
    client = stage.client(connector)
    one, other = [await connect_call(client, room, INBOUND) for _ in range(2)]
    assert one.startswith(f"ws://127.0.0.1:{connector.port}/twilio/")
    assert "?" not in one
    assert one != other
    assert len(token_of(one)) > 64


@BOTH
async def test_of_six_sockets_at_once_one_gets_in(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession, direction: Any
) -> None:
    connect_url = await connect_call(stage.client(connector), room, direction)
    outcomes = await asyncio.gather(*(open_socket(http, connect_url) for _ in range(6)), return_exceptions=True)
    sockets = [outcome for outcome in outcomes if isinstance(outcome, aiohttp.ClientWebSocketResponse)]
    refusals = [outcome.status for outcome in outcomes if isinstance(outcome, aiohttp.WSServerHandshakeError)]
    assert (len(sockets), refusals) == (1, [410] * 5)
    await start_stream(sockets[0])
    call = only_session(connector)
    await until(lambda: call.state is CallState.ACTIVE)
    assert (await stage.participants(room)).keys() == {"caller"}
    await sockets[0].close()


async def test_a_second_socket_is_refused_while_and_after_the_first_is_served(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    connect_url = await connect_call(stage.client(connector), room, INBOUND)
    socket = await open_socket(http, connect_url)
    await start_stream(socket)
    assert await socket_status(http, connect_url) == 410
    call = only_session(connector)
    await until(lambda: call.state is CallState.ACTIVE)
    assert await socket_status(http, connect_url) == 410
    assert call.state is CallState.ACTIVE
    await socket.close()
    await ended(connector)
    await assert_refused(http, connect_url, 410)


async def test_a_socket_that_says_nothing_uses_the_url_up(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    assert await socket_status(http, connect_url) == 101
    await ended(connector)
    await assert_refused(http, connect_url, 410)
    assert await stage.participants(room) == {}


@BOTH
async def test_after_its_time_it_is_gone(stage: Stage, room: str, http: aiohttp.ClientSession, direction: Any) -> None:
    connector = await stage.connector(connect_timeout=2.0)
    connect_url = await connect_call(stage.client(connector), room, direction)
    record = await ended(connector)
    assert record.end_reason is EndReason.CONNECT_TIMEOUT
    await assert_refused(http, connect_url, 410)
    assert await stage.participants(room) == {}


async def test_after_the_end_of_its_call_it_is_gone(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    await ended(connector)
    await assert_refused(http, connect_url, 410)


@pytest.mark.parametrize("place", [0, 1, 5, 12, 30, 60, -40, -2, -1])
async def test_an_altered_token_is_unknown(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession, place: int
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    token = list(token_of(connect_url))
    token[place] = "A" if token[place] != "A" else "B"
    await assert_refused(http, f"{base_of(connect_url)}/{''.join(token)}", 404)
    assert only_session(connector).state is CallState.RINGING


async def test_a_token_signed_with_another_secret_is_unknown(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    call = only_session(connector)
    foreign = TokenSigner("another-secret" * 3).mint(call.call_id, time.time() + 90)
    await assert_refused(http, f"{base_of(connect_url)}/{foreign}", 404)
    assert call.state is CallState.RINGING


async def test_a_genuine_token_of_a_call_that_never_was_is_unknown(
    stage: Stage, connector: Connector, http: aiohttp.ClientSession
) -> None:
    token = TokenSigner(stage.livekit.api_secret).mint(new_call_id(), time.time() + 90)
    await assert_refused(http, f"ws://127.0.0.1:{connector.port}/twilio/{token}", 404)


MALFORMED = [
    "x",
    "null",
    "a" * 300,
    "a" * 8000,
    "AUHa",
    "%20",
    "%00",
    "%0a",
    "..%2fhealthz",
    "%c3%a9",
    "%ff",
    "a=b",
    "-_",
]


@pytest.mark.parametrize("token", MALFORMED)
async def test_a_malformed_token_is_unknown(stage: Stage, http: aiohttp.ClientSession, token: str) -> None:
    connector = await stage.connector(twilio_auth_token="")
    await assert_refused(http, f"ws://127.0.0.1:{connector.port}/twilio/{token}", 404)


@pytest.mark.parametrize("path", ["", "/", "/a/b", "/..", "/%2e%2e"])
async def test_a_path_that_holds_no_token_leads_nowhere(stage: Stage, http: aiohttp.ClientSession, path: str) -> None:
    connector = await stage.connector(twilio_auth_token="")
    assert await socket_status(http, f"ws://127.0.0.1:{connector.port}/twilio{path}") == 404


async def test_a_token_with_something_more_or_less_is_unknown(
    stage: Stage, room: str, http: aiohttp.ClientSession
) -> None:
    connector = await stage.connector(twilio_auth_token="")
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    for addition in ("A", "=", "==", "%3d", "%0a", "%20", "/", "/x", "."):
        assert await socket_status(http, connect_url + addition) == 404, addition
    for piece in (1, 4, 10):
        assert await socket_status(http, connect_url[:-piece]) == 404, piece
    assert await socket_status(http, connect_url) == 101


@BOTH
async def test_refusals_leave_the_url_as_it_was(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession, direction: Any
) -> None:
    connect_url = await connect_call(stage.client(connector), room, direction)
    before = (await stage.participants(room)).keys()
    for _ in range(3):
        await assert_refused(http, connect_url[:-1], 404)
        assert await socket_status(http, connect_url, token="another-auth-token") == 403
    assert (await stage.participants(room)).keys() == before
    socket = await open_socket(http, connect_url)
    await start_stream(socket)
    call = only_session(connector)
    await until(lambda: call.state is CallState.ACTIVE)
    await socket.close()


async def test_an_upgrade_that_is_no_handshake_does_not_use_the_url_up(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    page = await fetch(http, connect_url, method="GET", headers={"Connection": "Upgrade", "Upgrade": "websocket"})
    assert page.status in (400, 403)
    assert await socket_status(http, connect_url) == 101


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
async def test_other_methods_do_nothing(
    stage: Stage, room: str, connector: Connector, http: aiohttp.ClientSession, method: str
) -> None:
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    assert (await fetch(http, connect_url, method=method)).status == 405
    assert only_session(connector).state is CallState.RINGING
