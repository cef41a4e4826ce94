"""What every store must do with calls; `address` in conftest.py lists them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connector.model.call import CallFilter, CallRecord, CallState, Direction
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.storage import redis_calls, sqlite
from connector.storage.base import Page, Store, StoreError
from connector.storage.rows import admits, from_row

RINGING = CallRecord(
    call_id="call_1",
    provider=Provider.TWILIO,
    direction=Direction.OUTBOUND,
    room="support",
    identity="caller",
    state=CallState.RINGING,
    owner="here",
    created_at=1000.5,
)
ACTIVE = replace(
    RINGING,
    state=CallState.ACTIVE,
    carrier_call_id="CA1",
    from_number="+15557654321",
    to_number="+15551234567",
    started_at=1010.25,
)
ENDED = replace(
    ACTIVE,
    state=CallState.ENDED,
    ended_at=1070.75,
    end_reason=EndReason.CARRIER_HANGUP,
    end_detail="they hung up",
    carrier_status="completed",
    rule_id="rule_1",
    connector_id="cn_1",
    region="eu",
    timelog=(("call-started", 1000.5), ("call-hangup", 1070.75)),
    end_id="end_1",
    account_id="AC1",
    transfer_to="+15550000009",
    transfer_status="busy",
    delivery="d1",
)


def call(number: int, **changes: Any) -> CallRecord:
    return replace(ENDED, call_id=f"call_{number}", created_at=1000.0 + number, **changes)


async def ids(store: Store, limit: int = 50, **where: Any) -> list[str]:
    return [record.call_id for record in await store.list_calls(limit, CallFilter(**where))]


@pytest.mark.parametrize("record", [RINGING, ACTIVE, ENDED], ids=lambda record: record.state)
async def test_a_record_comes_back_as_it_was(store: Store, record: CallRecord) -> None:
    await store.save_call(record)
    assert await store.get_call("call_1") == record
    assert await store.list_calls() == [record]


async def test_every_field_is_kept(store: Store) -> None:
    defaults = {field.name: field.default for field in fields(CallRecord)}
    assert [name for name, default in defaults.items() if getattr(ENDED, name) == default] == []
    await store.save_call(ENDED)
    assert await store.get_call("call_1") == ENDED


async def test_every_end_reason_is_kept(store: Store) -> None:
    for reason in EndReason:
        await store.save_call(replace(ENDED, call_id=f"call_{reason}", end_reason=reason))
        record = await store.get_call(f"call_{reason}")
        assert record is not None
        assert record.end_reason is reason


@pytest.mark.parametrize(
    "text", ["", "a'b\"c; DROP TABLE calls", "Grüße 📞", "line\nbreak", "zero\0byte", "x" * 10_000]
)
async def test_any_text_is_kept(store: Store, text: str) -> None:
    record = replace(ENDED, room=text, identity=text, end_detail=text, from_number=text)
    await store.save_call(record)
    assert await store.get_call("call_1") == record


async def test_a_call_that_is_not_there_is_none(store: Store) -> None:
    assert await store.get_call("call_1") is None
    assert await store.list_calls() == []


async def test_a_later_save_replaces_the_record_whole(store: Store) -> None:
    for record in (RINGING, ACTIVE, ENDED):
        await store.save_call(record)
        assert await store.list_calls() == [record]


@pytest.mark.parametrize("late", [RINGING, ACTIVE], ids=lambda record: record.state)
async def test_what_has_ended_stays_ended(store: Store, late: CallRecord) -> None:
    await store.save_call(ENDED)
    await store.save_call(late)
    assert await store.get_call("call_1") == ENDED


async def test_an_ended_record_may_learn_more(store: Store) -> None:
    await store.save_call(replace(ENDED, carrier_status=""))
    await store.save_call(ENDED)
    assert await store.get_call("call_1") == ENDED


async def test_saves_at_once_leave_the_end(store: Store) -> None:
    await asyncio.gather(*(store.save_call(record) for record in (ACTIVE, ENDED, RINGING, ACTIVE)))
    assert await store.get_call("call_1") == ENDED


@pytest.mark.parametrize("before", [None, RINGING, ACTIVE], ids=["unknown", "ringing", "active"])
async def test_a_call_ends_once_and_the_first_end_stands(store: Store, before: CallRecord | None) -> None:
    if before is not None:
        await store.save_call(before)
    assert await store.end_call(ENDED)
    other = replace(ENDED, end_reason=EndReason.ENDED_BY_API, end_id="end_2")
    assert not await store.end_call(other)
    assert await store.get_call("call_1") == ENDED
    assert await store.list_calls(where=CallFilter(state=CallState.ACTIVE)) == []
    assert await store.forget_before(1e9) == 1


async def test_an_end_of_what_was_read_is_not_that_of_what_was_written_since(store: Store) -> None:
    assert not await store.end_call(ENDED, RINGING)
    await store.save_call(ACTIVE)
    assert not await store.end_call(ENDED, RINGING)
    assert await store.get_call("call_1") == ACTIVE
    assert await store.end_call(ENDED, ACTIVE)
    assert await store.end_call(ENDED, ACTIVE)
    assert not await store.end_call(replace(ENDED, end_id="end_2"), ENDED)


async def test_an_end_whose_answer_was_lost_may_be_tried_again(store: Store) -> None:
    assert await store.end_call(ENDED)
    assert await store.end_call(ENDED)
    assert not await store.end_call(replace(ENDED, end_id="end_2"))


async def test_an_end_of_an_earlier_version_has_no_name_and_stands(store: Store) -> None:
    await store.save_call(replace(ENDED, end_id=""))
    assert not await store.end_call(replace(ENDED, end_id=""))
    assert not await store.end_call(ENDED)


async def test_of_those_who_end_a_call_at_once_one_is_told_so(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    for number in range(10):
        await store.save_call(call(number, state=CallState.ACTIVE, end_reason=None, end_id=""))
    told = await asyncio.gather(
        *(
            each.end_call(call(number, end_id=f"{number} {who}"))
            for number in range(10)
            for who, each in enumerate((store, other, store))
        )
    )
    assert [sum(told[start : start + 3]) for start in range(0, 30, 3)] == [1] * 10
    for number in range(10):
        ended = await other.get_call(f"call_{number}")
        assert ended is not None
        assert told[3 * number + int(ended.end_id.split()[1])]
    await other.close()


async def test_a_change_is_made_only_to_what_was_read(store: Store) -> None:
    assert await store.change_call(None, RINGING)
    assert not await store.change_call(None, ACTIVE)
    assert not await store.change_call(ACTIVE, ENDED)
    assert await store.get_call("call_1") == RINGING
    assert await store.change_call(RINGING, ACTIVE)
    assert not await store.change_call(RINGING, replace(RINGING, room="other"))
    assert await store.change_call(ACTIVE, ENDED)
    assert await store.change_call(ENDED, replace(ENDED, carrier_status="failed"))
    assert not await store.change_call(ACTIVE, ACTIVE)
    assert await store.get_call("call_1") == replace(ENDED, carrier_status="failed")
    assert not await store.change_call(replace(RINGING, call_id="nobody"), replace(RINGING, call_id="nobody"))
    assert await store.get_call("nobody") is None


async def test_calls_are_listed_newest_first(store: Store) -> None:
    for number in (2, 5, 1, 4, 3):
        await store.save_call(call(number))
    assert await ids(store) == ["call_5", "call_4", "call_3", "call_2", "call_1"]
    assert await ids(store, limit=2) == ["call_5", "call_4"]


async def test_pages_hold_every_call_once_also_those_of_one_moment(store: Store) -> None:
    records = [
        call(
            number,
        )
        for number in range(5)
    ]
    records += [replace(ENDED, call_id=f"same_{letter}", created_at=1002.0) for letter in "cab"]
    for record in records:
        await store.save_call(record)
    whole = await ids(store)
    assert len(whole) == len(set(whole)) == 8
    paged: list[str] = []
    after: tuple[float, str] | None = None
    while page := await store.list_calls(3, CallFilter(after=after)):
        paged += [record.call_id for record in page]
        after = (page[-1].created_at, page[-1].call_id)
    assert paged == whole


async def test_filters_narrow_the_list(store: Store) -> None:
    await store.save_call(call(1, room="sales"))
    await store.save_call(call(2, state=CallState.ACTIVE, end_reason=None, ended_at=0.0))
    await store.save_call(call(3, provider=Provider.TELNYX))
    assert await ids(store, room="sales") == ["call_1"]
    assert await ids(store, room="none") == []
    assert await ids(store, state=CallState.ACTIVE) == ["call_2"]
    assert await ids(store, provider=Provider.TELNYX) == ["call_3"]
    assert await ids(store, created_from=1002.0) == ["call_3", "call_2"]
    assert await ids(store, created_before=1002.0) == ["call_1"]
    assert await ids(store, created_from=1002.0, created_before=1003.0, room="support") == ["call_2"]


async def test_a_list_can_be_of_one_rule_connector_direction_or_part_of_a_text(store: Store) -> None:
    await store.save_call(call(1, rule_id="r", from_number="+4930100", room="Süd"))
    await store.save_call(call(2, connector_id="c", to_number="+4930100", room="100%"))
    await store.save_call(call(3, direction=Direction.INBOUND, from_number="", to_number="", room="a_b"))
    assert await ids(store, rule_id="r") == ["call_1"]
    assert await ids(store, connector_id="c") == ["call_2"]
    assert await ids(store, direction=Direction.INBOUND) == ["call_3"]
    assert await ids(store, text="30100") == ["call_2", "call_1"]
    assert await ids(store, text="CALL_3") == ["call_3"]
    assert await ids(store, text="SÜD") == ["call_1"]
    assert await ids(store, text="100%") == ["call_2"]
    assert await ids(store, text="_b") == ["call_3"]
    assert await ids(store, text="nobody") == []


async def test_a_long_list_is_whole_also_when_much_is_of_one_moment(store: Store) -> None:
    """Longer than what a store may read at a time, with more of one moment than that."""
    records = [
        replace(ENDED, call_id=f"call_{number:04}", created_at=1000.0 + number // 1100) for number in range(1200)
    ]
    for record in records:
        await store.save_call(record)
    wanted = [record.call_id for record in sorted(records, key=lambda record: (-record.created_at, record.call_id))]
    assert await ids(store, limit=2000) == wanted
    assert await ids(store, limit=700) == wanted[:700]
    assert await ids(store, limit=900, after=(1000.0, "call_0049")) == wanted[150:1050]
    assert await ids(store, text="_1099") == ["call_1099"]
    assert await store.forget_before(1001.0) == 1100
    assert await ids(store, limit=2000) == wanted[:100]


FEW = st.sampled_from(["", "a", "b", "ab"])
RECORDS = st.builds(
    replace,
    st.sampled_from([ACTIVE, ENDED]),
    call_id=st.sampled_from("abcdefgh"),
    room=FEW,
    rule_id=FEW,
    connector_id=FEW,
    from_number=FEW,
    to_number=FEW,
    owner=FEW,
    provider=st.sampled_from(Provider),
    direction=st.sampled_from(Direction),
    created_at=st.integers(0, 5).map(float),
)
FILTERS = st.builds(
    CallFilter,
    room=FEW,
    state=st.none() | st.sampled_from(CallState),
    provider=st.none() | st.sampled_from(Provider),
    direction=st.none() | st.sampled_from(Direction),
    rule_id=FEW,
    connector_id=FEW,
    owner=FEW,
    text=st.sampled_from(["", "a", "A", "B"]),
    search=st.sampled_from(["", "", "a", "AB"]),
    id=st.sampled_from(["", "", "", "a", "z"]),
    created_from=st.integers(0, 3).map(float),
    created_before=st.none() | st.integers(2, 6).map(float),
    after=st.none() | st.tuples(st.integers(0, 5).map(float), st.sampled_from("abcdefgh")),
)


@given(records=st.lists(RECORDS, max_size=12), where=st.lists(FILTERS, min_size=1, max_size=5), limit=st.integers(1, 9))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_any_list_is_what_going_through_all_records_gives(
    store: Store, records: list[CallRecord], where: list[CallFilter], limit: int
) -> None:
    for left in await store.list_calls():
        await store.save_call(replace(left, end_reason=EndReason.SHUTDOWN))
    await store.forget_before(1e9)
    kept: dict[str, CallRecord] = {}
    for record in records:
        before = kept.get(record.call_id)
        if before is None or before.end_reason is None or record.end_reason is not None:
            kept[record.call_id] = record
        await store.save_call(record)
    for each in where:
        found = [record for record in kept.values() if admits(each, record)]
        found.sort(key=lambda record: (-record.created_at, record.call_id))
        assert await store.list_calls(limit, each) == found[:limit]
        unplaced = replace(each, after=None)
        found = [record for record in kept.values() if admits(unplaced, record)]
        found.sort(key=lambda record: (-record.created_at, record.call_id))
        for offset in (0, 1, limit, len(found), 50):
            assert await store.page_calls(offset, limit, unplaced) == Page(found[offset : offset + limit], len(found))


async def save_all(store: Store, records: Sequence[CallRecord]) -> None:
    """Some at once: a store that is asked for all of them at once refuses the last ones, on a busy machine."""
    for start in range(0, len(records), 50):
        await asyncio.gather(*(store.save_call(record) for record in records[start : start + 50]))


async def test_a_page_is_counted_and_cut_by_the_store(store: Store) -> None:
    """More than a store looks through at a time, with more of one moment than that."""
    records = [
        replace(
            call(number, room=f"room-{number % 3}", from_number=f"+1555{number:07}"),
            created_at=1000.0 + number // 700,
        )
        for number in range(1500)
    ]
    await save_all(store, records)
    records.sort(key=lambda record: (-record.created_at, record.call_id))
    for where in (
        CallFilter(),
        CallFilter(room="room-1"),
        CallFilter(room="room-1", rule_id="rule_1"),
        CallFilter(search="5550000"),
        CallFilter(room="room-1", search="5550000"),
        CallFilter(created_from=1001.0, created_before=1002.0, search="00"),
        CallFilter(state=CallState.ENDED),
        CallFilter(room="none"),
        CallFilter(search="none"),
        CallFilter(id="call_777"),
    ):
        found = [record for record in records if admits(where, record)]
        for offset in (0, 7, 650, 1490, 3000):
            assert await store.page_calls(offset, 20, where) == Page(found[offset : offset + 20], len(found)), where


async def test_a_record_that_changed_is_on_the_lists_of_its_new_values_alone(store: Store) -> None:
    await store.save_call(replace(ACTIVE, room="first"))
    await store.save_call(replace(ACTIVE, room="second", rule_id="r"))
    assert (await store.page_calls(0, 5, CallFilter(room="first"))).total == 0
    assert (await store.page_calls(0, 5, CallFilter(search="first"))).total == 0
    for where in (CallFilter(room="second"), CallFilter(rule_id="r"), CallFilter(search="SECOND")):
        assert (await store.page_calls(0, 5, where)).total == 1
    await store.end_call(replace(ENDED, room="third"))
    assert (await store.page_calls(0, 5, CallFilter(room="second"))).total == 0
    assert (await store.page_calls(0, 5, CallFilter(room="third"))).total == 1
    await store.forget_before(1e9)
    for where in (CallFilter(), CallFilter(room="third"), CallFilter(search="third")):
        assert await store.page_calls(0, 5, where) == Page([], 0)


async def test_only_what_is_on_the_page_is_read(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many records there are: decoding them is what stalls audio."""
    await save_all(store, [call(number, room="room") for number in range(600)])
    decoded = 0

    def counting(row: Any) -> CallRecord:
        nonlocal decoded
        decoded += 1
        return from_row(row)

    for module in (sqlite, redis_calls):
        monkeypatch.setattr(module, "from_row", counting)
    for where in (
        CallFilter(),
        CallFilter(room="room"),
        CallFilter(search="room"),
        CallFilter(direction=Direction.OUTBOUND),
    ):
        decoded = 0
        page = await store.page_calls(100, 20, where)
        assert (len(page.items), page.total, decoded) == (20, 600, 20)


async def test_an_owners_open_calls_are_found_among_everybodys(store: Store) -> None:
    await store.save_call(replace(RINGING, call_id="ringing"))
    await store.save_call(replace(ACTIVE, call_id="active"))
    await store.save_call(replace(ACTIVE, call_id="ended"))
    await store.save_call(replace(ENDED, call_id="ended"))
    for number in range(5):
        await store.save_call(replace(ACTIVE, call_id=f"theirs_{number}", owner="there", created_at=2000.0))
    assert await ids(store, 1, owner="here", state=CallState.ACTIVE) == ["active"]
    assert await ids(store, 1, owner="here", state=CallState.RINGING) == ["ringing"]
    assert len(await ids(store, owner="there", state=CallState.ACTIVE)) == 5


async def test_a_call_that_changed_hands_is_its_new_owners(store: Store) -> None:
    await store.save_call(ACTIVE)
    await store.save_call(replace(ACTIVE, owner="there"))
    assert await ids(store, owner="here") == []
    assert await store.get_call("call_1") == replace(ACTIVE, owner="there")
    assert await ids(store, owner="there") == ["call_1"]


async def test_only_ended_calls_from_before_are_forgotten(store: Store) -> None:
    await store.save_call(call(1))
    await store.save_call(call(2))
    await store.save_call(call(3))
    await store.save_call(replace(ACTIVE, call_id="live", created_at=1.0))
    assert await store.forget_before(1003.0) == 2
    assert await ids(store) == ["call_3", "live"]
    assert await store.forget_before(1003.0) == 0


async def test_records_outlive_the_process(make: Callable[[], Store], store: Store) -> None:
    await store.save_call(ENDED)
    await store.close()
    again = make()
    await again.open()
    assert await again.get_call("call_1") == ENDED
    await again.close()


async def test_two_processes_share_it(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    await asyncio.gather(
        *(store.save_call(call(number)) for number in range(0, 20, 2)),
        *(other.save_call(call(number)) for number in range(1, 20, 2)),
    )
    assert await ids(store) == await ids(other) == [f"call_{number}" for number in reversed(range(20))]
    await other.close()


async def test_it_may_be_opened_by_several_at_once(make: Callable[[], Store]) -> None:
    stores = [make() for _ in range(4)]
    await asyncio.gather(*(store.open() for store in stores))
    await stores[0].save_call(ENDED)
    assert [await store.get_call("call_1") for store in stores] == [ENDED] * 4
    for store in stores:
        await store.close()


async def test_a_lease_stands_as_it_was_renewed_last(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    assert await store.leases() == {}
    await store.renew_lease("here", 1763734740.123456)
    await other.renew_lease("there", 5.0)
    await store.renew_lease("here", 1763734741.123457)
    assert await store.leases() == await other.leases() == {"here": 1763734741.123457, "there": 5.0}
    assert not await other.drop_lease("here", 1763734740.123456)
    assert await other.drop_lease("here", 1763734741.123457)
    assert await store.drop_lease("there")
    assert not await store.drop_lease("there")
    assert await store.leases() == {}
    await other.close()


async def test_a_lease_has_the_address_of_its_last_renewal(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    assert await store.address_of("here") == ""
    await store.renew_lease("here", 1.0, "http://127.0.0.1:4001")
    await other.renew_lease("there", 1.0, "http://[::1]:4002")
    assert await other.address_of("here") == "http://127.0.0.1:4001"
    await store.renew_lease("here", 2.0, "http://127.0.0.1:4003")
    assert await other.address_of("here") == "http://127.0.0.1:4003"
    # A process starts again with this name: nobody may ask the address of its predecessor.
    await store.renew_lease("here", 3.0)
    assert await other.address_of("here") == ""
    assert await store.drop_lease("there")
    assert await store.address_of("there") == ""
    await store.renew_lease("there", 4.0)
    assert await store.address_of("there") == ""
    await other.close()


async def test_a_lease_says_whether_its_process_is_about_to_stop(make: Callable[[], Store], store: Store) -> None:
    other = make()
    await other.open()
    assert await store.draining() == set()
    await store.renew_lease("here", 1.0)
    await other.renew_lease("there", 1.0, "http://127.0.0.1:4002", draining=True)
    assert await store.draining() == await other.draining() == {"there"}
    await store.renew_lease("here", 2.0, draining=True)
    assert await other.draining() == {"here", "there"}
    # A process starts again with this name.
    await other.renew_lease("there", 3.0)
    assert await store.drop_lease("here")
    assert await store.draining() == set()
    await store.renew_lease("here", 4.0)
    assert await store.draining() == set()
    await other.close()


async def test_closing_twice_is_fine_and_using_it_then_is_a_clear_error(store: Store) -> None:
    await store.close()
    await store.close()
    for use in (
        store.save_call(ENDED),
        store.change_call(None, ENDED),
        store.end_call(ENDED),
        store.get_call("call_1"),
        store.list_calls(),
        store.page_calls(0, 1),
        store.renew_lease("here", 1.0),
        store.leases(),
        store.draining(),
        store.address_of("here"),
        store.drop_lease("here"),
        store.forget_before(1.0),
    ):
        with pytest.raises(StoreError, match="not open"):
            await use
