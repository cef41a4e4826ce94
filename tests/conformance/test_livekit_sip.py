"""What a real livekit-server decides about the calls that Twilio dials: whose password counts, which room it is.

livekit-sip asks livekit-server two questions of each INVITE, over their Redis; the program in livekit-sip/ asks the
same. So all but livekit-sip's own SIP and audio is the real thing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from carrier_simulator import InboundCall, TwilioSimulator
from connector.app import Connector
from connector.model.call import CallRecord
from connector.sip import plan
from connector.sip.provisioning import SipNumberSetup
from connector.sip.secrets import SipCredentials, SipSecrets
from demo.livekit_server import LiveKitServer
from demo.redis_server import RedisServer
from tests.conformance.programs import HERE, Program, build
from tests.integration.harness import stage_on
from tests.integration.rest import RestClient
from tests.integration.sip_livekit import provisioning_at
from tests.sip_endpoint import SipEndpoint

CALLER, CALLED, OTHER = "+15552223333", "+15550001111", "+15550002222"
PROGRAM = Program("go", HERE / "livekit-sip", (str(HERE / "livekit-sip" / "build" / "livekit-sip"),))


@dataclass
class Scene:
    redis: RedisServer
    connector: Connector
    twilio: TwilioSimulator
    endpoint: SipEndpoint
    rest: RestClient
    setup: SipNumberSetup

    async def ask(self, caller: str, called: str = CALLED) -> Any:
        """As livekit-sip asks: the answer of livekit-server."""
        process = await asyncio.create_subprocess_exec(
            *PROGRAM.argv, self.redis.address, caller, called, stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        assert process.returncode == 0
        return json.loads(out)

    async def ask_of(self, invite: Any) -> Any:
        """About an INVITE as it came over the wire."""
        caller = (invite.get_header("from") or "").partition("sip:")[2].partition("@")[0]
        return await self.ask(caller, invite.uri.partition(":")[2].partition("@")[0])

    async def call(self, from_: str = CALLER, **connector: Any) -> InboundCall:
        webhook = (await self.rest.connector(mode="sip", **connector))["webhookUrl"]
        phone = self.twilio.inbound_call(webhook, to=CALLED, from_=from_)
        await phone.transferred.wait()
        return phone

    async def records(self) -> list[CallRecord]:
        return await self.connector.store.list_calls()


@pytest.fixture(scope="module")
def livekit_sip(request: pytest.FixtureRequest) -> None:
    build(PROGRAM, request.config)


@pytest.fixture
async def scene(livekit_sip: None, tmp_path: Path) -> AsyncIterator[Scene]:
    async with RedisServer() as redis, LiveKitServer(redis=redis.address) as livekit, SipEndpoint() as endpoint:
        async with provisioning_at(livekit.http_url, livekit.api_key, livekit.api_secret) as sip:
            setup = (await sip.set_up(plan.Wanted(CALLED, agents=("helper",)))).setup
            await sip.set_up(plan.Wanted(OTHER, room_prefix="control-"))
        async with stage_on(livekit, tmp_path) as stage:
            twilio = await stage.twilio()
            connector = await stage.connector(sip_endpoint=endpoint.host)
            secrets = SipSecrets(connector.store.sip_numbers, livekit.api_secret)
            await secrets.remember(SipCredentials(CALLED, setup.trunk_id, setup.username, setup.password))
            scene = Scene(redis, connector, twilio, endpoint, RestClient(await stage.http(), connector), setup)
            # The endpoint lets in whom livekit-server says.
            accepted = await scene.ask(CALLER)
            endpoint.manners.numbers[CALLED] = (accepted["username"], accepted["password"])
            yield scene


async def test_the_set_up_makes_a_room_for_each_caller(scene: Scene) -> None:
    said = await scene.ask(CALLER)
    setup = scene.setup
    assert (said["trunk"], said["username"], said["password"]) == (setup.trunk_id, setup.username, setup.password)
    assert (said["result"], said["agents"], said["identity"]) == ("ACCEPT", ["helper"], f"sip_{CALLER}")
    assert said["room"].startswith(f"call-_{CALLER}_")
    assert (await scene.ask(CALLER))["room"] != said["room"]
    other = await scene.ask(CALLER, OTHER)
    assert other["room"].startswith("control-")
    assert other["password"] != said["password"]
    assert (await scene.ask(CALLER, "+15559999999"))["result"] != "ACCEPT"


async def test_a_call_without_a_route_follows_the_set_up(scene: Scene) -> None:
    phone = await scene.call()
    said = await scene.ask_of(scene.endpoint.calls[0].invite)
    assert said["room"].startswith("call-_")
    (record,) = await scene.records()
    assert said["identity"] == record.identity
    await phone.hangup()


async def test_a_rule_decides_on_the_room_of_its_call_and_of_no_other(scene: Scene) -> None:
    await scene.rest.rule(phoneNumbers=[CALLED], room={"type": "static", "id": "vip"}, allowedNumbers=[CALLER])
    phone = await scene.call()
    said = await scene.ask_of(scene.endpoint.calls[0].invite)
    (record,) = await scene.records()
    assert (said["room"], said["identity"]) == ("vip", record.identity)
    assert said["attributes"]["connector.callId"] == record.call_id
    assert said["attributes"]["sip.phoneNumber"] == CALLER
    assert (await scene.ask("+15554445555"))["room"].startswith("call-_")
    await phone.hangup()
    await phone.finished()
    assert (await scene.ask(CALLER))["room"].startswith("call-_")


async def test_a_hidden_number_is_in_nothing_that_livekit_knows(scene: Scene) -> None:
    rule = await scene.rest.rule(room={"type": "static", "id": "vip"}, hidePhoneNumber=True)
    phone = await scene.call(defaultRuleId=rule["id"])
    said = await scene.ask_of(scene.endpoint.calls[0].invite)
    (record,) = await scene.records()
    assert (said["room"], said["identity"]) == ("vip", record.identity)
    assert CALLER[-4:] not in json.dumps(said)
    await phone.hangup()


async def test_two_calls_of_one_caller_go_to_their_own_rooms(scene: Scene) -> None:
    rule = await scene.rest.rule(room={"type": "dynamic", "prefix": "random"})
    first = await scene.call(defaultRuleId=rule["id"])
    second = await scene.call(defaultRuleId=rule["id"])
    said = [await scene.ask_of(call.invite) for call in scene.endpoint.calls]
    assert {each["room"] for each in said} == {record.room for record in await scene.records()}
    assert {each["identity"] for each in said} == {record.identity for record in await scene.records()}
    assert len({each["room"] for each in said}) == 2
    await asyncio.gather(first.hangup(), second.hangup())
