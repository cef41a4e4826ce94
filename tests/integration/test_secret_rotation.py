"""The service's own secret is rotated: first beside the one before, then alone."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from carrier_simulator import TwilioSimulator
from connector.app import Connector
from connector.sip.secrets import SipCredentials, SipSecrets
from tests.integration.harness import Stage, ended, only_session, until
from tests.integration.rest import RestClient

CALLER, CALLED, PIN = "+15552223333", "+15550001111", "4711"
SIP = SipCredentials("+15550002222", "ST_1", "connector", "password-of-the-number")
OLD, NEW = "the-first-secret-of-thirty-two-characters", "the-second-secret-of-thirty-two-character"


class Service:
    """On one address and one store."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self._stage = stage
        port = stage.free_port()
        self._same = {
            "port": port,
            "public_url": f"http://127.0.0.1:{port}",
            "store": f"sqlite:///{folder}/calls.db",
            "instance": "rotated",
        }

    @asynccontextmanager
    async def __call__(self, **secrets: str) -> AsyncIterator[Connector]:
        connector = Connector(self._stage.settings(**self._same, **secrets))
        await connector.start()
        try:
            yield connector
        finally:
            await connector.stop(0.0)


async def works(stage: Stage, twilio: TwilioSimulator, connector: Connector, url: str, rule: Any) -> None:
    """The webhook URL, the PIN and the password of before."""
    rest = RestClient(await stage.http(), connector)
    (listed,) = (await rest.ok("GET", "/v2/connectors"))["data"]
    assert listed["webhookUrl"] == url
    assert (await rest.ok("GET", f"/v2/sip/routing-rule/{rule['id']}"))["room"]["pin"] == PIN
    assert await SipSecrets(connector.store.sip_numbers, connector.settings.own_secrets).of(SIP.number) == SIP
    call = twilio.inbound_call(url, to=CALLED, from_=CALLER)
    await call.enter(PIN)
    await call.stream_started.wait()
    await until(lambda: only_session(connector).state == "active")
    session = only_session(connector)
    await call.hangup()
    await ended(connector, session.call_id)
    assert not call.errors


async def test_urls_pins_and_passwords_outlive_the_secret_that_made_them(
    stage: Stage, room: str, tmp_path: Path
) -> None:
    twilio = await stage.twilio()
    service = Service(stage, tmp_path)
    async with service(secret=OLD) as connector:
        rest = RestClient(await stage.http(), connector)
        rule = await rest.rule(phoneNumbers=[CALLED], room={"id": room, "pin": PIN})
        url = (await rest.connector())["webhookUrl"]
        await SipSecrets(connector.store.sip_numbers, OLD).remember(SIP)
        await works(stage, twilio, connector, url, rule)
    async with service(secret=NEW, secret_previous=OLD) as connector:
        await works(stage, twilio, connector, url, rule)
    async with service(secret=NEW) as connector:
        await works(stage, twilio, connector, url, rule)


async def test_a_predecessor_that_was_left_out_is_no_end_of_the_url_once_it_is_back(
    stage: Stage, room: str, tmp_path: Path
) -> None:
    """Somebody sets the new secret alone: nothing is lost, and the log says what cannot be opened."""
    twilio = await stage.twilio()
    service = Service(stage, tmp_path)
    async with service(secret=OLD) as connector:
        rest = RestClient(await stage.http(), connector)
        rule = await rest.rule(phoneNumbers=[CALLED], room={"id": room, "pin": PIN})
        url = (await rest.connector())["webhookUrl"]
        await SipSecrets(connector.store.sip_numbers, OLD).remember(SIP)
    async with service(secret=NEW) as connector:
        call = twilio.inbound_call(url, to=CALLED, from_=CALLER)
        await call.ended.wait()
        assert not connector.calls.live()
    async with service(secret=NEW, secret_previous=OLD) as connector:
        await works(stage, twilio, connector, url, rule)
