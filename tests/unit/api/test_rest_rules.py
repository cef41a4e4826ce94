"""/v2/sip/routing-rule: what VideoSDK's SDK sends, and reads back."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from tests.unit.api.rest_stage import KEY, Rest, rest_api

PATH = "/v2/sip/routing-rule"


@pytest.fixture
async def rest() -> AsyncIterator[Rest]:
    async with rest_api() as rest:
        yield rest


async def made(rest: Rest, **fields: Any) -> Any:
    return await rest.ok("POST", PATH, {"name": "Rule", "type": "inbound"} | fields)


async def test_a_rule_comes_back_bare_and_whole(rest: Rest) -> None:
    body = {
        "name": "Support",
        "type": "inbound",
        "phoneNumbers": ["+1 (555) 000-1111", "15550002222", "+15550001111"],
        "room": {"type": "dynamic", "prefix": "participantNumber", "pin": "1234"},
        "agentId": "bot",
        "agentMetadata": {"team": "support", "depth": {"a": [1, "ü"]}},
        "allowedNumbers": ["+44 20 7946 0000"],
        "allowedIpAddresses": ["192.0.2.0/24", "2001:db8::1"],
        "hidePhoneNumber": True,
        "dtmf": False,
        "recording": True,
        "noiseCancellation": True,
        "tags": ["a"],
        "headersToAttributes": {"X-Account": "crm.account"},
        "includeHeaders": "SIP_X_HEADERS",
        "agentWarnAfter": 0,
        "agentTimeout": 12.5,
        "roomEmptyTimeout": 3,
        "fallbackAgentId": "reserve",
        "fallbackNumber": "+15559990000",
        "noAgentMessage": "Nobody is here.",
        "apiKey": KEY,
    }
    rule = await made(rest, **body)
    assert re.fullmatch("rule_[0-9a-f]{16}", rule["id"])
    assert rule["numbers"] == ["+15550001111", "+15550002222"]
    assert rule["room"] == {"type": "dynamic", "id": None, "prefix": "participantNumber", "pin": "1234"}
    assert rule["allowedNumbers"] == ["+442079460000"]
    same = set(body) - {"phoneNumbers", "room", "allowedNumbers", "apiKey"}
    assert {name: rule[name] for name in same} == {name: body[name] for name in same}
    assert rule["createdAt"] == rule["updatedAt"]
    assert await rest.ok("GET", f"{PATH}/{rule['id']}") == rule


async def test_the_numbers_are_taken_and_given_back_under_either_name(rest: Rest) -> None:
    rule = await made(rest, numbers=["1 555 000 1111"])
    assert rule["numbers"] == rule["phoneNumbers"] == ["+15550001111"]
    changed = await rest.ok("PATCH", f"{PATH}/{rule['id']}", {"numbers": []})
    assert changed["numbers"] == changed["phoneNumbers"] == []
    for fields, message in (
        ({"numbers": ["x"]}, "numbers.0: must be a telephone number"),
        ({"numbers": [], "phoneNumbers": []}, "numbers: is not a field of this request"),
        ({"phoneNumber": []}, "phoneNumber: is not a field of this request; did you mean phoneNumbers?"),
    ):
        status, answer = await rest("PATCH", f"{PATH}/{rule['id']}", fields)
        assert (status, answer["message"][: len(message)]) == (400, message)


async def test_a_name_and_a_type_are_all_it_takes(rest: Rest) -> None:
    rule = await made(rest)
    assert (rule["numbers"], rule["room"], rule["dtmf"], rule["hidePhoneNumber"]) == ([], None, True, False)


@pytest.mark.parametrize(
    ("room", "shown"),
    [
        ({"type": "static", "id": "support"}, {"type": "static", "id": "support", "prefix": None, "pin": None}),
        ({"id": "support"}, {"type": "static", "id": "support", "prefix": None, "pin": None}),
        ({"type": "dynamic"}, {"type": "dynamic", "id": None, "prefix": "random", "pin": None}),
        ({"type": "dynamic", "prefix": "blank"}, {"type": "dynamic", "id": None, "prefix": "blank", "pin": None}),
        ({}, {"type": "dynamic", "id": None, "prefix": "random", "pin": None}),
    ],
)
async def test_rooms(rest: Rest, room: Any, shown: Any) -> None:
    assert (await made(rest, room=room))["room"] == shown


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": None}, "name: must be a valid string"),
        ({"name": ""}, "name: must have at least 1 character"),
        ({"type": "both"}, "type: must be 'inbound' or 'outbound'"),
        ({"phoneNumbers": "+15550001111"}, "phoneNumbers: must be a valid"),
        ({"phoneNumbers": ["hello"]}, "phoneNumbers.0: must be a telephone number such as +15551234567"),
        ({"phoneNumbers": ["+1234567890123456"]}, "phoneNumbers.0: must be a telephone number"),
        ({"room": {"type": "static"}}, "room.id: is required for a static room"),
        ({"room": {"type": "dynamic", "prefix": "mine"}}, "room.prefix: must be 'blank'"),
        ({"room": {"pin": "12a"}}, "room.pin: must be 1 to 16 digits"),
        ({"dtmf": "yes"}, "dtmf: must be a valid boolean"),
        ({"headers": {"X": "y"}}, "headers: is for outbound rules only"),
        ({"type": "outbound", "headersToAttributes": {"X": "y"}}, "headersToAttributes: is for inbound rules only"),
        ({"type": "outbound", "includeHeaders": "ALL"}, "includeHeaders: is for inbound rules only"),
        ({"headersToAttributes": {"X": "connector.callId"}}, "headersToAttributes: attributes that start with"),
        ({"headersToAttributes": {"X": ""}}, "headersToAttributes.X: must have at least 1 character"),
        ({"includeHeaders": "SOME"}, "includeHeaders: must be 'ALL'"),
        ({"apiKey": "another"}, "apiKey: Invalid API Key"),
    ],
)
async def test_what_a_rule_cannot_be(rest: Rest, fields: dict[str, Any], message: str) -> None:
    status, answer = await rest("POST", PATH, {"name": "Rule", "type": "inbound"} | fields)
    assert status == 400
    assert answer["message"].startswith(message)


async def test_two_rules_cannot_have_one_number(rest: Rest) -> None:
    first = await made(rest, name="First", phoneNumbers=["+15550001111"])
    status, answer = await rest(
        "POST", PATH, {"name": "Second", "type": "inbound", "phoneNumbers": ["+15550009999", "1 555 000 1111"]}
    )
    assert (status, answer["code"]) == (409, "already_exists")
    assert answer["message"] == f"+15550001111 belongs to another inbound rule already: First ({first['id']})"
    second = await made(rest, phoneNumbers=["+15550009999"])
    status, _ = await rest("PATCH", f"{PATH}/{second['id']}", {"phoneNumbers": ["+15550001111"]})
    assert status == 409
    assert await rest.ok("GET", f"{PATH}/{second['id']}") == second
    await made(rest, type="outbound", phoneNumbers=["+15550001111"])


async def test_a_number_is_free_again_when_its_rule_gave_it_up(rest: Rest) -> None:
    first = await made(rest, phoneNumbers=["+15550001111"])
    await rest.ok("PATCH", f"{PATH}/{first['id']}", {"phoneNumbers": []})
    second = await made(rest, phoneNumbers=["+15550001111"])
    await rest.ok("DELETE", f"{PATH}/{second['id']}")
    await made(rest, phoneNumbers=["+15550001111"])


async def test_a_change_leaves_the_rest_as_it_was(rest: Rest) -> None:
    rule = await made(rest, phoneNumbers=["+15550001111"], agentId="bot", dtmf=False, room={"id": "a", "pin": "12"})
    changed = await rest.ok("PATCH", f"{PATH}/{rule['id']}", {"name": "New", "agentMetadata": "text"})
    assert changed == rule | {"name": "New", "agentMetadata": "text", "updatedAt": changed["updatedAt"]}
    assert changed["updatedAt"] >= rule["updatedAt"]


async def test_null_sets_a_field_back(rest: Rest) -> None:
    rule = await made(rest, phoneNumbers=["+15550001111"], agentId="bot", dtmf=False, room={"id": "a"}, tags=["t"])
    nothing = dict.fromkeys(("phoneNumbers", "agentId", "dtmf", "room", "tags"))
    changed = await rest.ok("PATCH", f"{PATH}/{rule['id']}", nothing)
    assert (changed["numbers"], changed["agentId"], changed["dtmf"], changed["room"]) == ([], None, True, None)
    assert (changed["tags"], changed["name"]) == ([], "Rule")


async def test_the_type_stays(rest: Rest) -> None:
    rule = await made(rest)
    assert (await rest.ok("PATCH", f"{PATH}/{rule['id']}", {"type": "inbound"}))["type"] == "inbound"
    status, answer = await rest("PATCH", f"{PATH}/{rule['id']}", {"type": "outbound"})
    assert (status, answer["message"]) == (400, "type: cannot be changed")


async def test_pages(rest: Rest) -> None:
    names = [(await made(rest, name=f"rule {number}"))["name"] for number in range(5)][::-1]
    page = await rest.ok("GET", f"{PATH}?page=2&perPage=2")
    assert [rule["name"] for rule in page["data"]] == names[2:4]
    assert page["pageInfo"] == {"currentPage": 2, "perPage": 2, "lastPage": 3, "total": 5}
    empty = await rest.ok("GET", f"{PATH}?page=9&perPage=2")
    assert (empty["data"], empty["pageInfo"]["total"]) == ([], 5)
    assert (await rest.ok("GET", PATH))["pageInfo"] == {"currentPage": 1, "perPage": 20, "lastPage": 1, "total": 5}


@pytest.mark.parametrize("query", ["page=0", "page=x", "perPage=0", "perPage=1001", "type=both", "roomType=large"])
async def test_a_query_that_cannot_be(rest: Rest, query: str) -> None:
    status, answer = await rest("GET", f"{PATH}?{query}")
    assert status == 400
    assert answer["message"].startswith(query.split("=")[0])


async def test_filters(rest: Rest) -> None:
    a = (await made(rest, name="Support", phoneNumbers=["+15550001111"], room={"id": "r"}))["id"]
    b = (await made(rest, name="Sales", phoneNumbers=["+15550002222"], room={"type": "dynamic"}))["id"]
    c = (await made(rest, name="Out", type="outbound"))["id"]
    for query, expected in (
        ("search=sup", {a}),
        ("search=%2B1555000", {a, b}),
        ("search=555%20000%202222", {b}),
        ("search=nothing", set()),
        ("type=inbound", {a, b}),
        ("type=outbound", {c}),
        (f"ruleIds={a},{c}", {a, c}),
        ("ruleIds=rule_none", set()),
        ("roomType=static", {a}),
        ("roomType=static,dynamic", {a, b, c}),
        ("roomType=dynamic&type=inbound", {b}),
        ("search=", {a, b, c}),
    ):
        found = await rest.ok("GET", f"{PATH}?{query}")
        assert {rule["id"] for rule in found["data"]} == expected, query


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_an_unknown_rule_404(rest: Rest, method: str) -> None:
    status, answer = await rest(method, f"{PATH}/rule_none", {} if method == "PATCH" else None)
    assert (status, answer["message"]) == (404, "Routing rule not found")


async def test_of_a_room_too_what_is_left_out_stays(rest: Rest) -> None:
    rule = await made(rest, room={"type": "static", "id": "support"})
    for change, room in (
        ({"pin": "12"}, {"type": "static", "id": "support", "prefix": None, "pin": "12"}),
        ({"type": "static", "id": "sales"}, {"type": "static", "id": "sales", "prefix": None, "pin": "12"}),
        ({"pin": None}, {"type": "static", "id": "sales", "prefix": None, "pin": None}),
        (
            {"type": "dynamic", "prefix": "blank", "pin": "34"},
            {"type": "dynamic", "id": None, "prefix": "blank", "pin": "34"},
        ),
        ({"type": "dynamic"}, {"type": "dynamic", "id": None, "prefix": "blank", "pin": "34"}),
        ({"id": "again"}, {"type": "static", "id": "again", "prefix": None, "pin": "34"}),
    ):
        assert (await rest.ok("PATCH", f"{PATH}/{rule['id']}", {"room": change}))["room"] == room
    await rest.ok("PATCH", f"{PATH}/{rule['id']}", {"room": {"type": "dynamic"}})
    status, answer = await rest("PATCH", f"{PATH}/{rule['id']}", {"room": {"type": "static"}})
    assert (status, answer["message"]) == (400, "room.id: is required for a static room")


async def test_of_changes_at_once_none_is_lost(rest: Rest) -> None:
    """A lost one would be answered 200 all the same."""
    rule = await made(rest)
    for number in range(20):
        changes = {"name": f"Rule {number}"}, {"tags": [str(number)]}
        answers = await asyncio.gather(*(rest("PATCH", f"{PATH}/{rule['id']}", change) for change in changes))
        assert [status for status, _ in answers] == [200, 200]
        now = await rest.ok("GET", f"{PATH}/{rule['id']}")
        assert (now["name"], now["tags"]) == (f"Rule {number}", [str(number)])


async def test_a_change_that_others_always_forestall_409(rest: Rest, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = await made(rest)
    get = rest.store.rules.get

    async def forestalled(rule_id: str) -> Any:
        read = await get(rule_id)
        assert read is not None
        await rest.store.rules.replace(replace(read, updated_at=read.updated_at + 1))
        return read

    monkeypatch.setattr(rest.store.rules, "get", forestalled)
    status, answer = await rest("PATCH", f"{PATH}/{rule['id']}", {"name": "late"})
    assert (status, answer["code"]) == (409, "aborted")
    monkeypatch.undo()
    assert (await rest.ok("GET", f"{PATH}/{rule['id']}"))["name"] == "Rule"


async def test_blocked_callers_can_be_set_read_and_changed(rest: Rest) -> None:
    screening = await made(rest, name="Screening")
    rule = await made(rest, blockedNumbers=["+1 (900) 555-0000", "001900*", "+1900*"], blockWithheld=True)
    assert rule["blockedNumbers"] == ["+19005550000", "+1900*"]
    assert (rule["blockWithheld"], rule["divertRuleId"]) == (True, None)
    path = f"{PATH}/{rule['id']}"
    changed = await rest.ok("PATCH", path, {"blockedNumbers": ["+44*"], "divertRuleId": screening["id"]})
    assert (changed["blockedNumbers"], changed["divertRuleId"]) == (["+44*"], screening["id"])
    assert await rest.ok("GET", path) == changed
    cleared = await rest.ok("PATCH", path, {"blockedNumbers": None, "blockWithheld": None, "divertRuleId": None})
    assert (cleared["blockedNumbers"], cleared["blockWithheld"], cleared["divertRuleId"]) == ([], False, None)


@pytest.mark.parametrize(
    ("type_", "fields", "says"),
    [
        ("inbound", {"blockedNumbers": ["*"]}, "blockedNumbers"),
        ("inbound", {"blockedNumbers": ["anonymous"]}, "blockedNumbers"),
        ("inbound", {"blockWithheld": "yes"}, "blockWithheld"),
        ("inbound", {"divertRuleId": "rule_none"}, "divertRuleId: must be the id of another inbound rule"),
        ("outbound", {"blockedNumbers": ["+1*"]}, "blockedNumbers: is for inbound rules only"),
        ("outbound", {"blockWithheld": True}, "blockWithheld: is for inbound rules only"),
    ],
)
async def test_blocked_callers_that_make_no_sense_400(rest: Rest, type_: str, fields: Any, says: str) -> None:
    status, answer = await rest("POST", PATH, {"name": "Rule", "type": type_} | fields)
    assert status == 400
    assert says in answer["message"]


async def test_a_rule_does_not_divert_to_itself(rest: Rest) -> None:
    rule = await made(rest)
    assert (await rest("PATCH", f"{PATH}/{rule['id']}", {"divertRuleId": rule["id"]}))[0] == 400


async def test_null_leaves_a_choice_to_the_setting_and_nothing_turns_it_off(rest: Rest) -> None:
    rule = await made(rest, agentTimeout=7, fallbackNumber="")
    assert (rule["agentTimeout"], rule["fallbackNumber"], rule["roomEmptyTimeout"]) == (7, "", None)
    changed = await rest.ok("PATCH", f"{PATH}/{rule['id']}", {"agentTimeout": None})
    assert (changed["agentTimeout"], changed["fallbackNumber"]) == (None, "")


@pytest.mark.parametrize(
    "fields",
    [{"agentTimeout": -1}, {"agentWarnAfter": 86401}, {"fallbackNumber": "555"}, {"noAgentMessage": "x" * 4097}],
)
async def test_choices_that_cannot_be(rest: Rest, fields: dict[str, Any]) -> None:
    status, answer = await rest("POST", PATH, {"name": "Rule", "type": "inbound"} | fields)
    assert status == 400
    assert next(iter(fields)) in str(answer)
