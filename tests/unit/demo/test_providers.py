"""The demo's accounts: what an application does with each carrier, tried against its simulator."""

from __future__ import annotations

import json

import pytest

from connector.config_sources import load_settings
from demo.providers import ACCOUNTS

TO, FROM = "+15550001111", "+15552223333"


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_an_account_places_a_call(name: str) -> None:
    account = ACCOUNTS[name]()
    async with account.carrier:
        await account.place(TO, FROM, "http://127.0.0.1:9/document")
        call = await account.carrier.next_call()
        assert (call.to, call.from_) == (TO, FROM)
        await call.answered.wait()


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_a_connector_takes_the_accounts_settings(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    account = ACCOUNTS[name]()
    async with account.carrier:
        for key, value in {"LIVEKIT_API_KEY": "k", "LIVEKIT_API_SECRET": "s", **account.environment()}.items():
            monkeypatch.setenv(key, value)
        settings = load_settings()
        assert getattr(settings, f"{name}_api_url") == account.carrier.base_url


@pytest.mark.parametrize("name", ACCOUNTS)
async def test_what_a_person_types_names_the_room_and_the_numbers(name: str) -> None:
    account = ACCOUNTS[name]()
    async with account.carrier:
        path, body = account.request("my-room", "echo")
        assert path.endswith(account.method)
        assert (json.loads(body)["roomName"], json.loads(body)["agents"]) == ("my-room", [{"agentName": "echo"}])
        order = account.order(TO, FROM, "$CONNECT_URL")
        assert all(part in order for part in (TO, FROM, "$CONNECT_URL", account.carrier.base_url))


async def test_a_call_that_is_refused_says_why() -> None:
    account = ACCOUNTS["plivo"]()
    async with account.carrier:
        with pytest.raises(OSError, match=r"answered 400: .*E\.164"):
            await account.place("nobody", FROM, "http://127.0.0.1:9/document")
