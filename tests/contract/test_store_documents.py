"""What every store must do with connectors, rules, endpoints, keys, SIP numbers and waiting calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from connector.model.call import AgentDispatch, CallRequest, Direction, ParticipantSpec, WaitingCall
from connector.model.connector import ConnectorEntry, ConnectorMode, SipNumber
from connector.model.provider import Provider
from connector.model.rule import PinLock, RoomPrefix, RoomType, RoutingRule, RuleRoom, RuleType
from connector.model.webhook import LifecycleEvent, SigningKey, WebhookEndpoint
from connector.storage.base import Collection, DocumentFilter, NameTaken, Page, Store, StoreError, names_of
from connector.storage.json_form import Form

CONNECTOR = ConnectorEntry(
    "cn_1", Provider.PLIVO, "hash-1", "nonce-1", 1000.125, "Support", "lobby", "rule_1", "eu", ConnectorMode.SIP
)
RULE = RoutingRule(
    id="rule_1",
    name="Grüße 📞",
    type=RuleType.INBOUND,
    created_at=1000.5,
    updated_at=1763734740.123456,
    numbers=("+4930100", "+4930200"),
    room=RuleRoom(RoomType.DYNAMIC, prefix=RoomPrefix.PARTICIPANT_NUMBER, pin="0042"),
    agent_id="agent",
    agent_metadata='{"a": "b"}',
    allowed_numbers=("+15551234567",),
    blocked_numbers=("+1900*",),
    block_withheld=True,
    divert_rule_id="rule_2",
    allowed_ip_addresses=("192.0.2.1",),
    hide_phone_number=True,
    dtmf=False,
    recording=True,
    noise_cancellation=True,
    tags=("vip", "de"),
    headers={"X-A": "1"},
    headers_to_attributes={"X-A": "a"},
    include_headers="all",
)
ENDPOINT = WebhookEndpoint(
    "wh_1", "https://example.com/hook", (LifecycleEvent.STARTED, LifecycleEvent.HANGUP), 1.5, 2.5
)
KEY = SigningKey("key_1", "-----BEGIN PRIVATE KEY-----\nnot a real one\n-----END PRIVATE KEY-----\n", 3.5)
WAITING = WaitingCall(
    id="call_1",
    request=CallRequest(
        call_id="call_1",
        provider=Provider.TELNYX,
        direction=Direction.INBOUND,
        room="support",
        participant=ParticipantSpec("caller", "Caller", "{}", {"a": "b"}),
        agents=(AgentDispatch("agent", "meta", 1, "prod", {"k": "v"}),),
        destination_country="DE",
        rule_id="rule_1",
        connector_id="cn_1",
        region="eu",
        from_number="+15557654321",
        to_number="+4930100",
        carrier_call_id="v3:1",
        hide_number=True,
        dtmf=False,
        headers_to_attributes={"X-A": "a"},
    ),
    owner="here",
    created_at=1000.0,
    expires_at=1090.0,
    carrier_call_id="v3:1",
    from_number="+15557654321",
    to_number="+4930100",
    account_id="org",
)
DOCUMENTS: list[tuple[str, Any]] = [
    ("connectors", CONNECTOR),
    ("rules", RULE),
    ("endpoints", ENDPOINT),
    ("keys", KEY),
    ("sip_numbers", SipNumber("+4930100", "ST_1", "user", "sealed", 4.5)),
    ("waiting", WAITING),
    ("pin_locks", PinLock("fingerprint", 5.5, ("call_1:0", "call_1:1"), 905.5)),
]
EACH = pytest.mark.parametrize(("collection", "document"), DOCUMENTS, ids=[name for name, _ in DOCUMENTS])


def collection_of(store: Store, name: str) -> Collection[Any]:
    collection: Collection[Any] = getattr(store, name)
    return collection


def connector(number: int, key: str = "", created_at: float = 0.0) -> ConnectorEntry:
    return ConnectorEntry(f"cn_{number}", Provider.TWILIO, key or f"hash-{number}", "nonce", created_at or number)


def waiting(number: int) -> WaitingCall:
    return replace(WAITING, id=f"call_{number}")


@EACH
async def test_a_document_comes_back_as_it_was(store: Store, collection: str, document: Any) -> None:
    kept = collection_of(store, collection)
    await kept.insert(document)
    assert await kept.get(document.id) == document
    assert await kept.list() == [document]
    for name in names_of(document):
        assert await kept.find(name) == document


@EACH
async def test_a_document_outlives_the_process(
    make: Callable[[], Store], store: Store, collection: str, document: Any
) -> None:
    await collection_of(store, collection).insert(document)
    await store.close()
    again = make()
    await again.open()
    assert await collection_of(again, collection).get(document.id) == document
    await again.close()


def test_no_collection_is_left_out() -> None:
    kept = {name for name in dir(Store) if isinstance(getattr(Store, name), property)} - {"deliveries", "hang_ups"}
    assert {name for name, _ in DOCUMENTS} == kept


@EACH
async def test_a_document_is_on_a_page(store: Store, collection: str, document: Any) -> None:
    kept = collection_of(store, collection)
    assert await kept.page(0, 5) == Page([], 0)
    await kept.insert(document)
    assert await kept.page(0, 5) == Page([document], 1)
    assert await kept.page(1, 5) == Page([], 1)
    label = f"id:{document.id}"
    assert await kept.page(0, 5, DocumentFilter(labels=((label, "id:other"),))) == Page([document], 1)
    assert await kept.page(0, 5, DocumentFilter(labels=((label,), ("id:other",)))) == Page([], 0)
    assert await kept.page(0, 5, DocumentFilter(labels=((label[:-1],),))) == Page([], 0)


async def test_pages_of_documents_are_counted_and_cut_by_the_store(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than a store looks through at a time."""
    rules = [
        replace(
            RULE,
            id=f"rule_{number:04}",
            name=f"Süd {number}",
            type=RuleType.INBOUND if number % 3 else RuleType.OUTBOUND,
            room=RuleRoom(RoomType.STATIC, "r") if number % 2 else None,
            numbers=(f"+49{number:05}",),
            created_at=1000.0 + number // 2,
        )
        for number in range(700)
    ]
    for start in range(0, len(rules), 50):
        await asyncio.gather(*(store.rules.insert(rule) for rule in rules[start : start + 50]))
    rules.sort(key=lambda rule: (-rule.created_at, rule.id))
    decoded = 0
    read = Form.read

    def counting(form: Form[Any], text: str) -> Any:
        nonlocal decoded
        decoded += 1
        return read(form, text)

    monkeypatch.setattr(Form, "read", counting)
    filters: list[tuple[DocumentFilter, Callable[[RoutingRule], bool]]] = [
        (DocumentFilter(), lambda rule: True),
        (DocumentFilter(labels=(("type:inbound",),)), lambda rule: rule.type is RuleType.INBOUND),
        (
            DocumentFilter(labels=(("type:inbound",), ("room:static",))),
            lambda rule: rule.type is RuleType.INBOUND and rule.room is not None,
        ),
        (DocumentFilter(labels=(("room:static", "room:dynamic"),)), lambda rule: True),
        (DocumentFilter(labels=((),)), lambda rule: False),
        (DocumentFilter(texts=("SÜD 1",)), lambda rule: rule.name.startswith("Süd 1")),
        (DocumentFilter(texts=("süd 11", "+4900012")), lambda rule: "Süd 11" in rule.name or rule.id == "rule_0012"),
        (DocumentFilter(texts=("type:inbound",)), lambda rule: False),
    ]
    for where, wanted in filters:
        found = [rule for rule in rules if wanted(rule)]
        for offset in (0, 13, 650):
            decoded = 0
            page = await store.rules.page(offset, 20, where)
            assert page == Page(found[offset : offset + 20], len(found)), where
            assert decoded == len(page.items)


async def test_a_document_that_changed_is_found_by_its_new_values_alone(store: Store) -> None:
    await store.rules.insert(RULE)
    await store.rules.replace(replace(RULE, name="new", room=RuleRoom(RoomType.STATIC, "r")))
    assert (await store.rules.page(0, 5, DocumentFilter(texts=("grüße",)))).total == 0
    assert (await store.rules.page(0, 5, DocumentFilter(labels=(("room:dynamic",),)))).total == 0
    assert (await store.rules.page(0, 5, DocumentFilter((("room:static",),), ("NEW",)))).total == 1
    await store.rules.delete(RULE.id)
    assert (await store.rules.page(0, 5, DocumentFilter(texts=("new",)))).total == 0


async def test_what_is_not_there_is_none(store: Store) -> None:
    assert await store.connectors.get("cn_1") is None
    assert await store.connectors.find("key:hash-1") is None
    assert await store.connectors.list() == []
    assert not await store.connectors.delete("cn_1")
    assert not await store.connectors.replace(CONNECTOR)
    assert await store.connectors.list() == []
    assert await store.connectors.find("key:hash-1") is None


async def test_an_id_is_had_once(store: Store) -> None:
    await store.connectors.insert(CONNECTOR)
    with pytest.raises(NameTaken) as caught:
        await store.connectors.insert(replace(CONNECTOR, key_hash="another"))
    assert caught.value.name == "cn_1"
    assert await store.connectors.list() == [CONNECTOR]
    assert await store.connectors.find("key:another") is None


async def test_the_first_name_that_is_taken_is_told_and_nothing_is_changed(store: Store) -> None:
    await store.rules.insert(RULE)
    second = replace(RULE, id="rule_2", numbers=("+1", "+4930200", "+4930100"))
    with pytest.raises(NameTaken) as caught:
        await store.rules.insert(second)
    assert caught.value.name == "inbound:+4930200"
    assert await store.rules.list() == [RULE]
    assert await store.rules.find("inbound:+1") is None
    await store.rules.insert(replace(second, numbers=("+1", "+2")))


async def test_one_number_may_be_in_a_rule_of_either_direction(store: Store) -> None:
    outbound = replace(RULE, id="rule_2", type=RuleType.OUTBOUND)
    await store.rules.insert(RULE)
    await store.rules.insert(outbound)
    assert await store.rules.find("outbound:+4930100") == outbound


async def test_collections_do_not_see_each_other(store: Store) -> None:
    await store.waiting.insert(replace(WAITING, id="same"))
    await store.connectors.insert(replace(CONNECTOR, id="same"))
    assert await store.waiting.delete("same")
    assert await store.connectors.get("same") is not None


async def test_a_replacement_gives_up_old_names_and_takes_new_ones(store: Store) -> None:
    await store.connectors.insert(CONNECTOR)
    rotated = replace(CONNECTOR, key_hash="hash-2", name=None)
    assert await store.connectors.replace(rotated)
    assert await store.connectors.find("key:hash-1") is None
    assert await store.connectors.find("key:hash-2") == rotated
    assert await store.connectors.list() == [rotated]
    await store.connectors.insert(connector(9, key="hash-1"))


async def test_a_replacement_may_keep_its_names_and_have_one_twice(store: Store) -> None:
    await store.rules.insert(replace(RULE, numbers=("+1", "+1")))
    assert await store.rules.replace(replace(RULE, numbers=("+1", "+2", "+1")))
    found = await store.rules.find("inbound:+2")
    assert found is not None
    assert found.numbers == ("+1", "+2", "+1")


async def test_a_replacement_that_wants_anothers_name_changes_nothing(store: Store) -> None:
    other = replace(RULE, id="rule_2", numbers=("+1",))
    await store.rules.insert(RULE)
    await store.rules.insert(other)
    with pytest.raises(NameTaken) as caught:
        await store.rules.replace(replace(RULE, numbers=("+9", "+1"), name="changed"))
    assert caught.value.name == "inbound:+1"
    assert await store.rules.get("rule_1") == RULE
    assert await store.rules.find("inbound:+4930100") == RULE
    assert await store.rules.find("inbound:+1") == other
    assert await store.rules.find("inbound:+9") is None


async def test_a_replacement_of_what_was_read_undoes_nobody_elses(store: Store) -> None:
    await store.rules.insert(RULE)
    first, second = replace(RULE, name="first"), replace(RULE, tags=("second",))
    assert await store.rules.replace(first, RULE)
    assert not await store.rules.replace(second, RULE)
    assert await store.rules.get("rule_1") == first
    assert await store.rules.replace(replace(first, tags=("second",)), first)
    assert not await store.rules.replace(replace(first, id="rule_2"), first)
    assert await store.rules.list() == [replace(first, tags=("second",))]


async def test_changes_at_once_are_all_made_when_those_that_were_too_late_read_again(
    make: Callable[[], Store], store: Store
) -> None:
    other = make()
    await other.open()
    await store.rules.insert(replace(RULE, tags=()))

    async def add(where: Store, tag: str) -> None:
        while True:
            read = await where.rules.get("rule_1")
            assert read is not None
            if await where.rules.replace(replace(read, tags=(*read.tags, tag)), read):
                return

    await asyncio.gather(
        *(add(each, f"{number} {who}") for number in range(8) for who, each in enumerate((store, other)))
    )
    final = await other.rules.get("rule_1")
    assert final is not None
    assert sorted(final.tags) == sorted(f"{number} {who}" for number in range(8) for who in range(2))
    await other.close()


async def test_a_replacement_with_a_taken_name_is_refused_also_where_it_was_expected(store: Store) -> None:
    await store.rules.insert(RULE)
    await store.rules.insert(replace(RULE, id="rule_2", numbers=("+1",)))
    with pytest.raises(NameTaken):
        await store.rules.replace(replace(RULE, numbers=("+1",)), RULE)
    assert await store.rules.get("rule_1") == RULE


@EACH
async def test_what_is_taken_is_gone_and_comes_back_as_it_was_last(
    store: Store, collection: str, document: Any
) -> None:
    kept = collection_of(store, collection)
    assert await kept.take(document.id) is None
    await kept.insert(document)
    assert await kept.take(document.id) == document
    assert await kept.take(document.id) is None
    assert await kept.list() == []
    for name in names_of(document):
        assert await kept.find(name) is None


async def test_a_take_has_what_was_written_before_it(store: Store) -> None:
    for _ in range(20):
        await store.waiting.insert(WAITING)
        longer = replace(WAITING, expires_at=2000.0)
        taken, replaced = await asyncio.gather(store.waiting.take("call_1"), store.waiting.replace(longer))
        assert taken == (longer if replaced else WAITING)
        assert await store.waiting.get("call_1") is None


async def test_of_those_who_take_at_once_one_gets_it(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    for number in range(20):
        await store.waiting.insert(waiting(number))
    taken = await asyncio.gather(
        *(each.waiting.take(f"call_{number}") for number in range(20) for each in (store, other, store))
    )
    assert sorted(call.id for call in taken if call) == sorted(f"call_{number}" for number in range(20))
    await other.close()


async def test_a_deleted_documents_names_are_free(store: Store) -> None:
    await store.connectors.insert(CONNECTOR)
    assert await store.connectors.delete("cn_1")
    assert await store.connectors.find("key:hash-1") is None
    await store.connectors.insert(connector(2, key="hash-1"))


async def test_a_key_that_retires_lets_another_into_use(store: Store) -> None:
    await store.keys.insert(KEY)
    with pytest.raises(NameTaken, match="in use"):
        await store.keys.insert(replace(KEY, id="key_2"))
    assert await store.keys.replace(replace(KEY, retired_at=9.0))
    assert await store.keys.find("in use") is None
    await store.keys.insert(replace(KEY, id="key_2"))
    assert [key.id for key in await store.keys.list()] == ["key_1", "key_2"]


async def test_documents_are_listed_newest_first_and_those_of_one_moment_by_id(store: Store) -> None:
    for number, created_at in ((2, 5.0), (3, 7.25), (1, 5.0), (4, 1763734740.123456), (5, 1763734740.123457)):
        await store.connectors.insert(connector(number, created_at=created_at))
    assert [entry.id for entry in await store.connectors.list()] == ["cn_5", "cn_4", "cn_3", "cn_1", "cn_2"]
    assert await store.connectors.replace(connector(2, created_at=8.0))
    assert [entry.id for entry in await store.connectors.list()] == ["cn_5", "cn_4", "cn_2", "cn_3", "cn_1"]


async def test_of_those_who_delete_at_once_one_is_told_so(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    for number in range(20):
        await store.waiting.insert(waiting(number))
    told = await asyncio.gather(
        *(each.waiting.delete(f"call_{number}") for number in range(20) for each in (store, other, store))
    )
    assert sum(told) == 20
    assert all(sum(told[start : start + 3]) == 1 for start in range(0, 60, 3))
    await other.close()


async def test_of_those_who_insert_a_name_at_once_one_has_it(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    outcomes = await asyncio.gather(
        *((store if number % 2 else other).connectors.insert(connector(number, key="same")) for number in range(20)),
        return_exceptions=True,
    )
    assert sum(outcome is None for outcome in outcomes) == 1
    assert sum(isinstance(outcome, NameTaken) for outcome in outcomes) == 19
    (left,) = await store.connectors.list()
    assert outcomes[int(left.id.removeprefix("cn_"))] is None
    assert await other.connectors.find("key:same") == left
    await other.close()


async def test_text_that_cannot_be_encoded_is_refused_and_leaves_nothing(store: Store) -> None:
    with pytest.raises(StoreError):
        await store.rules.insert(replace(RULE, name="half of a pair: \ud800"))
    assert await store.rules.list() == []
    await store.rules.insert(RULE)


async def test_a_claim_and_an_extension_at_once_leave_nothing(store: Store) -> None:
    """A fetch extends the wait with `replace`: a call that was claimed meanwhile must not come back by it."""
    for _ in range(20):
        await store.waiting.insert(WAITING)
        claimed, _ = await asyncio.gather(
            store.waiting.delete("call_1"), store.waiting.replace(replace(WAITING, expires_at=2000.0))
        )
        assert claimed
        assert await store.waiting.get("call_1") is None


async def test_a_cancelled_step_leaves_the_store_usable(store: Store) -> None:
    for number in range(30):
        step = asyncio.create_task(store.waiting.insert(waiting(number)))
        for _ in range(number % 5):
            await asyncio.sleep(0)
        step.cancel()
        await asyncio.wait([step])
    before = {call.id for call in await store.waiting.list()}
    await store.waiting.insert(waiting(100))
    assert {call.id for call in await store.waiting.list()} >= before | {"call_100"}


async def test_a_closed_store_says_so(store: Store) -> None:
    await store.close()
    for use in (
        store.rules.insert(RULE),
        store.rules.replace(RULE),
        store.rules.replace(RULE, RULE),
        store.rules.delete("rule_1"),
        store.rules.take("rule_1"),
        store.rules.get("rule_1"),
        store.rules.find("x"),
        store.rules.list(),
    ):
        with pytest.raises(StoreError, match="not open"):
            await use


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)


@given(
    name=TEXT,
    numbers=st.lists(TEXT, max_size=4, unique=True),
    headers=st.dictionaries(TEXT, TEXT, max_size=3),
    at=st.floats(0, 1e11),
)
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_text_and_time_is_kept(
    store: Store, name: str, numbers: list[str], headers: dict[str, str], at: float
) -> None:
    document = replace(RULE, name=name, numbers=tuple(numbers), headers=headers, created_at=at, updated_at=at)
    await store.rules.delete(RULE.id)
    await store.rules.insert(document)
    assert await store.rules.get(RULE.id) == document
    for number in numbers:
        assert await store.rules.find(f"inbound:{number}") == document


class Model(RuleBasedStateMachine):
    """A dictionary that does the same, step by step."""

    loop: asyncio.AbstractEventLoop
    make: Callable[[], Store]

    @initialize()
    def begin(self) -> None:
        self.kept: dict[str, RoutingRule] = {}
        self.store = self.make()
        self.loop.run_until_complete(self.store.open())
        for rule_ in self.loop.run_until_complete(self.store.rules.list()):
            self.loop.run_until_complete(self.store.rules.delete(rule_.id))

    def teardown(self) -> None:
        if hasattr(self, "store"):
            self.loop.run_until_complete(self.store.close())

    def taken(self, document: RoutingRule) -> str | None:
        theirs = {name for other in self.kept.values() if other.id != document.id for name in names_of(other)}
        return next((name for name in names_of(document) if name in theirs), None)

    def outcome(self, step: Coroutine[Any, Any, bool | None]) -> bool | str | None:
        """What it returned, or the name that was taken."""
        try:
            return self.loop.run_until_complete(step)
        except NameTaken as error:
            return error.name

    @rule(number=st.integers(0, 3), numbers=st.lists(st.sampled_from("abcd"), max_size=3), at=st.integers(0, 2))
    def insert(self, number: int, numbers: list[str], at: int) -> None:
        document = replace(RULE, id=f"r{number}", numbers=tuple(numbers), created_at=float(at))
        expected = document.id if document.id in self.kept else self.taken(document)
        assert self.outcome(self.store.rules.insert(document)) == expected
        if expected is None:
            self.kept[document.id] = document

    @rule(number=st.integers(0, 3), numbers=st.lists(st.sampled_from("abcd"), max_size=3), at=st.integers(0, 2))
    def put_in_place(self, number: int, numbers: list[str], at: int) -> None:
        document = replace(RULE, id=f"r{number}", numbers=tuple(numbers), created_at=float(at))
        is_there = document.id in self.kept
        expected = self.taken(document) if is_there else None
        assert self.outcome(self.store.rules.replace(document)) == (expected or is_there)
        if is_there and expected is None:
            self.kept[document.id] = document

    @rule(number=st.integers(0, 3))
    def delete(self, number: int) -> None:
        deleted = self.loop.run_until_complete(self.store.rules.delete(f"r{number}"))
        assert deleted is (self.kept.pop(f"r{number}", None) is not None)

    @invariant()
    def agrees(self) -> None:
        if not hasattr(self, "store"):
            return
        wanted = sorted(self.kept.values(), key=lambda document: (-document.created_at, document.id))
        assert self.loop.run_until_complete(self.store.rules.list()) == wanted
        for letter in "abcd":
            owner = [document for document in wanted if letter in document.numbers]
            found = self.loop.run_until_complete(self.store.rules.find(f"inbound:{letter}"))
            assert found == (owner[0] if owner else None)


def test_any_sequence_of_steps_does_what_a_dictionary_does(make: Callable[[], Store]) -> None:
    with asyncio.Runner() as runner:
        machine = type("Machine", (Model,), {"loop": runner.get_loop(), "make": staticmethod(make)})
        run_state_machine_as_test(machine, settings=settings(max_examples=25, stateful_step_count=20))
