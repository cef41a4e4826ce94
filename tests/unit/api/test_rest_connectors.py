"""/v2/connectors as documented: the very fields, ids, messages and statuses."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from connector.accounts import CarrierAccounts
from connector.model.provider import Provider
from connector.tokens import WebhookKeys
from tests.carriers import CARRIERS
from tests.unit.api import rest_stage
from tests.unit.api.rest_stage import PUBLIC, Rest, rest_api


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    async with rest_api() as rest:
        yield rest


async def test_create_as_in_the_document(rest: Rest) -> None:
    body = {
        "provider": "twilio",
        "name": "Main Twilio Connector",
        "defaultRoomId": "abcd-efgh-ijkl",
        "defaultRuleId": "rule_xyz789",
        "region": "us002",
    }
    status, answer = await rest("POST", "/v2/connectors", body)
    assert (status, answer["message"]) == (201, "Connector created successfully")
    data = answer["data"]
    assert body == {name: data[name] for name in body}
    assert re.fullmatch("cn_[0-9a-z]{16}", data["id"])
    assert re.fullmatch(f"{PUBLIC}/v2/hooks/twilio/whk_[0-9A-Za-z]{{32}}", data["webhookUrl"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["createdAt"])
    assert await rest.ok("GET", f"/v2/connectors/{data['id']}") == {"data": data}


@pytest.mark.parametrize("provider", ["twilio", "telnyx", "plivo"])
async def test_the_provider_is_all_it_takes(rest: Rest, provider: str) -> None:
    data = (await rest.ok("POST", "/v2/connectors", {"provider": provider}))["data"]
    nothing = {name: data[name] for name in ("name", "defaultRoomId", "defaultRuleId", "region")}
    assert nothing == dict.fromkeys(nothing)
    assert f"/v2/hooks/{provider}/whk_" in data["webhookUrl"]


async def test_the_list_has_the_newest_first(rest: Rest) -> None:
    made = [(await rest.ok("POST", "/v2/connectors", {"provider": "plivo", "name": n}))["data"] for n in "abc"]
    answer = await rest.ok("GET", "/v2/connectors")
    assert answer["data"] == made[::-1]
    assert answer["pageInfo"]["total"] == len(made)
    assert (await rest.ok("GET", "/v2/connectors?page=2&perPage=1"))["data"] == [made[::-1][1]]


async def test_a_rotated_key_is_a_new_url_and_the_old_one_is_known_no_more(rest: Rest) -> None:
    made = (await rest.ok("POST", "/v2/connectors", {"provider": "twilio"}))["data"]
    rotated = await rest.ok("POST", f"/v2/connectors/{made['id']}/rotate-key")
    assert rotated["message"] == "Webhook key rotated successfully"
    assert rotated["data"]["webhookUrl"] != made["webhookUrl"]
    assert {**rotated["data"], "webhookUrl": ""} == {**made, "webhookUrl": ""}
    for url, found in ((made["webhookUrl"], False), (rotated["data"]["webhookUrl"], True)):
        key = url.rsplit("/", 1)[1]
        assert (await rest.store.connectors.find(f"key:{WebhookKeys.hash(key)}") is not None) is found


async def test_the_store_holds_no_key(rest: Rest) -> None:
    made = (await rest.ok("POST", "/v2/connectors", {"provider": "twilio"}))["data"]
    key = made["webhookUrl"].rsplit("/", 1)[1]
    (kept,) = await rest.store.connectors.list()
    assert key not in repr(kept)
    assert key.removeprefix("whk_") not in repr(kept)


async def test_delete(rest: Rest) -> None:
    made = (await rest.ok("POST", "/v2/connectors", {"provider": "twilio"}))["data"]
    assert await rest.ok("DELETE", f"/v2/connectors/{made['id']}") == {"message": "Connector deleted successfully"}
    assert (await rest.ok("GET", "/v2/connectors"))["data"] == []


@pytest.mark.parametrize(("method", "tail"), [("GET", ""), ("DELETE", ""), ("POST", "/rotate-key")])
async def test_an_unknown_connector_404(rest: Rest, method: str, tail: str) -> None:
    status, answer = await rest(method, f"/v2/connectors/cn_none{tail}")
    assert (status, answer) == (404, {"message": "Connector not found", "code": "not_found"})


async def test_a_new_api_secret_is_a_new_url_that_works(rest: Rest) -> None:
    made = (await rest.ok("POST", "/v2/connectors", {"provider": "twilio"}))["data"]
    (entry,) = await rest.store.connectors.list()
    before = WebhookKeys("the secret before").derive(entry.id, entry.key_nonce)
    assert await rest.store.connectors.replace(replace(entry, key_hash=WebhookKeys.hash(before)))
    for answer in (await rest.ok("GET", f"/v2/connectors/{made['id']}"), await rest.ok("GET", "/v2/connectors")):
        assert answer["data"] in (made, [made])
    assert await rest.store.connectors.list() == [entry]


@pytest.mark.parametrize("provider", list(Provider))
async def test_a_carrier_whose_signature_cannot_be_checked_gets_no_connector(
    provider: Provider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(rest_stage.ACCOUNTS, provider, CarrierAccounts(CARRIERS[provider].account_rules))
    async with rest_stage.rest_api() as rest:
        status, answer = await rest("POST", "/v2/connectors", {"provider": provider.value})
        assert (status, answer["code"]) == (400, "invalid_argument")
        assert CARRIERS[provider].signing_setting in answer["message"]
        assert (await rest.ok("GET", "/v2/connectors"))["data"] == []


async def test_an_agent_makes_the_default_rule_by_which_each_call_has_a_room_of_its_own(rest: Rest) -> None:
    body = {"provider": "twilio", "name": "Main", "agentId": "helper", "agentMetadata": {"queue": "sales"}}
    data = (await rest.ok("POST", "/v2/connectors", body))["data"]
    assert data["defaultRoomId"] is None
    rule = await rest.ok("GET", f"/v2/sip/routing-rule/{data['defaultRuleId']}")
    assert (rule["name"], rule["type"], rule["numbers"], rule["room"]) == ("Calls of Main", "inbound", [], None)
    assert (rule["agentId"], rule["agentMetadata"]) == ("helper", {"queue": "sales"})


async def test_the_room_of_that_rule_may_be_said_too(rest: Rest) -> None:
    body = {"provider": "plivo", "agentId": "helper", "room": {"type": "dynamic", "prefix": "sipNumber", "pin": "2468"}}
    data = (await rest.ok("POST", "/v2/connectors", body))["data"]
    rule = await rest.ok("GET", f"/v2/sip/routing-rule/{data['defaultRuleId']}")
    assert rule["room"] == {"type": "dynamic", "id": None, "prefix": "sipNumber", "pin": "2468"}


async def test_a_long_name_of_a_connector_does_not_keep_its_rule_from_being_made(rest: Rest) -> None:
    await rest.ok("POST", "/v2/connectors", {"provider": "plivo", "agentId": "helper", "name": "n" * 256})


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"agentId": "helper", "defaultRuleId": "rule_1"}, "agentId: creates the default rule"),
        ({"agentId": "helper", "defaultRoomId": "lobby"}, "agentId: creates the default rule; use `room`"),
        ({"room": {"id": "lobby"}, "defaultRoomId": "lobby"}, "room: creates the default rule"),
        ({"agentMetadata": "vip"}, "agentMetadata: needs agentId: it is that agent's metadata"),
        ({"agentId": "helper", "room": {"type": "static"}}, "room.id: is required for a static room"),
        ({"agentId": ""}, "agentId: "),
    ],
)
async def test_what_does_not_go_together_is_refused_and_nothing_is_made(
    rest: Rest, more: dict[str, object], says: str
) -> None:
    status, answer = await rest("POST", "/v2/connectors", {"provider": "twilio", **more})
    assert status == 400
    assert answer["message"].startswith(says)
    assert (await rest.ok("GET", "/v2/connectors"))["data"] == []
    assert (await rest.ok("GET", "/v2/sip/routing-rule"))["data"] == []
