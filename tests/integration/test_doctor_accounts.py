"""`connector doctor` asks: the carriers about their accounts and numbers, the public URL for a WebSocket."""

from __future__ import annotations

from typing import Any

import pytest

from carrier_simulator import PlivoSimulator, TelnyxSimulator, TwilioSimulator
from connector.cli.common import api_token
from connector.cli.doctor import _public_url
from connector.cli.doctor_accounts import account_findings
from connector.cli.doctor_agent import agent_findings
from connector.cli.doctor_ice import hosts_of, ice_findings
from connector.livekit_api import opened_livekit
from connector.model.provider import Provider
from tests.integration.harness import TWILIO_TOKEN, Stage

Simulator = TwilioSimulator | TelnyxSimulator | PlivoSimulator


async def carrier(stage: Stage, provider: Provider) -> tuple[Simulator, dict[str, Any]]:
    """A simulated carrier, and the settings that reach it."""
    match provider:
        case Provider.TWILIO:
            twilio = TwilioSimulator(auth_token=TWILIO_TOKEN)
            await stage.enter(twilio)
            return twilio, {"twilio_account_sid": twilio.account_sid, "twilio_api_url": twilio.base_url}
        case Provider.TELNYX:
            telnyx = TelnyxSimulator()
            await stage.enter(telnyx)
            return telnyx, {"telnyx_api_key": telnyx.api_key, "telnyx_api_url": telnyx.base_url}
        case Provider.PLIVO:
            plivo = PlivoSimulator()
            await stage.enter(plivo)
            credentials = {"plivo_auth_id": plivo.auth_id, "plivo_auth_token": plivo.auth_token}
            return plivo, {**credentials, "plivo_api_url": plivo.base_url}


def said(findings: list[Any]) -> list[tuple[str, str]]:
    return [(finding.level, finding.text) for finding in findings]


@pytest.mark.parametrize("provider", Provider)
async def test_the_carrier_tells_where_each_number_points(stage: Stage, provider: Provider) -> None:
    simulator, credentials = await carrier(stage, provider)
    settings = stage.settings(**credentials)
    origin = settings.public_origin
    simulator.numbers = {
        "+15550000001": "https://app.example.com/voice",
        "+15550000002": f"{origin}/v2/hooks/{provider.value}/whk_of_nobody",
        "+15550000003": "",
        "+15550000004": f"https://old.example.com/v2/hooks/{provider.value}/whk_1",
        "+15550000005": f"{origin}/v2/hooks/other/whk_1",
    }
    account, *numbers = said(await account_findings(settings))
    assert account[0] == "ok"
    assert "the credentials are valid, 5 numbers" in account[1]
    assert [level for level, _ in numbers] == ["ok", "problem", "ok", "warning", "problem"]
    assert "+1********01 points to https://app.example.com/voice, which is not a connector's URL" in numbers[0][1]
    assert "which no connector in" in numbers[1][1]
    assert "has no voice URL" in numbers[2][1]
    assert "at https://old.example.com, which is not CONNECTOR_PUBLIC_URL" in numbers[3][1]
    assert "a connector for other" in numbers[4][1]


@pytest.mark.parametrize("provider", Provider)
async def test_placeholder_credentials_are_a_problem(stage: Stage, provider: Provider) -> None:
    _, credentials = await carrier(stage, provider)
    kept = {name: value for name, value in credentials.items() if name.endswith(("url", "sid", "id"))}
    wrong = dict.fromkeys(credentials, "placeholder") | kept
    settings = stage.settings(**({"twilio_auth_token": "placeholder"} | wrong))
    (finding,) = await account_findings(settings)
    assert finding.level == "problem"
    assert "401" in finding.text
    assert "placeholder" not in finding.text


async def test_a_carrier_that_cannot_be_reached_is_a_problem(stage: Stage) -> None:
    settings = stage.settings(twilio_account_sid="AC1", twilio_api_url=f"http://127.0.0.1:{stage.free_port()}")
    (finding,) = await account_findings(settings)
    assert (finding.level, "cannot be reached" in finding.text) == ("problem", True)


async def test_a_number_that_points_to_a_connector_of_this_store_is_well(stage: Stage) -> None:
    twilio, credentials = await carrier(stage, Provider.TWILIO)
    connector = await stage.connector(**credentials)
    http = await stage.http()
    headers = {"Authorization": f"Bearer {api_token(connector.settings, 60)}"}
    url = f"{connector.settings.public_origin}/v2/connectors"
    async with http.post(url, json={"provider": "twilio", "agentId": "helper"}, headers=headers) as response:
        hook = (await response.json())["data"]["webhookUrl"]
    twilio.numbers = {"+15550000001": hook}
    assert said(await account_findings(connector.settings))[1] == (
        "ok",
        "+1********01 points to a connector of this store",
    )


async def test_a_websocket_is_opened_through_the_public_url(stage: Stage) -> None:
    connector = await stage.connector()
    findings = {finding.subject: finding for finding in await _public_url(connector.settings)}
    assert findings["WebSocket"].level == "ok"


async def test_the_names_that_livekit_sends_its_clients_to_are_looked_up(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = stage.settings()
    async with opened_livekit(settings) as livekit:
        (finding,) = await ice_findings(settings, livekit)
    assert (finding.level, finding.text) == (
        "ok",
        "the host names of LiveKit's STUN and TURN servers resolve: 127.0.0.1",
    )
    assert not [room for room in await stage.rooms() if room.startswith("connector-doctor-")]

    async def nothing_resolves(_: str) -> bool:
        return False

    monkeypatch.setattr("connector.cli.doctor_ice._resolves", nothing_resolves)
    async with opened_livekit(settings) as livekit:
        (finding,) = await ice_findings(settings, livekit)
    assert finding.level == "warning"
    assert "rtc.stun_servers" in finding.mend


def test_ice_urls_are_read_for_their_names() -> None:
    urls = ["stun:stun.example.com:19302", "turns:turn.example.com:443?transport=tcp", "turn:[::1]:3478", "stun:a.b"]
    assert hosts_of([*urls, *urls]) == ["stun.example.com", "turn.example.com", "::1", "a.b"]


async def test_an_agent_that_nobody_registered_is_told(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector.cli.doctor_agent.PATIENCE", 0.6)
    async with opened_livekit(stage.settings()) as livekit:
        (finding,) = await agent_findings(livekit, "nobody-has-this-name")
    assert finding.level == "problem"
    assert not [room for room in await stage.rooms() if room.startswith("connector-doctor-")]
