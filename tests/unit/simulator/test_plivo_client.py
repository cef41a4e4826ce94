"""The simulated Plivo's API, driven by Plivo's own package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import plivo
import pytest
from plivo.exceptions import AuthenticationError, ResourceNotFoundError, ValidationError

from carrier_simulator import PlivoSimulator
from carrier_simulator.verbs import Target
from tests.unit.simulator.application import Application

TO, FROM = "+15550001111", "+15552223333"
PAUSE = '<Wait length="60"/>'


@pytest.fixture
async def carrier(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[PlivoSimulator]:
    async with PlivoSimulator() as simulator:
        monkeypatch.setattr("plivo.rest.client.API_VOICE_BASE_URI", f"{simulator.base_url}/v1/Account")
        yield simulator


@pytest.fixture
async def application() -> AsyncIterator[Application]:
    async with Application(lambda *_: True) as application:
        yield application


def client(carrier: PlivoSimulator, token: str = "") -> Any:
    return plivo.RestClient(carrier.auth_id, token or carrier.auth_token)


async def ask(what: Callable[..., Any], *args: Any, **fields: Any) -> Any:
    """The package is blocking."""
    return await asyncio.to_thread(what, *args, **fields)


async def test_it_places_a_call_and_hangs_up(carrier: PlivoSimulator, application: Application) -> None:
    calls = client(carrier).calls
    placed = await ask(calls.create, from_=FROM, to_=TO, answer_url=application.page("/voice", PAUSE))
    call = await carrier.next_call()
    assert (placed.request_uuid, placed.message, call.to, call.from_) == (call.sid, "call fired", TO, FROM)
    await call.fetched.wait()
    assert (await ask(calls.get, call.sid))["call_state"] == "in-progress"
    await ask(calls.delete, call.sid)
    await call.ended.wait()
    assert call.status == "completed"


async def test_it_transfers_a_call(carrier: PlivoSimulator, application: Application) -> None:
    calls = client(carrier).calls
    await ask(calls.create, from_=FROM, to_=TO, answer_url=application.page("/voice", PAUSE))
    call = await carrier.next_call()
    await call.fetched.wait()
    url = application.page("/dial", "<Dial><Number>15559990000</Number></Dial>")
    answer = await ask(calls.transfer, call.sid, legs="aleg", aleg_url=url, aleg_method="POST")
    await call.transferred.wait()
    assert (answer["call_uuids"], call.dialled) == ([call.sid], [Target("15559990000")])


async def test_its_errors_are_plivos(carrier: PlivoSimulator) -> None:
    with pytest.raises(ResourceNotFoundError):
        await ask(client(carrier).calls.delete, "nobody")
    with pytest.raises(AuthenticationError):
        await ask(client(carrier, "wrong").calls.delete, "nobody")
    with pytest.raises(ValidationError):
        await ask(client(carrier).calls.create, from_=FROM, to_="sip:a@b", answer_url="http://127.0.0.1:9/")
    assert not carrier.calls
