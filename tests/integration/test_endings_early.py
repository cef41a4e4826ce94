"""Calls that end before they are active, or lose LiveKit: docs/endings.md has the same table for people."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from carrier_simulator import Fault
from carrier_simulator.twilio.signing import signed_headers
from connector.model.end_reason import EndReason
from demo.livekit_server import LiveKitServer
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    PATIENCE,
    TWILIO_TOKEN,
    Stage,
    connect_call,
    only_session,
    place,
    stage_on,
)
from tests.integration.scene import Scene, delete_room, remove_caller, set_scene, take_identity

BOTH = pytest.mark.parametrize("direction", [OUTBOUND, INBOUND], ids=["outbound", "inbound"])


async def stops_the_service(scene: Scene) -> None:
    await scene.connector.calls.drain(0)


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (delete_room, EndReason.ROOM_DELETED),
        (remove_caller, EndReason.PARTICIPANT_REMOVED),
        (take_identity, EndReason.DUPLICATE_IDENTITY),
        (stops_the_service, EndReason.SHUTDOWN),
    ],
    ids=["room deleted", "participant removed", "identity taken", "service stopped"],
)
async def test_a_call_that_ends_while_it_rings_and_then_its_connect_url_is_gone(
    stage: Stage, room: str, log: list[Any], act: Callable[[Scene], Awaitable[None]], reason: EndReason
) -> None:
    scene = await set_scene(stage, room)
    scene.log = log
    assert (await stage.participants(room))["caller"].permission.hidden
    await act(scene)
    await scene.assert_all_free(reason, in_room=act is take_identity)
    assert not [p for (p,) in scene.guest.saw("participant_connected") if p.name == "caller"]
    call = place(scene.twilio, scene.connect_url)
    await call.ended.wait()
    assert [error.code for error in call.errors] == [Fault.HTTP_RETRIEVAL]


@BOTH
async def test_a_call_that_nobody_answers_times_out(stage: Stage, room: str, log: list[Any], direction: Any) -> None:
    scene = await set_scene(stage, room, direction, connect_timeout=2.0)
    scene.log = log
    assert ("caller" in await stage.participants(room)) is (direction is OUTBOUND)
    await asyncio.wait_for(only_session(scene.connector).finished.wait(), PATIENCE)
    record = await scene.assert_all_free(EndReason.CONNECT_TIMEOUT)
    assert not record.started_at
    assert not scene.guest.saw("participant_connected")


async def test_a_room_made_for_a_call_that_nobody_answers_goes_with_it(stage: Stage, room: str) -> None:
    connector = await stage.connector(connect_timeout=2.0)
    await connect_call(stage.client(connector), room)
    assert room in await stage.rooms()
    await asyncio.wait_for(only_session(connector).finished.wait(), PATIENCE)
    assert room not in await stage.rooms()


@BOTH
async def test_the_carrier_hangs_up_right_after_the_start(
    stage: Stage, room: str, log: list[Any], direction: Any
) -> None:
    scene = await set_scene(stage, room, direction)
    scene.log = log
    call = scene.answer()
    await call.stream_started.wait()
    await call.hangup()
    await scene.assert_all_free(EndReason.CARRIER_HANGUP)


MEDIA = {"event": "media", "streamSid": "MZ1", "media": {"track": "inbound", "payload": "//8="}}


@BOTH
async def test_a_message_before_the_start_is_no_stream(stage: Stage, room: str, log: list[Any], direction: Any) -> None:
    scene = await set_scene(stage, room, direction)
    scene.log = log
    socket = await scene.twilio.web.open_stream(scene.connect_url)
    await socket.send_json({"event": "connected", "protocol": "Call", "version": "1.0.0"})
    await socket.send_json(MEDIA)
    message = await socket.receive(5)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1002)
    await scene.assert_all_free(EndReason.PROTOCOL_ERROR)
    assert not scene.guest.saw("participant_connected")


@BOTH
async def test_a_socket_that_says_nothing_is_closed(stage: Stage, room: str, log: list[Any], direction: Any) -> None:
    scene = await set_scene(stage, room, direction, media_timeout=0.4)
    scene.log = log
    socket = await scene.twilio.web.open_stream(scene.connect_url)
    message = await socket.receive(5)
    assert (message.type, message.data) == (aiohttp.WSMsgType.CLOSE, 1000)
    await scene.assert_all_free(EndReason.MEDIA_TIMEOUT)


async def test_a_peer_that_never_answers_the_close_is_cut_off(stage: Stage, room: str, log: list[Any]) -> None:
    scene = await set_scene(stage, room, media_timeout=0.4)
    scene.log = log
    address = scene.connector.settings.host, scene.connector.port
    reader, writer = await asyncio.open_connection(*address)
    path = scene.connect_url.split("/", 3)[3]
    url = f"ws://{address[0]}:{address[1]}/{path}"
    headers = {
        "Host": f"{address[0]}:{address[1]}",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        **signed_headers(TWILIO_TOKEN, url),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    writer.write(f"GET /{path} HTTP/1.1\r\n{lines}\r\n".encode())
    assert b"101" in await reader.readline()
    started = time.monotonic()
    with contextlib.suppress(ConnectionResetError):
        await asyncio.wait_for(reader.read(), PATIENCE)
    assert time.monotonic() - started < 5
    writer.close()
    await scene.assert_all_free(EndReason.MEDIA_TIMEOUT)


@BOTH
async def test_a_stream_of_another_call_is_refused(stage: Stage, room: str, log: list[Any], direction: Any) -> None:
    scene = await set_scene(stage, room, direction)
    scene.log = log
    page = await scene.twilio.web.fetch(
        scene.connect_url.replace("ws", "http", 1), "POST", [("CallSid", "CA" + "0" * 32)]
    )
    assert b"<Stream" in page.body
    call = scene.answer()
    await call.ended.wait()
    assert scene.stream.close_code == 1008
    assert [error.code for error in call.errors] == [Fault.STREAM_CLOSED]
    await scene.assert_all_free(EndReason.CALL_MISMATCH)
    assert not scene.guest.saw("participant_connected")


@pytest.fixture
async def own_stage(own_livekit: LiveKitServer, tmp_path: Path) -> AsyncIterator[Stage]:
    async with stage_on(own_livekit, tmp_path) as stage:
        yield stage


async def test_livekit_lost_and_not_regained_ends_the_call(own_stage: Stage, room: str, log: list[Any]) -> None:
    scene = await set_scene(own_stage, room, reconnect_timeout=1.0)
    scene.log = log
    call = await scene.talk()
    await own_stage.livekit.kill()
    killed = time.monotonic()
    await call.ended.wait(PATIENCE)
    # Seconds to notice, the time allowed, and none for a goodbye that nobody can hear.
    assert time.monotonic() - killed < 8.0
    assert scene.stream.close_code == 1000
    assert call.spoken
    await scene.assert_all_free(EndReason.LIVEKIT_LOST)


async def test_livekit_gone_when_the_stream_starts(own_stage: Stage, room: str, log: list[Any]) -> None:
    scene = await set_scene(own_stage, room, INBOUND)
    scene.log = log
    await own_stage.livekit.kill()
    call = scene.answer()
    await call.ended.wait(PATIENCE)
    assert call.spoken
    await scene.assert_all_free(EndReason.LIVEKIT_UNAVAILABLE)
