"""A carrier's webhook, without a carrier, a room or a real store: who is let in, what is answered, what is logged."""

from __future__ import annotations

import asyncio
import math
import re
import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast
from urllib.parse import urlencode
from xml.etree import ElementTree

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from twilio.request_validator import RequestValidator

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.api.carrier.hooks import MAX_WAITING, HookRoutes, new_room_name
from connector.api.carrier.pins import LOCK_OUT, forget_locks
from connector.api.carrier.sentences import ASK_PIN, NO_MORE_TRIES, SORRY, WRONG_PIN
from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.call.dependencies import BUSY
from connector.call.record.changes import new_record
from connector.call.registry.manager import Expected
from connector.errors import ConnectorError, ResourceExhausted, TokenExpired, TokenInvalid, TokenUsed, Unavailable
from connector.metrics import Metrics
from connector.model.call import CallRequest, CallState, Direction, ParticipantSpec
from connector.model.connector import ConnectorEntry, ConnectorMode
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.rule import RoomPrefix, RoomType, RoutingRule, RuleRoom, RuleType
from connector.storage.base import NameTaken, Store, StoreError
from connector.tokens import TokenSigner, WebhookKeys
from tests.carriers import CARRIERS
from tests.unit.api.sqlite_store import empty_store

PUBLIC, US = "https://calls.example.com", "https://us.example.com"
TELNYX_PUBLIC = b64encode(Ed25519PrivateKey.generate().public_key().public_bytes_raw()).decode()
SIGNER, KEYS = TokenSigner("secret"), WebhookKeys("secret")
CALLER, CALLED = "+15552223333", "+15550001111"
Accounts = dict[Provider, CarrierAccounts]
FORM = {"CallSid": "CA1", "From": CALLER, "To": CALLED, "FromCountry": "US", "Direction": "inbound"}
RULE = RoutingRule(
    "rule_1", "Support", RuleType.INBOUND, 1.0, 1.0, numbers=(CALLED,), room=RuleRoom(RoomType.STATIC, "support")
)


class Admitted:
    def __init__(self) -> None:
        self.deadline = time.time() + 90


class Calls:
    """What the webhook needs of the call layer, as it behaves."""

    def __init__(self) -> None:
        self.requests: list[CallRequest] = []
        self.said: list[tuple[str, str]] = []
        self.error: ConnectorError | None = None
        self.streaming: set[str] = set()
        """Calls whose stream goes on."""
        self.waited: list[str] = []
        self.back: list[str] = []
        self.stayed: list[str] = []
        self.ended: list[str] = []
        self.waiting: dict[str, float | ConnectorError] = {}
        self.waiting_here = 0
        self.gate: asyncio.Event | None = None
        self.reached: asyncio.Queue[str] = asyncio.Queue()

    async def create(self, request: CallRequest) -> Admitted:
        self.requests.append(request)
        self.reached.put_nowait(request.carrier_call_id)
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        call = Admitted()
        self.waiting[request.call_id] = call.deadline
        return call

    async def expected(self, call_id: str) -> Expected:
        found = self.waiting.get(call_id, TokenInvalid("no such call"))
        if isinstance(found, ConnectorError):
            raise found
        return Expected(cast(CallRequest, None), found)

    def waiting_of(self, connector_id: str) -> int:
        return self.waiting_here

    async def until_over(self, call_id: str, seconds: float) -> bool:
        # The end of the stream may be seen a moment after the request.
        assert call_id in self.back
        self.waited.append(call_id)
        return call_id not in self.streaming

    async def phone_is_back(self, call_id: str) -> None:
        self.back.append(call_id)

    async def phone_has_stayed(self, call_id: str) -> None:
        self.stayed.append(call_id)

    async def end_stream(self, call_id: str) -> None:
        self.ended.append(call_id)

    async def status(self, call_id: str, status: str, number: int) -> None:
        self.said.append((call_id, status))


class Hooks:
    def __init__(self, client: TestClient[web.Request, web.Application], store: Store, calls: Calls) -> None:
        self.client = client
        self.store = store
        self.calls = calls
        self.path = ""
        self.entry: ConnectorEntry
        self.made = 0
        self._unsaved: list[ConnectorEntry | RoutingRule] = []

    def connector(self, provider: Provider = Provider.TWILIO, **fields: Any) -> ConnectorEntry:
        """One more, in the store at the next `post`, which goes to its webhook."""
        number, self.made = self.made, self.made + 1
        key = KEYS.derive(f"cn_{number}", "nonce")
        entry = ConnectorEntry(f"cn_{number}", provider, WebhookKeys.hash(key), "nonce", 1.0, **fields)
        self._unsaved.append(entry)
        self.path = f"/v2/hooks/{provider.value}/{key}"
        self.entry = entry
        return entry

    def rule(self, **changes: Any) -> RoutingRule:
        rule = replace(RULE, **changes)
        self._unsaved.append(rule)
        return rule

    async def save(self) -> None:
        for one in self._unsaved:
            if isinstance(one, ConnectorEntry):
                await self.store.connectors.insert(one)
            elif not await self.store.rules.replace(one):
                await self.store.rules.insert(one)
        self._unsaved.clear()

    async def post(self, form: Any = FORM, query: str = "", path: str = "", **options: Any) -> tuple[int, str]:
        await self.save()
        async with self.client.post((path or self.path) + query, data=form, **options) as response:
            return response.status, await response.text()

    async def xml(self, form: Any = FORM, query: str = "") -> ElementTree.Element:
        status, text = await self.post(form, query)
        assert status == 200, text
        return ElementTree.fromstring(text)


@asynccontextmanager
async def hooks_on(accounts: Accounts | None = None, **options: Any) -> AsyncIterator[Hooks]:
    calls = Calls()
    origins = Origins(PUBLIC, {"us002": US}, {"US": "us002"})
    async with empty_store() as store:
        routes = HookRoutes(
            calls,
            calls,
            store,
            KEYS,
            SIGNER,
            origins,
            SignatureCheck(origins, CARRIERS, accounts or {}, allow_unsigned=accounts is None),
            Metrics(),
            CARRIERS,
            **options,
        )
        application = web.Application()
        routes.add_to(application.router)
        async with TestClient(TestServer(application)) as client:
            yield Hooks(client, store, calls)


@pytest.fixture
async def stage() -> AsyncIterator[Hooks]:
    async with hooks_on() as stage:
        yield stage


def signing(provider: Provider, *secrets: str, account: str = "") -> Accounts:
    """One account of one carrier."""
    return {provider: CarrierAccounts(CARRIERS[provider].account_rules, [CarrierAccount(account, secrets)])}


def stream_token(answer: ElementTree.Element) -> str:
    stream = answer.find("Connect/Stream")
    assert stream is not None, ElementTree.tostring(answer)
    return stream.attrib["url"].rsplit("/", 1)[1]


def spoken(answer: ElementTree.Element) -> str:
    assert [child.tag for child in answer] == ["Say", "Hangup"]
    return answer[0].text or ""


async def test_the_answer_streams_a_call_that_waits(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    answer = await stage.xml()
    (request,) = stage.calls.requests
    assert SIGNER.verify(stream_token(answer), time.time()) == request.call_id
    assert (request.room, request.connector_id, request.from_number) == ("lobby", stage.entry.id, CALLER)
    assert (request.carrier_call_id, request.to_number, request.rule_id) == ("CA1", CALLED, "")


@pytest.mark.parametrize(
    ("provider", "form", "place"),
    [
        (Provider.TELNYX, FORM, "Start/Stream"),
        (Provider.PLIVO, {"CallUUID": "CA1", "From": CALLER[1:], "To": CALLED[1:]}, "Stream"),
    ],
)
async def test_each_carrier_in_its_own_words(stage: Hooks, provider: Provider, form: Any, place: str) -> None:
    stage.connector(provider, default_room_id="lobby")
    stream = (await stage.xml(form)).find(place)
    assert stream is not None
    url = stream.attrib.get("url") or stream.text or ""
    (request,) = stage.calls.requests
    origin, _, token = url.partition(f"/{provider.value}?ref=")
    assert origin == ("wss://us.example.com" if provider is Provider.TELNYX else "wss://calls.example.com")
    assert SIGNER.verify(token, time.time()) == request.call_id
    assert (request.provider, request.from_number, request.to_number) == (provider, CALLER, CALLED)


async def test_routes_in_order(stage: Hooks) -> None:
    stage.rule(id="rule_2", numbers=(), room=RuleRoom(RoomType.STATIC, "by-default"))
    stage.connector(default_rule_id="rule_2", default_room_id="lobby")
    await stage.xml(FORM | {"CallSid": "CA1"})
    stage.rule()
    await stage.xml(FORM | {"CallSid": "CA2"})
    await stage.xml(FORM | {"CallSid": "CA3"}, "?roomId=here%20it%20is")
    for rule in await stage.store.rules.list():
        await stage.store.rules.delete(rule.id)
    await stage.xml(FORM | {"CallSid": "CA4"})
    rooms = [(request.room, request.rule_id) for request in stage.calls.requests]
    assert rooms == [("by-default", "rule_2"), ("support", "rule_1"), ("here it is", ""), ("lobby", "")]


@pytest.mark.parametrize(
    ("provider", "field", "header"),
    [
        (Provider.TWILIO, "SipHeader_X-Account", "X-Account"),
        (Provider.TELNYX, "SipHeader_X-Account", "x-account"),
        (Provider.PLIVO, "X-PH-Account", "X-PH-Account"),
    ],
)
async def test_a_sip_header_becomes_an_attribute(stage: Hooks, provider: Provider, field: str, header: str) -> None:
    stage.connector(provider)
    stage.rule(headers_to_attributes={header: "crm.account"})
    await stage.xml(FORM | {"CallUUID": "CA1", field: "4711"})
    (request,) = stage.calls.requests
    assert request.participant.attributes == {"crm.account": "4711"}


@pytest.mark.parametrize("path", ["/v2/hooks/twilio/whk_unknown", "/v2/hooks/telnyx/{key}", "/v2/hooks/other/{key}"])
async def test_an_unknown_url_404(stage: Hooks, path: str) -> None:
    stage.connector(default_room_id="lobby")
    key = stage.path.rsplit("/", 1)[1]
    status, text = await stage.post(path=path.format(key=key))
    assert status == 404
    assert key not in text
    assert not stage.calls.requests


async def test_a_url_of_another_api_secret_404_and_the_log_says_what_to_do(stage: Hooks) -> None:
    entry = stage.connector(default_room_id="lobby")
    key = WebhookKeys("the secret before").derive(entry.id, entry.key_nonce)
    await stage.save()
    await stage.store.connectors.replace(replace(entry, key_hash=WebhookKeys.hash(key)))
    with capture_logs() as lines:
        assert (await stage.post(path=f"/v2/hooks/twilio/{key}"))[0] == 404
    assert any("secret has changed" in line.get("error", "") for line in lines)
    assert key not in repr(lines)


async def test_a_deleted_connector_s_url_is_unknown_at_once(stage: Hooks) -> None:
    entry = stage.connector(default_room_id="lobby")
    await stage.save()
    await stage.store.connectors.delete(entry.id)
    assert (await stage.post())[0] == 404


@pytest.mark.parametrize("method", ["GET", "PUT", "HEAD", "DELETE"])
async def test_another_method_405(stage: Hooks, method: str) -> None:
    stage.connector(default_room_id="lobby")
    async with stage.client.request(method, stage.path) as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")


@pytest.mark.parametrize(
    ("form", "query"),
    [
        ({}, ""),
        ({"CallSid": ""}, ""),
        (b"CallSid=CA1&To=" + CALLED.encode(), ""),
        ({f"f{number}": "x" for number in range(1500)}, ""),
        (FORM, "?roomId=" + "x" * 257),
        (FORM, "?roomId=a%00b"),
    ],
)
async def test_what_cannot_be_understood_400(stage: Hooks, form: Any, query: str) -> None:
    stage.connector(default_room_id="lobby")
    assert (await stage.post(form, query))[0] == 400
    assert not stage.calls.requests


async def test_a_form_that_is_too_large_413(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    assert (await stage.post(FORM | {"Long": "x" * 70_000}))[0] == 413


async def test_a_call_without_a_room_hears_a_sentence_and_the_log_has_the_reason(stage: Hooks) -> None:
    stage.connector()
    with capture_logs() as lines:
        assert spoken(await stage.xml()) == SORRY
    (line,) = [line for line in lines if line["event"] == "incoming call refused"]
    assert line["reason"].startswith("no rule has this number")
    assert (line["from"], line["to"]) == (CALLER, CALLED)
    assert not stage.calls.requests


@pytest.mark.parametrize("error", [ResourceExhausted("the connector holds 1 calls"), Unavailable("draining")])
async def test_a_full_or_draining_connector_refuses_politely(stage: Hooks, error: ConnectorError) -> None:
    stage.connector(default_room_id="lobby")
    stage.calls.error = error
    with capture_logs() as lines:
        assert spoken(await stage.xml()) == BUSY
    assert [line["reason"] for line in lines if line["event"] == "incoming call refused"] == [error.message]


async def test_a_store_that_fails_lets_the_carrier_use_its_fallback(
    stage: Hooks, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.connector(default_room_id="lobby")
    stage.calls.error = StoreError("the store is away")
    assert (await stage.post())[0] == 503

    async def fail(_: str) -> None:
        raise StoreError("the store is away")

    monkeypatch.setattr(stage.store.connectors, "find", fail)
    assert (await stage.post())[0] == 503


async def test_the_same_call_announced_twice_is_one_call(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    first, second = await stage.xml(), await stage.xml()
    assert stream_token(first) == stream_token(second)
    assert len(stage.calls.requests) == 1


async def test_even_while_the_first_is_being_made(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    stage.calls.gate = asyncio.Event()
    first = asyncio.create_task(stage.xml())
    assert await stage.calls.reached.get() == "CA1"
    second = asyncio.create_task(stage.xml())
    other = asyncio.create_task(stage.xml(FORM | {"CallSid": "CA2"}))
    assert await stage.calls.reached.get() == "CA2"
    stage.calls.gate.set()
    tokens = [stream_token(answer) for answer in await asyncio.gather(first, second, other)]
    assert tokens[0] == tokens[1] != tokens[2]
    assert len(stage.calls.requests) == 2


async def test_or_made_by_another_process_a_moment_before(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    call_id = KEYS.call_id(stage.entry.id, "CA1")
    deadline = time.time() + 60

    class Race(NameTaken):
        def __init__(self) -> None:
            super().__init__(call_id)
            stage.calls.waiting[call_id] = deadline

    async def create(request: CallRequest) -> Admitted:
        raise Race

    stage.calls.create = create  # type: ignore[method-assign]
    assert SIGNER.peek(stream_token(await stage.xml())) == (call_id, deadline)


@pytest.mark.parametrize(
    ("became", "said"),
    [
        (TokenInvalid("no such call"), BUSY),
        (TokenExpired("the call has ended"), BUSY),
        (TokenUsed("used by a WebSocket"), BUSY),
    ],
)
async def test_a_call_that_the_other_process_has_not_any_more_is_refused_politely(
    stage: Hooks, became: ConnectorError, said: str
) -> None:
    stage.connector(default_room_id="lobby")

    async def create(request: CallRequest) -> Admitted:
        stage.calls.waiting[request.call_id] = became
        raise NameTaken(request.call_id)

    stage.calls.create = create  # type: ignore[method-assign]
    assert spoken(await stage.xml()) == said


OVER = [TokenUsed("used by a WebSocket"), TokenExpired("the call has ended"), math.inf]


def leg(stage: Hooks, number: int, carrier_call: str = "CA1") -> str:
    return KEYS.call_id(stage.entry.id, carrier_call if number == 1 else f"{carrier_call}#{number}")


@pytest.mark.parametrize("became", OVER)
async def test_a_carrier_call_that_comes_back_is_a_new_leg(stage: Hooks, became: ConnectorError | float) -> None:
    stage.connector(default_room_id="lobby")
    await stage.xml()
    for number in (2, 3):
        stage.calls.waiting[leg(stage, number - 1)] = became
        answer = await stage.xml(FORM | {"CallStatus": f"in-progress {number}"})
        assert SIGNER.verify(stream_token(answer), time.time()) == leg(stage, number)
    assert [request.call_id for request in stage.calls.requests] == [leg(stage, number) for number in (1, 2, 3)]
    assert len({request.participant.identity for request in stage.calls.requests}) == 3
    # The phone of the leg before is in good hands.
    assert (stage.calls.back, stage.calls.stayed) == ([leg(stage, 1), leg(stage, 1), leg(stage, 2)], [])
    assert not stage.calls.ended


async def had_its_stream(stage: Hooks, delivery: str = "", *, over: bool) -> CallRequest:
    """The first leg's, announced by this delivery."""
    headers = {"I-Twilio-Idempotency-Token": delivery} if delivery else {}
    await stage.post(headers=headers)
    (request,) = stage.calls.requests
    record = new_record(request, "here")
    if over:
        record = replace(record, state=CallState.ENDED, end_reason=EndReason.ROOM_DELETED)
    else:
        stage.calls.streaming.add(request.call_id)
    await stage.store.save_call(record)
    stage.calls.waiting[request.call_id] = TokenExpired("over") if over else math.inf
    return request


@pytest.mark.parametrize("over", [True, False])
async def test_a_delivery_that_twilio_repeats_gets_the_same_answer_whatever_has_become_of_the_call(
    stage: Hooks, over: bool
) -> None:
    stage.connector(default_room_id="lobby")
    request = await had_its_stream(stage, "token-1", over=over)
    _, text = await stage.post(headers={"I-Twilio-Idempotency-Token": "token-1"})
    assert SIGNER.peek(stream_token(ElementTree.fromstring(text)))[0] == request.call_id
    assert (stage.calls.waited, len(stage.calls.requests)) == ([], 1)
    _, text = await stage.post(headers={"I-Twilio-Idempotency-Token": "token-2"})
    assert SIGNER.peek(stream_token(ElementTree.fromstring(text)))[0] == leg(stage, 2)


@pytest.mark.parametrize(("over", "number"), [(True, 2), (False, 1)])
async def test_the_same_body_is_the_same_delivery_while_the_call_lasts(stage: Hooks, over: bool, number: int) -> None:
    stage.connector(default_room_id="lobby")
    await had_its_stream(stage, over=over)
    assert SIGNER.peek(stream_token(await stage.xml()))[0] == leg(stage, number)
    assert stage.calls.stayed == ([] if over else [leg(stage, 1)])


@pytest.mark.parametrize(("provider", "ends"), [(Provider.TWILIO, False), (Provider.TELNYX, True)])
async def test_a_stream_that_goes_on_is_left_alone_where_the_carrier_ends_it(
    stage: Hooks, provider: Provider, ends: bool
) -> None:
    stage.connector(provider, default_room_id="lobby")
    await had_its_stream(stage, over=False)
    await stage.xml(FORM | {"CallStatus": "in-progress"})
    assert stage.calls.ended == ([leg(stage, 1)] if ends else [])
    assert len(stage.calls.requests) == 2
    # When that stream is over in the end, the phone is the new leg's.
    assert (stage.calls.back, stage.calls.stayed) == ([leg(stage, 1)], [])


async def test_a_new_leg_is_not_asked_for_the_pin_that_an_earlier_one_has_pressed(stage: Hooks) -> None:
    rule = stage.rule(room=RuleRoom(RoomType.STATIC, "support", pin="4711"))
    stage.connector()
    first = leg(stage, 1)
    stage.calls.waiting[first] = TokenExpired("over")
    request = CallRequest(first, Provider.TWILIO, Direction.INBOUND, "support", ParticipantSpec("c"), rule_id=rule.id)
    await stage.store.save_call(replace(new_record(request, "here"), end_reason=EndReason.ROOM_DELETED))
    assert SIGNER.peek(stream_token(await stage.xml()))[0] == leg(stage, 2)
    # Another rule's PIN is another matter.
    stage.rule(id="rule_2", room=RuleRoom(RoomType.STATIC, "support", pin="4712"))
    await stage.store.rules.delete("rule_1")
    stage.calls.waiting[leg(stage, 2)] = TokenExpired("over")
    assert (await stage.xml(FORM | {"CallStatus": "in-progress"})).find("Gather") is not None


async def test_the_end_of_a_carrier_call_is_told_to_its_latest_leg(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    stage.calls.waiting |= {leg(stage, 1): TokenExpired("over"), leg(stage, 2): math.inf}
    await stage.xml({"CallSid": "CA1", "CallStatus": "completed"})
    assert stage.calls.said == [(leg(stage, 1), "completed"), (leg(stage, 2), "completed")]


async def test_the_same_carrier_call_at_two_connectors_is_two_calls(stage: Hooks) -> None:
    for _ in range(2):
        stage.connector(default_room_id="lobby")
        await stage.xml()
    assert len({request.call_id for request in stage.calls.requests}) == 2


@pytest.mark.parametrize(
    ("provider", "form", "status"),
    [
        (Provider.PLIVO, {"CallUUID": "CA1", "Event": "Hangup", "CallStatus": "completed"}, "completed"),
        (Provider.PLIVO, {"CallUUID": "CA1", "Event": "Hangup", "CallStatus": "cancel"}, "canceled"),
        (Provider.PLIVO, {"CallUUID": "CA1", "Event": "Hangup", "CallStatus": "timeout"}, "no-answer"),
        (Provider.TWILIO, {"CallSid": "CA1", "CallStatus": "completed"}, "completed"),
    ],
)
async def test_the_news_of_a_call_s_end_makes_none(stage: Hooks, provider: Provider, form: Any, status: str) -> None:
    stage.connector(provider, default_room_id="lobby")
    assert [child.tag for child in await stage.xml(form)] == ["Hangup"]
    assert stage.calls.said == [(KEYS.call_id(stage.entry.id, "CA1"), status)]
    assert not stage.calls.requests


# Blocked callers


@pytest.mark.parametrize(
    ("provider", "verb"), [(Provider.TWILIO, "Reject"), (Provider.TELNYX, "Reject"), (Provider.PLIVO, "Hangup")]
)
@pytest.mark.parametrize("mode", list(ConnectorMode))
async def test_a_blocked_caller_is_rejected_before_the_answer(
    stage: Hooks, provider: Provider, verb: str, mode: ConnectorMode
) -> None:
    stage.connector(provider, default_room_id="lobby", mode=mode)
    stage.rule(blocked_numbers=("+1555222*",), block_withheld=True, hide_phone_number=True)
    with capture_logs() as lines:
        for caller in (CALLER, "+266696687", "anonymous", ""):
            answer = await stage.xml(FORM | {"CallUUID": "CA1", "From": caller})
            assert [(child.tag, child.attrib) for child in answer] == [(verb, {"reason": "rejected"})]
    reasons = [line["reason"] for line in lines if line["event"] == "incoming call rejected"]
    assert reasons == ["the rule blocks the caller"] * 4
    assert CALLER not in repr(lines)
    assert not stage.calls.requests


async def test_a_blocked_caller_is_diverted(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    stage.rule(block_withheld=True, divert_rule_id="rule_2")
    assert [child.tag for child in await stage.xml(FORM | {"From": "Restricted"})] == ["Reject"]
    stage.rule(id="rule_2", numbers=(), room=RuleRoom(RoomType.STATIC, "screening"), agent_id="screener")
    stream_token(await stage.xml(FORM | {"From": "Restricted"}))
    stream_token(await stage.xml(FORM | {"CallSid": "CA2"}))
    diverted, direct = stage.calls.requests
    assert (diverted.room, diverted.rule_id, diverted.from_number) == ("screening", "rule_2", "withheld")
    assert [agent.agent_name for agent in diverted.agents] == ["screener"]
    assert (direct.room, direct.from_number) == ("support", CALLER)


# The PIN

WITH_PIN = RuleRoom(RoomType.STATIC, "support", pin="4711")


async def asked(stage: Hooks, form: Any, query: str) -> tuple[str, str]:
    """Prompt and query of the next question."""
    answer = await stage.xml(form, query)
    gather = answer.find("Gather")
    assert gather is not None, ElementTree.tostring(answer)
    assert gather.attrib["numDigits"] == "4"
    origin, _, rest = gather.attrib["action"].partition(stage.path)
    assert origin == US  # FromCountry is US.
    return gather[0].text or "", rest


async def test_the_right_pin_lets_the_caller_in(stage: Hooks) -> None:
    stage.connector()
    stage.rule(room=WITH_PIN)
    prompt, query = await asked(stage, FORM, "")
    assert prompt == ASK_PIN
    assert not stage.calls.requests
    first = await stage.xml(FORM | {"Digits": "4711"}, query)
    again = await stage.xml(FORM | {"Digits": "4711"}, query)
    assert stream_token(first) == stream_token(again)
    assert [request.room for request in stage.calls.requests] == ["support"]


async def test_three_wrong_pins_and_out(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    stage.rule(room=WITH_PIN)
    _, query = await asked(stage, FORM, "")
    for digits in ("1111", ""):
        prompt, query = await asked(stage, FORM | {"Digits": digits}, query)
        assert prompt == WRONG_PIN
    with capture_logs() as lines:
        assert spoken(await stage.xml(FORM | {"Digits": "47111"}, query)) == NO_MORE_TRIES
    assert any(line.get("reason") == "3 wrong PINs" for line in lines)
    assert not stage.calls.requests


async def test_the_third_try_may_be_right(stage: Hooks) -> None:
    stage.connector()
    stage.rule(room=WITH_PIN)
    _, query = await asked(stage, FORM, "")
    for _ in range(2):
        _, query = await asked(stage, FORM | {"Digits": "1"}, query)
    stream_token(await stage.xml(FORM | {"Digits": "4711"}, query))


async def test_a_wrong_pin_that_the_carrier_sends_twice_counts_once(stage: Hooks) -> None:
    stage.connector()
    stage.rule(room=WITH_PIN)
    _, first = await asked(stage, FORM, "")
    for _ in range(5):
        prompt, query = await asked(stage, FORM | {"Digits": "1"}, first)
        assert prompt == WRONG_PIN
    await asked(stage, FORM | {"Digits": "1"}, query)
    assert spoken(await stage.xml(FORM | {"Digits": "1"}, (await asked(stage, FORM | {"Digits": "1"}, query))[1]))


async def test_a_pin_without_a_question_of_ours_opens_nothing(stage: Hooks) -> None:
    stage.connector()
    stage.rule(room=WITH_PIN)
    await asked(stage, FORM | {"Digits": "4711"}, "")
    _, other = await asked(stage, FORM | {"CallSid": "CA2"}, "")
    for query in ("?pin_attempt=forged", f"?pin_attempt={SIGNER.mint('call_1', time.time() + 60)}", other):
        assert (await stage.post(FORM | {"Digits": "4711"}, query))[0] == 404
    assert not stage.calls.requests


async def test_the_url_s_room_needs_no_pin(stage: Hooks) -> None:
    stage.connector()
    stage.rule(room=WITH_PIN)
    stream_token(await stage.xml(FORM, "?roomId=here"))


@pytest.mark.parametrize("caller", [CALLER, "anonymous"])
async def test_calling_again_gives_no_new_tries(stage: Hooks, caller: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.connector()
    stage.rule(room=WITH_PIN)
    form = FORM | {"From": caller}
    for number in range(3):
        _, query = await asked(stage, form | {"CallSid": f"CA{number}"}, "")
        answer = await stage.xml(form | {"CallSid": f"CA{number}", "Digits": "1111"}, query)
    assert spoken(answer) == NO_MORE_TRIES
    with capture_logs() as lines:
        assert spoken(await stage.xml(form | {"CallSid": "CA3"})) == NO_MORE_TRIES
    assert [line["reason"] for line in lines] == ["3 wrong PINs of this caller within 900 s"]
    # Another one who withholds the number is the same caller, for all that is known.
    other = "+7378742833" if caller == "anonymous" else "+15550009999"
    if caller == "anonymous":
        assert spoken(await stage.xml(FORM | {"CallSid": "CA4", "From": other})) == NO_MORE_TRIES
    else:
        await asked(stage, FORM | {"CallSid": "CA4", "From": other}, "")
    assert CALLER not in repr(await stage.store.pin_locks.list())
    later = time.time() + LOCK_OUT + 1
    monkeypatch.setattr("connector.api.carrier.hooks.time.time", lambda: later)
    _, query = await asked(stage, form | {"CallSid": "CA5"}, "")
    stream_token(await stage.xml(form | {"CallSid": "CA5", "Digits": "4711"}, query))
    assert await stage.store.pin_locks.list() == []


async def test_a_right_pin_forgives_the_wrong_ones_and_silence_is_none(stage: Hooks) -> None:
    stage.connector()
    stage.rule(room=WITH_PIN)
    for number, digits in enumerate(("1111", "", "", "2222")):
        _, query = await asked(stage, FORM | {"CallSid": f"CA{number}"}, "")
        _, query = await asked(stage, FORM | {"CallSid": f"CA{number}", "Digits": digits}, query)
    stream_token(await stage.xml(FORM | {"CallSid": "CA3", "Digits": "4711"}, query))
    assert await stage.store.pin_locks.list() == []


async def test_locks_that_are_over_are_forgotten(stage: Hooks) -> None:
    stage.connector()
    stage.rule(room=WITH_PIN)
    _, query = await asked(stage, FORM, "")
    await asked(stage, FORM | {"Digits": "1111"}, query)
    assert await forget_locks(stage.store, time.time()) == 0
    assert await forget_locks(stage.store, time.time() + LOCK_OUT + 1) == 1
    assert await stage.store.pin_locks.list() == []


async def test_a_connector_s_waiting_calls_are_limited(stage: Hooks) -> None:
    stage.connector(default_room_id="lobby")
    stage.calls.waiting_here = MAX_WAITING - 1
    stream_token(await stage.xml())
    stage.calls.waiting_here = MAX_WAITING
    with capture_logs() as lines:
        assert spoken(await stage.xml(FORM | {"CallSid": "CA2"})) == BUSY
    (line,) = [line for line in lines if line["event"] == "incoming call refused"]
    assert "50 calls of this connector are waiting" in line["reason"]
    assert len(stage.calls.requests) == 1


# Hidden numbers, regions, signatures, SIP


@pytest.mark.parametrize("prefix", list(RoomPrefix))
async def test_a_hidden_number_is_in_no_name_and_no_log(stage: Hooks, prefix: RoomPrefix) -> None:
    room = RuleRoom(RoomType.DYNAMIC, prefix=prefix, pin="4711")
    stage.connector()
    stage.rule(room=room, hide_phone_number=True)
    with capture_logs() as lines:
        _, query = await asked(stage, FORM, "")
        await stage.xml(FORM | {"Digits": "4711"}, query)
        stage.rule(room=room, hide_phone_number=True, allowed_numbers=("+15559998888",))
        spoken(await stage.xml(FORM | {"CallSid": "CA2"}))
    (request,) = stage.calls.requests
    assert request.hide_number
    digits = CALLER.removeprefix("+")
    assert digits not in f"{request.room} {request.participant} {request.call_id}"
    assert digits not in repr(lines)


@pytest.mark.parametrize(
    ("region", "country", "origin"),
    [("us002", "", US), ("us002", "DE", US), (None, "US", US), (None, "", PUBLIC), ("mars", "US", PUBLIC)],
)
async def test_the_region_chooses_the_origin(stage: Hooks, region: str | None, country: str, origin: str) -> None:
    stage.connector(default_room_id="lobby", region=region)
    with capture_logs() as lines:
        stream = (await stage.xml(FORM | {"FromCountry": country})).find("Connect/Stream")
    assert stream is not None
    assert [line["region"] for line in lines if "region is not configured" in line["event"]] == ["mars"] * (
        region == "mars"
    )
    assert stream.attrib["url"].startswith(f"{origin.replace('https', 'wss')}/twilio/")
    assert stage.calls.requests[0].region == ("us002" if origin == US else "")


@pytest.mark.parametrize("origin", [PUBLIC, US])
async def test_a_signature_may_be_for_any_of_our_origins(origin: str) -> None:
    async with hooks_on(signing(Provider.TWILIO, "token")) as stage:
        stage.connector(default_room_id="lobby")
        signed = RequestValidator("token").compute_signature(f"{origin}{stage.path}?roomId=a%20b", FORM)
        status, _ = await stage.post(FORM, "?roomId=a%20b", headers={"X-Twilio-Signature": signed})
        assert status == 200


@pytest.mark.parametrize("provider", list(Provider))
@pytest.mark.parametrize("headers", [{}, {"X-Twilio-Signature": "x", "X-Plivo-Signature-V3": "x"}])
async def test_what_the_carrier_did_not_sign_403(provider: Provider, headers: dict[str, str]) -> None:
    async with hooks_on(signing(provider, TELNYX_PUBLIC if provider is Provider.TELNYX else "token")) as stage:
        connector = stage.connector(provider, default_room_id="lobby")
        with capture_logs() as lines:
            assert (await stage.post(FORM | {"CallUUID": "CA1"}, headers=headers))[0] == 403
        assert [line["connector"] for line in lines] == [connector.id]
        assert not stage.calls.requests


@pytest.mark.parametrize(
    ("account", "token", "status", "says"),
    [
        ("AC1", "new-1", 200, ""),
        ("AC1", "old-1", 200, ""),
        ("AC2", "token-2", 200, ""),
        ("AC2", "new-1", 403, "the request is from account AC2"),
        ("AC1", "token-2", 403, "the request is from account AC1"),
        ("AC9", "token-9", 403, "the request is from Twilio account AC9, which is not configured: see TWILIO_ACCOUNTS"),
        ("AC9", "new-1", 403, "account AC9"),
        ("AC 9\n", "new-1", 403, "account (invalid account id)"),
        ("", "token-2", 200, ""),
        ("", "token-9", 403, "no secret of a configured account"),
    ],
)
async def test_the_secret_is_that_of_the_account_that_the_request_names(
    account: str, token: str, status: int, says: str
) -> None:
    accounts = [CarrierAccount("AC1", ("new-1", "old-1")), CarrierAccount("AC2", ("token-2",))]
    async with hooks_on({Provider.TWILIO: CarrierAccounts(CARRIERS[Provider.TWILIO].account_rules, accounts)}) as stage:
        stage.connector(default_room_id="lobby")
        form = FORM | ({"AccountSid": account} if account else {})
        signed = RequestValidator(token).compute_signature(f"{PUBLIC}{stage.path}", form)
        with capture_logs() as lines:
            assert (await stage.post(form, headers={"X-Twilio-Signature": signed}))[0] == status
        assert [request.account_id for request in stage.calls.requests] == ([account] if status == 200 else [])
        assert not says or [line for line in lines if says in line.get("error", "")], lines


@pytest.mark.parametrize("provider", list(Provider))
async def test_a_carrier_whose_signature_cannot_be_checked_is_refused(provider: Provider) -> None:
    async with hooks_on({}) as stage:
        stage.connector(provider, default_room_id="lobby")
        with capture_logs() as lines:
            assert (await stage.post(FORM | {"CallUUID": "CA1"}))[0] == 403
        (line,) = lines
        assert CARRIERS[provider].signing_setting in line["error"]
        assert "CONNECTOR_ALLOW_UNSIGNED_WEBHOOKS" in line["error"]
        assert not stage.calls.requests


async def test_an_event_of_telnyxs_voice_api_is_told_as_that(stage: Hooks) -> None:
    stage.connector(Provider.TELNYX, default_room_id="lobby")
    event = b'{"data": {"event_type": "call.initiated", "payload": {"call_control_id": "v3:x"}}}'
    with capture_logs() as lines:
        status, text = await stage.post(event, headers={"Content-Type": "application/json"})
    assert status == 400
    (line,) = [line for line in lines if line["event"] == "carrier webhook refused"]
    for told in (text, line["error"]):
        assert "Voice API event (call.initiated)" in told
        assert "TeXML application" in told
    assert not stage.calls.requests


async def test_that_nothing_is_checked_is_told_once(stage: Hooks) -> None:
    stage.connector(Provider.PLIVO, default_room_id="lobby")
    with capture_logs() as lines:
        for number in range(3):
            await stage.xml({"CallUUID": f"CA{number}"})
    assert [line["set"] for line in lines if "not checked" in line["event"]] == ["PLIVO_AUTH_TOKEN"]


async def test_a_sip_connector_dials(stage: Hooks) -> None:
    class Sip:
        async def dial(self, connector: Any, arrival: Any, call_id: str, origin: str, route: Any) -> str:
            return f"<Response><Dial>{route and route.room} {origin}</Dial></Response>"

    async with hooks_on(sip=Sip()) as other:
        other.connector(default_room_id="lobby", mode=ConnectorMode.SIP)
        assert (await other.xml())[0].text == f"lobby {US}"
        other.connector(mode=ConnectorMode.SIP)
        assert (await other.xml())[0].text == f"None {US}"
        assert not other.calls.requests
    stage.connector(default_room_id="lobby", mode=ConnectorMode.SIP)
    assert spoken(await stage.xml()) == SORRY


# Whatever may come

WORDS = st.text(max_size=20) | st.sampled_from(["CA1", CALLER, "completed", "4711", "", "\x00", "\u2028", "sip:a@b"])
FIELDS = st.sampled_from([*FORM, "Digits", "CallStatus", "CallUUID", "SipHeader_X-A", "X-PH-A"]) | st.text(max_size=8)


@given(
    form=st.lists(st.tuples(FIELDS, WORDS), max_size=8),
    query=st.lists(st.tuples(st.sampled_from(["roomId", "pin_attempt", "x"]), WORDS), max_size=3),
    pin=st.sampled_from(["", "4711"]),
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_form_breaks_it(form: list[tuple[str, str]], query: list[tuple[str, str]], pin: str) -> None:
    async def post() -> None:
        async with hooks_on() as stage:
            stage.connector(default_rule_id="rule_1", default_room_id="lobby")
            stage.rule(room=RuleRoom(RoomType.DYNAMIC, prefix=RoomPrefix.PARTICIPANT_NUMBER, pin=pin))
            data = urlencode(form, errors="replace").encode()
            headers = {"Content-Type": "application/x-www-form-urlencoded"}
            status, text = await stage.post(data, f"?{urlencode(query, errors='replace')}", headers=headers)
            assert status in (200, 400, 404)
            if status == 200:
                assert ElementTree.fromstring(text).tag == "Response"
            for request in stage.calls.requests:
                # The URL's room is the customer's own words; what the caller has sent is made harmless.
                shown = f"{request.room if request.rule_id else ''}{request.participant.name}"
                assert shown.isprintable()

    asyncio.run(post())


def test_the_random_name_of_a_room_is_long_and_never_a_word() -> None:
    names = {new_room_name() for _ in range(500)}
    assert len(names) == 500
    assert all(re.fullmatch("[bcdfghjklmnpqrstvwxyz0-9]{4}(-[bcdfghjklmnpqrstvwxyz0-9]{4}){3}", name) for name in names)
    assert not set("aeiou") & set("".join(names))
