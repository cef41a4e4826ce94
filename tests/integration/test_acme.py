"""The smallest carrier, which lives in tests/acme: a call through it, on a service that has it in its table."""

from __future__ import annotations

from typing import Any

import pytest
from livekit import api

from carrier_simulator import CallStatus
from demo.connector_process import ConnectorProcess
from tests.acme.simulator import AcmeSimulator
from tests.integration.harness import Stage, strength, tone, until

CALLER, CALLED, THIRD = "+15552223333", "+15550001111", "+15550009999"


class Line:
    """ACME, a service that knows it, and the service's REST API."""

    def __init__(self, stage: Stage) -> None:
        self.acme = AcmeSimulator()
        self._stage = stage

    async def start(self) -> None:
        await self._stage.enter(self.acme)
        account = {"ACME_SECRET": self.acme.secret, "ACME_API_URL": self.acme.base_url}
        self._service = ConnectorProcess({**self._stage.livekit.environment, **account}, ["tests.acme.service"])
        await self._stage.enter(self._service)
        self._http = await self._stage.http()

    async def ask(self, path: str, **body: Any) -> Any:
        livekit = self._stage.livekit
        token = api.AccessToken(livekit.api_key, livekit.api_secret).with_grants(api.VideoGrants(room_create=True))
        headers = {"Authorization": token.to_jwt()}
        async with self._http.post(self._service.url + path, json=body, headers=headers) as response:
            answer = await response.json()
            assert response.status in (200, 201), answer
            return answer


@pytest.mark.timeout(120)
async def test_calls_through_it(stage: Stage, room: str) -> None:
    """One service for all of them: its start takes longer than a call."""
    line = Line(stage)
    await line.start()
    made = (await line.ask("/v2/connectors", provider="acme", defaultRoomId=room))["data"]
    await comes_in_talks_and_is_transferred(stage, room, line, made["webhookUrl"])
    await is_held_and_hung_up_over_the_api(stage, room, line, made["webhookUrl"])
    await comes_from_a_stranger_and_is_refused(line, made["webhookUrl"])


async def comes_in_talks_and_is_transferred(stage: Stage, room: str, line: Line, webhook: str) -> None:
    guest = await stage.guest(room, "first guest")
    await guest.publish()
    call = line.acme.inbound_call(webhook, to=CALLED, from_=CALLER)
    (caller,) = await guest.event("participant_connected")
    told = caller.attributes
    assert (told["connector.provider"], told["phone.from"], told["acme.call"]) == ("acme", CALLER, call.sid)
    await guest.event("track_subscribed", lambda *args: args[2].identity == caller.identity)
    call.say(tone(600, 1.0))
    await guest.until(lambda: strength(guest.sound_of(caller.identity)[-4000:], 600) > 4000)
    guest.start_saying(tone(900, 3.0))
    await until(lambda: strength(call.heard[-2000:], 900) > 4000)
    await call.press("5")
    (digit,) = await guest.event("sip_dtmf_received")
    assert digit.digit == "5"
    call.stream.abort()
    await until(lambda: len(call.streams) == 2 and call.stream.started.has_come())
    guest.start_saying(tone(900, 6.0))
    await until(lambda: strength(call.heard[-2000:], 900) > 4000)
    await line.ask("/v2/sip/call/transfer", callId=told["connector.callId"], transferTo=THIRD)
    await guest.event("participant_disconnected")
    await call.hangup()
    assert not call.errors


async def is_held_and_hung_up_over_the_api(stage: Stage, room: str, line: Line, webhook: str) -> None:
    """The phone is hung up over the REST API, before its document could go on."""
    guest = await stage.guest(room, "second guest")
    call = line.acme.inbound_call(webhook, to=CALLED, from_=CALLER)
    (caller,) = await guest.event("participant_connected")
    await line.ask("/v2/sip/call/end", callId=caller.attributes["connector.callId"])
    await call.ended.wait()
    assert call.status is CallStatus.COMPLETED
    assert not call.errors


async def comes_from_a_stranger_and_is_refused(line: Line, webhook: str) -> None:
    line.acme.web.signing_token = "a guess"
    call = line.acme.inbound_call(webhook, to=CALLED, from_=CALLER)
    await call.ended.wait()
    assert "HTTP 403" in call.errors[0].message
