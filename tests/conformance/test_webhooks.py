"""The examples that answer a Twilio number, each called by the simulated carrier."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from livekit import api

from carrier_simulator import Fault, TwilioSimulator
from carrier_simulator.twilio.signing import signed_headers
from connector.app import Connector
from demo.ports import PortLease
from demo.process import ChildProcess
from tests.conformance.programs import Program, environment
from tests.conformance.talk import dispatched, talk_both_ways
from tests.integration.harness import TWILIO_TOKEN, Stage, only_session, until

PUBLIC_URL = "https://voice.example.com"
"""What the carrier is given; it reaches the example through a (simulated) proxy."""
GREETING = "This is LiveKit Twilio Connector."
APOLOGY = "We are sorry, this call cannot be connected right now. Please try again later."
CALLER = "+15552223333"
START_PATIENCE = 30.0

Serve = Callable[[Connector], Awaitable[str]]


@pytest.fixture
async def serve(webhook: Program) -> AsyncIterator[Serve]:
    """Start the example for a connector; its origin, without the proxy."""
    lease = PortLease()
    started: list[ChildProcess] = []

    async def start(connector: Connector) -> str:
        settings = {
            "PORT": str(lease.port),
            "PUBLIC_URL": PUBLIC_URL,
            "TWILIO_AUTH_TOKEN": TWILIO_TOKEN,
            "AGENT_NAME": "support-agent",
            "LIVEKIT_URL": connector.settings.public_origin,
            "LIVEKIT_API_KEY": connector.settings.livekit_api_key,
            "LIVEKIT_API_SECRET": connector.settings.livekit_api_secret.get_secret_value(),
        }
        process = ChildProcess(f"the {webhook.language} example", webhook.argv, environment(**settings))
        started.append(process)
        process.spawn()
        await process.until_prints("listening on", START_PATIENCE)
        return f"http://127.0.0.1:{lease.port}"

    yield start
    for process in started:
        print(process.log())
        await process.stop()
        process.close()
    lease.close()


def behind_a_proxy(twilio: TwilioSimulator, origin: str) -> str:
    """The number's webhook URL, which leads to `origin`."""
    twilio.web.routes[PUBLIC_URL] = origin
    return f"{PUBLIC_URL}/voice"


async def test_a_caller_meets_the_room(stage: Stage, serve: Serve) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    url = behind_a_proxy(twilio, await serve(connector))

    call = twilio.inbound_call(url, from_=CALLER)
    room = f"call-{call.sid}"
    guest = await stage.guest(room)
    await talk_both_ways(guest, call, CALLER)

    assert call.spoken == [GREETING]
    (record,) = await connector.store.list_calls(2)
    assert (record.room, record.identity) == (room, CALLER)
    assert await dispatched(stage, room) == [("support-agent", "")]


async def test_a_stream_that_breaks_comes_back(stage: Stage, serve: Serve) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    url = behind_a_proxy(twilio, await serve(connector))

    call = twilio.inbound_call(url, from_=CALLER)
    guest = await stage.guest(f"call-{call.sid}")
    await guest.event("track_subscribed", lambda *args: args[2].identity == CALLER)
    await until(lambda: only_session(connector).state == "active")
    call.stream.abort()
    await until(lambda: len(call.streams) == 2 and call.stream.started.has_come())
    await talk_both_ways(guest, call, CALLER)

    assert call.spoken == [GREETING]
    assert len(await connector.store.list_calls(2)) == 1


@pytest.mark.parametrize("token", ["a token that is not this account's", None], ids=["forged", "unsigned"])
async def test_nobody_but_twilio_makes_calls(stage: Stage, serve: Serve, token: str | None) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    url = behind_a_proxy(twilio, await serve(connector))
    twilio.web.signing_token = token

    call = twilio.inbound_call(url, from_=CALLER)
    await call.finished()

    (error,) = call.errors
    assert error.code is Fault.HTTP_RETRIEVAL
    assert error.message.endswith("HTTP 403")
    assert await connector.store.list_calls(1) == []


async def test_a_signature_is_for_one_call(stage: Stage, serve: Serve) -> None:
    """A request as Twilio signs it, and the same one with another caller's number in it."""
    connector = await stage.connector()
    url = await serve(connector) + "/voice"
    form = {
        "CallSid": "CA0",
        "From": CALLER,
        "FromCity": "São Paulo",
        "CallerName": 'A&B = 50% + "C"',
        "StirVerstat": "",
    }
    signed = signed_headers(TWILIO_TOKEN, f"{PUBLIC_URL}/voice", list(form.items()))
    http = await stage.http()
    async with http.post(url, data=form | {"From": "+15550009999"}, headers=signed) as altered:
        assert altered.status == 403
    async with http.post(url, data=form, headers=signed) as honest:
        assert honest.status == 200


async def test_the_caller_is_told_when_it_cannot_be_done(stage: Stage, serve: Serve) -> None:
    connector = await stage.connector()
    twilio = await stage.twilio()
    url = behind_a_proxy(twilio, await serve(connector))
    await connector.stop(0.0)

    call = twilio.inbound_call(url, from_=CALLER)
    await call.finished()

    assert call.spoken == [APOLOGY]
    assert not call.streams
    assert not call.errors


async def test_a_refusal_is_told_too(stage: Stage, serve: Serve) -> None:
    """The service answers, but with an error."""
    connector = await stage.connector(max_calls=1)
    twilio = await stage.twilio()
    url = behind_a_proxy(twilio, await serve(connector))
    client = stage.client(connector)
    await client.connector.connect_twilio_call(api.ConnectTwilioCallRequest(room_name="the-one-call"))

    call = twilio.inbound_call(url, from_=CALLER)
    await call.finished()

    assert call.spoken == [APOLOGY]
    assert not call.errors


@pytest.mark.parametrize("missing", ["PUBLIC_URL", "TWILIO_AUTH_TOKEN", "LIVEKIT_URL"])
def test_what_is_not_set_is_named(webhook: Program, missing: str) -> None:
    names = ["PUBLIC_URL", "TWILIO_AUTH_TOKEN", "LIVEKIT_URL", "LIVEKIT_API_KEY", "LIVEKIT_API_SECRET"]
    settings = dict.fromkeys(names, "http://127.0.0.1:1") | {missing: ""}
    done = subprocess.run(
        webhook.argv, env=environment(**settings), capture_output=True, text=True, timeout=START_PATIENCE, check=False
    )
    assert done.returncode == 1
    assert f"set {missing}" in done.stderr


async def test_there_is_nothing_else(stage: Stage, serve: Serve) -> None:
    connector = await stage.connector()
    origin = await serve(connector)
    http = await stage.http()
    async with http.get(f"{origin}/") as response:
        assert response.status == 404
