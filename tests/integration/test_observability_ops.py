"""`/healthz`, `/readyz` and `/metrics`, as a load balancer and Prometheus read them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from livekit import api
from prometheus_client.parser import text_string_to_metric_families

from connector.api import ops
from connector.app import Connector
from connector.model.call import CallState
from demo.livekit_server import LiveKitServer
from tests.integration.gate import Gate, gate_to
from tests.integration.harness import (
    INBOUND,
    OUTBOUND,
    Stage,
    connect_call,
    ended,
    only_session,
    place,
    strength,
    tone,
    until,
)
from tests.integration.stranger import FORM, fetch
from tests.integration.wire import Wire

BOTH = pytest.mark.parametrize("direction", [INBOUND, OUTBOUND], ids=["inbound", "outbound"])


class Samples:
    """What `/metrics` says, by name and labels."""

    def __init__(self, text: str) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }

    def of(self, name: str, **labels: str) -> float:
        """0 for a sample that is not there."""
        return self._values.get((name, frozenset(labels.items())), 0.0)

    def sum(self, name: str, **labels: str) -> float:
        """Over the labels that are not given."""
        wanted = labels.items()
        return sum(value for (found, held), value in self._values.items() if found == name and wanted <= held)

    def labels(self, name: str) -> list[dict[str, str]]:
        return [dict(held) for found, held in self._values if found == name]


@pytest.fixture
async def http(stage: Stage) -> aiohttp.ClientSession:
    return await stage.http()


@pytest.fixture
async def gate(livekit: LiveKitServer) -> AsyncIterator[Gate]:
    async with gate_to(livekit.port) as gate:
        yield gate


async def get(http: aiohttp.ClientSession, connector: Connector, path: str) -> tuple[int, Any]:
    async with http.get(f"http://127.0.0.1:{connector.port}{path}") as response:
        return response.status, await response.json()


async def scrape(http: aiohttp.ClientSession, connector: Connector) -> Samples:
    async with http.get(f"http://127.0.0.1:{connector.port}/metrics") as response:
        assert response.status == 200
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        return Samples(await response.text())


async def test_a_connector_that_can_take_calls_is_ready(stage: Stage, http: aiohttp.ClientSession) -> None:
    connector = await stage.connector()
    assert await get(http, connector, "/healthz") == (200, {"status": "ok"})
    assert await get(http, connector, "/readyz") == (200, {"status": "ready"})


async def test_it_is_not_ready_while_livekit_is_away_and_ready_again_after(
    gate: Gate, stage: Stage, http: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ops, "READY_CACHE", 0.0)
    connector = await stage.connector(livekit_url=gate.url)
    gate.api = "close"
    status, answer = await get(http, connector, "/readyz")
    assert (status, answer["status"]) == (503, "not ready")
    origin = gate.url.replace("ws", "http")
    assert answer["problems"] == [
        f"livekit-server at {origin} cannot be reached: it closed the connection without an answer"
    ]
    assert (await get(http, connector, "/healthz"))[0] == 200
    gate.api = "pass"
    assert (await get(http, connector, "/readyz"))[0] == 200


async def test_it_is_not_ready_with_credentials_that_livekit_refuses(stage: Stage, http: aiohttp.ClientSession) -> None:
    connector = await stage.connector(livekit_api_secret="z" * 40)
    status, answer = await get(http, connector, "/readyz")
    assert status == 503
    assert "LIVEKIT_API_SECRET" in answer["problems"][0]


async def test_many_probes_ask_livekit_once(gate: Gate, stage: Stage, http: aiohttp.ClientSession) -> None:
    gate.api = "hang"
    connector = await stage.connector(livekit_url=gate.url)
    await until(lambda: gate.api_attempts == 1)  # Of the start, which warns of a LiveKit that is away.
    probes = [asyncio.create_task(get(http, connector, "/readyz")) for _ in range(20)]
    await until(lambda: gate.api_attempts > 1)
    gate.opened.set()
    assert {status for status, _ in await asyncio.gather(*probes)} == {200}
    assert gate.api_attempts == 2
    await get(http, connector, "/readyz")
    assert gate.api_attempts == 2


async def test_a_full_connector_is_not_ready_until_a_call_ends(
    stage: Stage, room: str, http: aiohttp.ClientSession
) -> None:
    connector = await stage.connector(max_calls=1)
    await connect_call(stage.client(connector), room, OUTBOUND)
    assert await get(http, connector, "/readyz") == (503, {"status": "not ready", "problems": ["full"]})
    await stage.admin.room.delete_room(api.DeleteRoomRequest(room=room))
    await ended(connector)
    assert (await get(http, connector, "/readyz"))[0] == 200


async def test_a_draining_connector_is_not_ready_and_takes_no_call(
    stage: Stage, room: str, http: aiohttp.ClientSession
) -> None:
    connector = await stage.connector()
    client = stage.client(connector)
    await connect_call(client, room, OUTBOUND)
    draining = asyncio.create_task(connector.calls.drain(30))
    await until(lambda: connector.calls.draining)
    assert await get(http, connector, "/readyz") == (503, {"status": "not ready", "problems": ["draining"]})
    assert (await get(http, connector, "/healthz"))[0] == 200
    with pytest.raises(api.TwirpError) as caught:
        await connect_call(client, room, OUTBOUND, participant_identity="another")
    assert (caught.value.status, caught.value.code) == (503, "unavailable")
    assert "shutting down" in caught.value.message
    assert only_session(connector).state is CallState.RINGING
    connector.calls.end_all()
    await draining


@BOTH
async def test_a_call_is_counted_in_every_metric(
    stage: Stage, room: str, http: aiohttp.ClientSession, direction: Any
) -> None:
    connector = await stage.connector()
    name = "inbound" if direction == INBOUND else "outbound"
    guest, twilio = await stage.guest(room), await stage.twilio()
    await guest.publish()
    connect_url = await connect_call(stage.client(connector), room, direction)
    waiting = "pending" if direction == INBOUND else "ringing"
    assert (await scrape(http, connector)).of("connector_calls_active", state=waiting) == 1

    call = place(twilio, connect_url)
    await guest.event("track_subscribed")
    call.say(tone(500, 1.0))
    await call.press("1")
    guest.start_saying(tone(700, 10.0))
    await until(lambda: strength(call.heard[-4000:], 700) > 4000)
    await until(lambda: call.stream.received_marks >= 1)
    await guest.event("sip_dtmf_received")
    during = await scrape(http, connector)
    assert during.of("connector_calls_active", state="active") == 1
    assert during.of("connector_calls_active", state=waiting) == 0
    assert during.sum("connector_calls_total") == 0
    # A mark comes back when what was sent before it has been played.
    await until(lambda: connector.metrics.playback_lag._sum.get() > 0)

    await call.hangup()
    record = await ended(connector)
    after = await scrape(http, connector)
    assert after.of("connector_calls_total", provider="twilio", direction=name, reason="carrier_hangup") == 1
    assert after.sum("connector_calls_total") == 1
    assert after.sum("connector_calls_active") == 0
    steps = ("api", "answer") if direction == INBOUND else ("api", "join", "answer")
    for step in steps:
        assert after.of("connector_setup_seconds_count", step=step, direction=name) == 1
        assert 0 < after.of("connector_setup_seconds_sum", step=step, direction=name) < 5
    assert after.of("connector_call_duration_seconds_count", direction=name) == 1
    duration = after.of("connector_call_duration_seconds_sum", direction=name)
    assert duration == pytest.approx(record.ended_at - record.started_at)
    assert after.of("connector_frames_total", path="from_carrier") > 20
    assert after.of("connector_frames_total", path="to_carrier") > 20
    assert after.of("connector_frame_lateness_seconds_count") >= after.of("connector_frames_total", path="from_carrier")
    assert after.of("connector_playback_lag_seconds_count") >= 1
    lag = after.of("connector_playback_lag_seconds_sum") / after.of("connector_playback_lag_seconds_count")
    assert 0 < lag < 1
    assert after.of("connector_dtmf_total", path="from_carrier") == 1


async def test_frames_that_are_thrown_away_are_counted_with_their_reason(
    stage: Stage, room: str, http: aiohttp.ClientSession
) -> None:
    connector = await stage.connector()
    guest, twilio = await stage.guest(room), await stage.twilio()
    call = place(twilio, await connect_call(stage.client(connector), room, OUTBOUND))
    await guest.event("track_subscribed")
    for payload in ("!!!", "a"):
        media = {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": payload}
        message = {"event": "media", "sequenceNumber": "9", "streamSid": call.stream.sid, "media": media}
        await call.stream.send_raw(json.dumps(message))
    before = (await scrape(http, connector)).of("connector_frames_total", path="from_carrier")
    await until(lambda: connector.metrics.frames.labels("from_carrier")._value.get() > before)
    samples = await scrape(http, connector)
    reasons = {labels["why"] for labels in samples.labels("connector_frames_dropped_total")}
    assert samples.sum("connector_frames_dropped_total", path="from_carrier") >= 2
    assert reasons
    await call.hangup()


async def test_refusals_are_counted_by_place_and_reason(stage: Stage, room: str, http: aiohttp.ClientSession) -> None:
    connector = await stage.connector()
    connect_url = await connect_call(stage.client(connector), room, OUTBOUND)
    wire = Wire(stage, connector, http)
    await fetch(http, connect_url, FORM, token="")
    await fetch(http, connect_url[:-1], FORM)
    await fetch(http, connect_url[:-1], FORM)
    await wire.send(b"{", headers={"Authorization": "Bearer x"})
    await wire.send(b"{")
    samples = await scrape(http, connector)
    assert samples.of("connector_refused_total", at="answer", why="SignatureInvalid") == 1
    assert samples.of("connector_refused_total", at="answer", why="TokenInvalid") == 2
    assert samples.of("connector_refused_total", at="api", why="unauthenticated") == 1
    assert samples.of("connector_refused_total", at="api", why="malformed") == 1


async def test_no_label_holds_what_a_client_chose(stage: Stage, room: str, http: aiohttp.ClientSession) -> None:
    """Prometheus keeps a series for each value of a label for ever."""
    connector = await stage.connector()
    twilio = await stage.twilio()
    client = stage.client(connector)
    call = place(twilio, await connect_call(client, room, OUTBOUND, participant_identity="somebody"))
    await call.stream_started.wait()
    wire = Wire(stage, connector, http)
    await wire.send(b"{}", path="/twirp/livekit.Connector/Something")
    await wire.send(b"{}", content_type="application/something")
    await call.hangup()
    await ended(connector)
    async with http.get(f"http://127.0.0.1:{connector.port}/metrics") as response:
        text = await response.text()
    for chosen in (room, "somebody", "omething", call.sid, "5551234567", "/"):
        assert not [line for line in text.splitlines() if chosen in line and not line.startswith("#")], chosen
