"""Who gets which request, what of it the proxy may change, and how long a quiet connection lives.

In front of stand-ins: everything that is asked here, the configuration alone decides.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import aiohttp
import grpc
import psutil
import pytest

from tests.conformance.deploy.backends import WATCH, Backends
from tests.conformance.deploy.origin import HOST, Nginx, Origin
from tests.integration.harness import until

QUIET = 2.5
"""Seconds; what nginx inherits in these tests lasts one (origin.py)."""


@pytest.fixture
async def http(origin: Origin) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=origin.authority.context)
    async with aiohttp.ClientSession(origin.url, connector=connector) as session:
        yield session


@pytest.fixture
async def channel(origin: Origin) -> AsyncIterator[grpc.aio.Channel]:
    credentials = grpc.ssl_channel_credentials(origin.authority.ca.read_bytes())
    async with grpc.aio.secure_channel(f"{HOST}:{origin.port}", credentials) as channel:
        yield channel


LIVEKIT = (
    "/",
    "/rtc",
    "/rtc/validate",
    "/rtc/v1",
    "/rtc/v1/validate",
    "/agent",
    "/whip/v1",
    "/settings/regions",
    "/twirp/livekit.RoomService/CreateRoom",
    "/twirp/livekit.AgentDispatchService/CreateDispatch",
    "/twirp/livekit.SIP/ListSIPInboundTrunk",
    "/twirp/livekit.Egress/ListEgress",
    "/twirp/livekit.ConnectorOfTomorrow/X",
    "/what/comes/next",
    "/twilio",
    "/healthzz",
)
CONNECTOR = (
    "/twirp/livekit.Connector/ConnectTwilioCall",
    "/twirp/connector.v1.Connector/ListCalls",
    "/twilio/token",
    "/twilio/token/status",
    "/telnyx/token",
    "/plivo/token",
    "/v2/connectors",
    "/v2/hooks/twilio/whk_1",
    "/healthz",
    "/readyz",
)
PRIVATE = (
    "/metrics",
    "/metrics/",
    "/metrics/x",
    "/debug/pprof/",
    "/debug/rooms",
    "/v2/../metrics",
    "/v2/%2e%2e/metrics",
)
GRPC = (
    "/livekit.Connector/ConnectTwilioCall",
    "/connector.v1.Connector/ListCalls",
    "/grpc.health.v1.Health/Check",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
)


async def test_every_path_reaches_the_program_it_belongs_to(backends: Backends, http: aiohttp.ClientSession) -> None:
    wanted = dict.fromkeys(LIVEKIT, "livekit") | dict.fromkeys(CONNECTOR, "connector")
    reached = {}
    for path in wanted:
        async with http.post(path) as response:
            reached[path] = (await response.json())["who"]
    assert reached == wanted


async def test_what_is_for_the_inside_is_not_shown_outside(backends: Backends, origin: Origin) -> None:
    answers = {path: await _as_written(origin, path) for path in PRIVATE}
    assert {path: answer.split()[1] for path, answer in answers.items()} == dict.fromkeys(PRIVATE, b"404")
    assert not [path for path, answer in answers.items() if b"who" in answer]


async def _as_written(origin: Origin, path: str) -> bytes:
    """The whole answer to a GET sent byte by byte: a client would tidy the path up."""
    reader, writer = await asyncio.open_connection(HOST, origin.port, ssl=origin.authority.context)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\nConnection: close\r\n\r\n".encode())
    async with asyncio.timeout(5):
        answer = await reader.read()
    writer.close()
    return answer


async def test_grpc_reaches_the_connector_s_own_port(backends: Backends, channel: grpc.aio.Channel) -> None:
    for path in GRPC:
        assert await channel.unary_unary(path, bytes, bytes)(b"", timeout=5) == path.encode()


async def test_a_request_arrives_as_it_was_sent(backends: Backends, http: aiohttp.ClientSession) -> None:
    target = "/twilio/a%2Fb~%20c?d=%C3%A9&e=f/g"
    async with http.post(target, data=b"x" * 600_000, headers={"X-Twilio-Signature": "s="}) as response:
        seen = await response.json()
    assert (seen["target"], seen["body"]) == (target, 600_000)
    assert seen["headers"]["X-Twilio-Signature"] == "s="
    assert seen["headers"]["Host"] in (HOST, f"{HOST}:{http._base_url.port if http._base_url else 0}")


async def test_a_join_request_as_long_as_the_sdk_s_fits(backends: Backends, http: aiohttp.ClientSession) -> None:
    async with http.get("/rtc/v1", params={"join_request": "j" * 40_000}) as response:
        assert response.status == 200
        assert len((await response.json())["target"]) > 40_000


async def test_what_a_client_says_of_its_own_address_is_not_believed(
    backends: Backends, http: aiohttp.ClientSession
) -> None:
    lie = "203.0.113.9"
    claims = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "CF-Connecting-IP"), lie)
    for path in ("/rtc", "/twilio/token"):
        async with http.get(path, headers=claims) as response:
            seen = (await response.json())["headers"]
        assert seen["X-Forwarded-For"] == "127.0.0.1"
        assert "CF-Connecting-IP" not in seen or path != "/rtc"
        assert seen["X-Forwarded-Proto"] == "https"


async def test_plain_http_is_sent_to_https(origin: Origin) -> None:
    async with aiohttp.ClientSession() as session:
        url = f"http://{HOST}:{origin.http_port}/rtc?x=y"
        async with session.get(url, allow_redirects=False) as response:
            assert response.status in (301, 308)
            assert response.headers["Location"] == f"https://{HOST}/rtc?x=y"


@pytest.mark.parametrize(
    ("path", "who"), [("/twilio/token", "connector"), ("/rtc/v1", "livekit"), ("/agent", "livekit")]
)
async def test_a_quiet_socket_outlives_the_proxy_s_timeouts(
    backends: Backends, http: aiohttp.ClientSession, path: str, who: str
) -> None:
    async with http.ws_connect(path) as socket:
        await asyncio.sleep(QUIET)
        await socket.send_str("a word")
        assert await socket.receive_str(timeout=5) == f"{who} heard a word"


async def test_a_quiet_grpc_stream_outlives_the_proxy_s_timeouts(backends: Backends, channel: grpc.aio.Channel) -> None:
    call = channel.unary_stream(WATCH, bytes, bytes)(b"", timeout=20)
    assert await call.read() == WATCH.encode()
    await asyncio.sleep(QUIET)
    backends.news.set()
    assert await call.read() == b"news"


@pytest.mark.parametrize("proxy", [Nginx])
async def test_nginx_upgrades_to_a_websocket_and_nothing_else(backends: Backends, http: aiohttp.ClientSession) -> None:
    async with http.get("/rtc", headers={"Upgrade": "h2c", "Connection": "Upgrade, HTTP2-Settings"}) as response:
        seen = (await response.json())["headers"]
    assert "Upgrade" not in seen


async def test_a_dead_upstream_is_twirp_s_unavailable_to_an_sdk_and_a_502_to_others(
    http: aiohttp.ClientSession,
) -> None:
    """Nothing listens behind this origin."""
    said = {}
    for path in ("/twirp/livekit.RoomService/ListRooms", "/twirp/connector.v1.Connector/ListCalls"):
        async with http.post(path) as response:
            assert (response.status, response.content_type) == (503, "application/json")
            said[path] = (await response.json())["code"], (await response.json())["msg"].split()[0]
    assert list(said.values()) == [("unavailable", "livekit-server"), ("unavailable", "connector")]
    for path in ("/twilio/token", "/rtc", "/readyz"):
        async with http.get(path) as response:
            assert response.status == 502


async def test_no_token_is_logged_even_when_requests_fail(
    backends: Backends, origin: Origin, http: aiohttp.ClientSession
) -> None:
    secret = "s3cr3t-of-the-test"
    targets = (
        f"/twilio/{secret}",
        f"/twilio/{secret}/status",
        f"/plivo/{secret}?a=b",
        f"/v2/hooks/telnyx/{secret}?roomId=r",
        f"/rtc?access_token={secret}",
        f"/rtc/v1?a=b&join_request={secret}&access_token={secret}",
    )
    headers = {"Authorization": f"Bearer {secret}"}
    for status in (200, 502):
        for target in targets:
            async with http.get(target, headers=headers) as response:
                assert response.status == status
        if status == 200:
            await backends.stop("livekit")
            await backends.stop("connector")
    await until(lambda: "/twilio/-" in origin.log())
    assert secret not in origin.log()


@pytest.mark.parametrize("proxy", [Nginx])
async def test_nginx_reloads_without_cutting_a_call(
    backends: Backends, origin: Origin, http: aiohttp.ClientSession
) -> None:
    master = psutil.Process(origin.pid)
    async with http.ws_connect("/twilio/token") as socket:
        before = {child.pid for child in master.children()}
        os.kill(origin.pid, signal.SIGHUP)
        await until(lambda: len({child.pid for child in master.children()} - before) >= 2)
        await socket.send_str("still here")
        assert await socket.receive_str(timeout=5) == "connector heard still here"
