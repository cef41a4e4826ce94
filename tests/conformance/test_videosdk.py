"""VideoSDK's published server SDK, unmodified: `apiEndpoint` and the key pair are the connector's, the rest is as its
documentation has it."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from carrier_simulator.call import PhoneCall
from connector.app import Connector
from tests.conformance.programs import HERE, Program, build, run
from tests.integration.harness import Stage, ended, only_session, until
from tests.integration.webhooks import Receiver

VIDEOSDK = Program("videosdk", HERE / "node-videosdk", ("node", str(HERE / "node-videosdk" / "main.js")))
CALLER, CALLED = "+15552223333", "+15550001111"


class Refused(Exception):
    """What the SDK raised: its class, the HTTP status, the code and the message."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["message"])
        self.name, self.status, self.code = error["name"], error.get("status"), error.get("code")


class Sdk:
    def __init__(self, connector: Connector) -> None:
        settings = connector.settings
        self.environment = {
            "VIDEOSDK_API_ENDPOINT": settings.public_origin,
            "VIDEOSDK_API_KEY": settings.livekit_api_key,
            "VIDEOSDK_SECRET": settings.livekit_api_secret.get_secret_value(),
        }

    async def __call__(self, method: str, *arguments: Any) -> Any:
        """`sdk("connectors.get", "cn_…")` is `new VideoSDK().connectors.get("cn_…")`."""
        answer = await run(VIDEOSDK, method, {"arguments": json.dumps(arguments)}, self.environment)
        if "error" in answer:
            raise Refused(answer["error"])
        return answer["value"]


@pytest.fixture(scope="module", autouse=True)
def built(request: pytest.FixtureRequest) -> None:
    build(VIDEOSDK, request.config)


@pytest.fixture
async def connector(stage: Stage) -> Connector:
    return await stage.connector(webhook_allow_private=True, plivo_auth_token="plivo-token-of-the-tests")


@pytest.fixture
def sdk(connector: Connector) -> Sdk:
    return Sdk(connector)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with Receiver() as receiver:
        yield receiver


async def test_connectors(sdk: Sdk) -> None:
    made = await sdk(
        "connectors.create",
        {"provider": "twilio", "name": "Main", "roomId": "abcd-efgh", "defaultRuleId": "rule_1", "region": "us002"},
    )
    fields = ("provider", "name", "defaultRoomId", "defaultRuleId", "region")
    assert [made[field] for field in fields] == ["twilio", "Main", "abcd-efgh", "rule_1", "us002"]
    assert made["webhookUrl"].startswith(f"{sdk.environment['VIDEOSDK_API_ENDPOINT']}/v2/hooks/twilio/whk_")
    other = await sdk("connectors.create", {"provider": "plivo"})
    assert (await sdk("connectors.list"))["all"] == [other, made]
    assert await sdk("connectors.get", made["id"]) == made
    rotated = await sdk("connectors.rotateKey", made["id"])
    assert rotated["webhookUrl"] != made["webhookUrl"]
    assert await sdk("connectors.get", made["id"]) == rotated
    assert (await sdk("connectors.delete", made["id"]))["message"]
    with pytest.raises(Refused) as caught:
        await sdk("connectors.get", made["id"])
    assert (caught.value.name, caught.value.status) == ("RoomNotFoundError", 404)


async def test_routing_rules(sdk: Sdk) -> None:
    made = await sdk(
        "sip.routingRules.create",
        {
            "name": "Support",
            "type": "inbound",
            "phoneNumbers": [CALLED],
            "rule": {"type": "direct", "roomId": "support", "pin": "4711"},
            "agentId": "bot",
            "agentMetadata": {"team": "support"},
            "allowedNumbers": [CALLER],
            "hidePhoneNumber": True,
            "dtmf": False,
            "headersToAttributes": {"X-Account": "crm.account"},
        },
    )
    assert made["room"] == {"type": "static", "id": "support", "prefix": None, "pin": "4711"}
    assert (made["numbers"], made["agentMetadata"]) == ([CALLED], {"team": "support"})
    assert await sdk("sip.routingRules.get", made["id"]) == made
    with pytest.raises(Refused, match=rf"\{CALLED} belongs to another inbound rule already: Support") as caught:
        await sdk("sip.routingRules.create", {"name": "Two", "type": "inbound", "phoneNumbers": [CALLED]})
    assert (caught.value.name, caught.value.status) == ("ResourceConflictError", 409)

    for number in range(4):
        rule = {"type": "individual", "roomPrefix": "random"}
        await sdk("sip.routingRules.create", {"name": f"More {number}", "type": "inbound", "rule": rule})
    page = await sdk("sip.routingRules.list", {"perPage": 2, "search": "more"})
    assert [rule["name"] for rule in page["first"]] == ["More 3", "More 2"]
    assert [rule["name"] for rule in page["all"]] == ["More 3", "More 2", "More 1", "More 0"]
    assert page["total"] == 4
    chosen = await sdk("sip.routingRules.list", {"ruleIds": [made["id"]], "roomType": ["static", "dynamic"]})
    assert [rule["id"] for rule in chosen["all"]] == [made["id"]]

    changed = await sdk("sip.routingRules.update", made["id"], {"name": "New", "hidePhoneNumber": False})
    assert changed == made | {"name": "New", "hidePhoneNumber": False, "updatedAt": changed["updatedAt"]}
    assert (await sdk("sip.routingRules.delete", made["id"]))["message"]
    with pytest.raises(Refused) as caught:
        await sdk("sip.routingRules.get", made["id"])
    assert caught.value.status == 404


@pytest.mark.parametrize(
    ("method", "argument", "name", "status"),
    [
        ("connectors.create", {"provider": "vonage"}, "ValidationError", 400),
        ("sip.routingRules.create", {"name": "R", "type": "both"}, "ValidationError", 400),
        ("sip.calls.get", "call_none", "RoomNotFoundError", 404),
        ("sip.calls.end", "call_none", "RoomNotFoundError", 404),
    ],
)
async def test_what_is_wrong_is_told_in_the_sdk_s_own_errors(
    sdk: Sdk, method: str, argument: Any, name: str, status: int
) -> None:
    with pytest.raises(Refused) as caught:
        await sdk(method, argument)
    assert (caught.value.name, caught.value.status) == (name, status)
    assert str(caught.value)


async def test_another_secret_is_refused(sdk: Sdk) -> None:
    sdk.environment["VIDEOSDK_SECRET"] = "another-secret-of-thirty-two-bytes!!"
    with pytest.raises(Refused) as caught:
        await sdk("connectors.list")
    assert (caught.value.name, caught.value.status) == ("AuthenticationError", 401)


async def test_webhooks_and_a_delivery_that_verifies(sdk: Sdk, stage: Stage, room: str, receiver: Receiver) -> None:
    events = ["call-started", "call-answered", "call-hangup"]
    made = await sdk("sip.webhooks.create", {"url": receiver.url, "events": events})
    assert (made["id"][:3], made["url"], made["events"]) == ("wh_", receiver.url, events)
    assert await sdk("sip.webhooks.get", made["id"]) == made
    assert (await sdk("sip.webhooks.list"))["all"] == [made]

    connector = await sdk("connectors.create", {"provider": "twilio", "roomId": room})
    twilio, guest = await stage.twilio(), await stage.guest(room)
    call = twilio.inbound_call(connector["webhookUrl"], to=CALLED, from_=CALLER)
    await guest.event("participant_connected")
    await call.hangup()
    await receiver.count(3)
    for received, event in zip(receiver.received, events, strict=True):
        verified = await sdk("webhooks.verify", received.raw.decode(), received.headers["videosdk-signature"])
        assert (verified["type"], verified["data"]) == (event, received.data)
    with pytest.raises(Refused, match="invalid") as caught:
        await sdk("webhooks.verify", received.raw.decode() + " ", received.headers["videosdk-signature"])
    assert caught.value.name == "WebhookVerificationError"

    changed = await sdk("sip.webhooks.update", made["id"], {"url": receiver.url, "events": ["call-missed"]})
    assert changed["events"] == ["call-missed"]
    assert (await sdk("sip.webhooks.delete", made["id"]))["message"]
    assert (await sdk("sip.webhooks.list"))["all"] == []


async def test_calls(sdk: Sdk, stage: Stage, connector: Connector, room: str) -> None:
    made = await sdk("connectors.create", {"provider": "twilio", "roomId": room})
    twilio, guest = await stage.twilio(), await stage.guest(room)
    there = await stage.guest(f"{room}-2", "there")
    call: PhoneCall = twilio.inbound_call(made["webhookUrl"], to=CALLED, from_=CALLER)
    await guest.event("participant_connected")
    await until(lambda: only_session(connector).state.value == "active")

    (listed,) = (await sdk("sip.calls.list", {"roomId": room, "type": "inbound", "perPage": 1}))["all"]
    shown = [listed[field] for field in ("type", "provider", "from", "to", "roomId", "status", "end")]
    assert shown == ["inbound", "twilio", CALLER, CALLED, room, "answered", None]
    found = await sdk("sip.calls.get", listed["id"])
    # The detail has one field more than the list: the way back to a lost stream.
    assert found.pop("resumeUrl").endswith("/resume")
    assert found == listed

    moved = await sdk("sip.calls.switchRoom", listed["id"], {"roomId": f"{room}-2"})
    assert (moved["id"], moved["roomId"]) == (listed["id"], f"{room}-2")
    await there.event("participant_connected")
    over = await sdk("sip.calls.end", listed["id"])
    assert over["status"] == "ended"
    assert over["end"]
    assert (await ended(connector, listed["id"])).end_reason is not None
    await call.ended.wait()
    with pytest.raises(Refused) as caught:
        await sdk("sip.calls.switchRoom", listed["id"], {"roomId": room})
    assert (caught.value.name, caught.value.status) == ("ResourceConflictError", 409)
