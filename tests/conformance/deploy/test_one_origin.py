"""One LIVEKIT_URL: LiveKit's SDK, an agent, a guest and the carrier all use the same https origin."""

from __future__ import annotations

import asyncio
import json
import sys
from urllib.parse import urlsplit

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from livekit import api

from carrier_simulator import Document, Fault
from carrier_simulator.twilio.signing import signed_headers
from connector.model.end_reason import EndReason
from connectorpb.v1 import connector_pb2 as pb
from connectorpb.v1 import connector_pb2_grpc as pb_grpc
from demo.connector_process import clean_environment
from demo.echo_agent import EchoAgent
from tests.conformance.deploy.origin import HOST, run
from tests.conformance.deploy.service import Service
from tests.integration.harness import TWILIO_TOKEN, connect_call, ended, only_session, place, strength, tone, until


async def test_rooms_agents_and_a_call_in_both_directions(service: Service, room: str) -> None:
    sdk = await service.sdk()
    await sdk.room.create_room(api.CreateRoomRequest(name=room, metadata="made through the proxy"))
    await sdk.agent_dispatch.create_dispatch(api.CreateAgentDispatchRequest(agent_name="nobody", room=room))
    assert "nobody" in {dispatch.agent_name for dispatch in await sdk.agent_dispatch.list_dispatch(room)}

    guest = await service.guest(room)
    assert guest.room.metadata == "made through the proxy"
    await guest.publish()
    connect_url = await connect_call(sdk, room)
    assert connect_url.startswith(f"wss://{HOST}:{service.origin.port}/twilio/")

    call = place(await service.twilio(), connect_url)
    await guest.event("track_subscribed")
    call.say(tone(600, 1.0))
    await guest.until(lambda: strength(guest.sound_of("caller")[-4000:], 600) > 4000)
    guest.start_saying(tone(900, 4.0))
    await until(lambda: strength(call.heard[-3000:], 900) > 4000)

    await call.hangup()
    await guest.event("participant_disconnected")
    assert (await ended(service.connector)).end_reason is EndReason.CARRIER_HANGUP
    assert not call.errors
    token = urlsplit(connect_url).path.rpartition("/")[2]
    assert token not in service.origin.log()


@pytest.mark.timeout(120)
async def test_an_agent_registers_through_the_origin_and_answers_a_call(service: Service, room: str) -> None:
    livekit = service.stage.livekit
    environment = {
        **livekit.environment,
        "LIVEKIT_URL": service.origin.url.replace("http", "ws", 1),
        "SSL_CERT_FILE": str(service.origin.authority.ca),
    }
    async with EchoAgent(environment, greeting="") as agent:
        sdk = await service.sdk()
        connect_url = await connect_call(sdk, room, agents=[api.RoomAgentDispatch(agent_name=agent.name)])
        guest = await service.guest(room)
        call = place(await service.twilio(), connect_url)
        await guest.event("track_subscribed", lambda track, publication, who: who.identity != "caller", 20)
        call.say(tone(700, 4.0))
        await guest.until(
            lambda: any(strength(guest.sound_of(who)[-4000:], 700) > 2000 for who in guest.heard if who != "caller"), 20
        )
        await call.stream.first_sound.wait(10)
        await call.hangup()
        assert not call.errors


async def test_a_forged_signature_is_refused_at_fetch_and_handshake(service: Service, room: str) -> None:
    connect_url = await connect_call(await service.sdk(), room)
    twilio = await service.twilio()
    twilio.web.signing_token = "somebody else's"
    fetched = place(twilio, connect_url)
    await fetched.finished()
    opened = twilio.dial("+15551234567", "+15557654321", Document(inline=_twiml(connect_url)))
    await opened.finished()
    assert [(error.code, error.message.rpartition(" ")[2]) for error in fetched.errors + opened.errors] == [
        (Fault.HTTP_RETRIEVAL, "403"),
        (Fault.STREAM_HANDSHAKE, "403"),
    ]
    assert not only_session(service.connector).claimed
    twilio.web.signing_token = TWILIO_TOKEN
    real = place(twilio, connect_url)
    await real.stream_started.wait()
    await real.hangup()
    assert not real.errors


def _twiml(connect_url: str) -> str:
    return f'<Response><Connect><Stream url="{connect_url}"/></Connect></Response>'


async def test_only_the_public_url_s_signature_counts(service: Service, room: str) -> None:
    """Somebody who has one of an inner address, or of another host that leads here, has none."""
    connect_url = await connect_call(await service.sdk(), room)
    path = urlsplit(connect_url).path
    public = service.origin.url + path
    session = await service.http()
    statuses = {}
    for url in (public, f"http://127.0.0.1:{service.connector.port}{path}", f"https://attacker.example{path}"):
        host = urlsplit(url).netloc
        headers = {**signed_headers(TWILIO_TOKEN, url), "X-Forwarded-Host": host, "X-Original-Host": host}
        async with session.get(public, headers=headers) as response:
            statuses[url] = response.status
    assert list(statuses.values()) == [200, 403, 403]


async def test_the_origin_says_that_it_is_ready_and_keeps_its_figures_inside(service: Service) -> None:
    session = await service.http()
    seen = {}
    for path in ("/healthz", "/readyz", "/metrics", "/"):
        async with session.get(service.origin.url + path) as response:
            seen[path] = response.status, await response.text()
    assert {path: status for path, (status, _) in seen.items()} == {
        "/healthz": 200,
        "/readyz": 200,
        "/metrics": 404,
        "/": 200,
    }
    assert json.loads(seen["/readyz"][1]) == {"status": "ready"}
    assert seen["/"][1] == "OK"
    async with session.get(f"http://127.0.0.1:{service.connector.port}/metrics") as response:
        assert response.status == 200


async def test_the_doctor_is_content_with_the_origin(service: Service) -> None:
    environment = {
        **clean_environment(),
        **service.stage.livekit.environment,
        "CONNECTOR_PUBLIC_URL": service.origin.url,
        "CONNECTOR_STORE": service.connector.settings.store,
        "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
        "SSL_CERT_FILE": str(service.origin.authority.ca),
    }
    asked = await asyncio.to_thread(run, [sys.executable, "-m", "connector", "doctor"], env=environment)
    # Rich breaks lines at the width it finds.
    assert f"{service.origin.url} reaches a connector" in " ".join(asked.stdout.split())
    assert "fix:" not in asked.stdout


async def test_grpc_through_the_origin(service: Service, room: str) -> None:
    livekit = service.stage.livekit
    credentials = grpc.ssl_channel_credentials(service.origin.authority.ca.read_bytes())
    grants = api.VideoGrants(room_create=True)
    token = api.AccessToken(livekit.api_key, livekit.api_secret).with_grants(grants).to_jwt()
    request = pb.ConnectTwilioCallRequest(
        twilio_call_direction=pb.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND, room_name=room
    )
    async with grpc.aio.secure_channel(f"{HOST}:{service.origin.port}", credentials) as channel:
        stub = pb_grpc.ConnectorStub(channel)
        answer = await stub.ConnectTwilioCall(request, metadata=[("authorization", f"Bearer {token}")], timeout=10)
        assert answer.connect_url.startswith(f"wss://{HOST}:{service.origin.port}/twilio/")
        # More than once: a proxy that flushes early loses an error's status in about every fifth response.
        for _ in range(30):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.ConnectTwilioCall(request, timeout=10)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            assert "Authorization" in (refused.value.details() or "")
        health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
        assert health.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_connector_that_is_down_is_told_apart_from_livekit(service: Service, room: str) -> None:
    sdk = await service.sdk()
    await service.connector.stop(0.0)
    with pytest.raises(api.TwirpError) as down:
        await connect_call(sdk, room)
    assert (down.value.code, down.value.status) == ("unavailable", 503)
    assert down.value.message.startswith("connector cannot be reached")
    assert not (await sdk.room.list_rooms(api.ListRoomsRequest(names=[room]))).rooms
