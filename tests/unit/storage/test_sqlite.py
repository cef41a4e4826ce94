"""SQLite's own: the file, its schema, and what an operator reads when it cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from connector.model.call import CallFilter, CallRecord, CallState, Direction
from connector.model.connector import ConnectorEntry
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.rule import RoutingRule, RuleType
from connector.model.webhook import Delivery, LifecycleEvent
from connector.storage.base import DocumentFilter, StoreError
from connector.storage.json_form import Form
from connector.storage.rows import to_row
from connector.storage.sqlite import SqliteStore, _conditions
from connector.storage.sqlite_file import SqliteFile
from connector.storage.sqlite_schema import MIGRATIONS

NEWEST = max(MIGRATIONS)

RECORD = CallRecord(
    "call_1", Provider.TWILIO, Direction.INBOUND, "room", "caller", CallState.PENDING, "here", created_at=1.0
)


async def problem(path: Path) -> str:
    store = SqliteStore(path)
    with pytest.raises(StoreError) as caught:
        await store.open()
    await store.close()
    return caught.value.message


async def test_folders_are_made_and_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "calls.db"
    store = SqliteStore(path)
    await store.open()
    await store.save_call(RECORD)
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file.name
    await store.close()


async def test_the_rights_an_operator_gave_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    path.touch()
    path.chmod(0o640)
    store = SqliteStore(path)
    await store.open()
    await store.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


async def test_the_file_says_which_schema_it_has(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "calls.db")
    await store.open()
    await store.close()
    with closing(sqlite3.connect(tmp_path / "calls.db")) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (NEWEST,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_file_of_a_newer_connector_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE calls (from_the_future TEXT)")
        db.execute(f"PRAGMA user_version = {NEWEST + 1}")
        db.commit()
    told = await problem(path)
    assert f"has schema {NEWEST + 1}" in told
    assert "use a newer connector" in told
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (NEWEST + 1,)
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("calls",)]


async def test_a_path_through_a_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert str(tmp_path / "file" / "calls.db") in await problem(tmp_path / "file" / "calls.db")


async def test_a_folder_in_place_of_the_file_is_named(tmp_path: Path) -> None:
    assert str(tmp_path) in await problem(tmp_path)


async def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    path.write_text("these are my notes, not a database\n" * 100)
    told = await problem(path)
    assert str(path) in told
    assert "not a database" in told
    assert path.read_text().startswith("these are my notes")


async def test_a_record_that_a_newer_connector_wrote_is_a_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    store = SqliteStore(path)
    await store.open()
    await store.save_call(RECORD)
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE calls SET end_reason = 'taken_by_aliens'")
        db.commit()
    with pytest.raises(StoreError, match="taken_by_aliens"):
        await store.list_calls()
    await store.close()


async def test_a_writer_that_holds_the_file_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    store = SqliteStore(path)
    await store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        saving = asyncio.create_task(store.save_call(RECORD))
        done, _ = await asyncio.wait([saving], timeout=0.2)
        assert not done
        other.execute("COMMIT")
    await saving
    assert await store.get_call("call_1") == RECORD
    await store.close()


FIRST_SCHEMA = """
CREATE TABLE calls (
    call_id TEXT PRIMARY KEY, provider TEXT NOT NULL, direction TEXT NOT NULL, room TEXT NOT NULL,
    identity TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL, created_at REAL NOT NULL,
    carrier_call_id TEXT NOT NULL, from_number TEXT NOT NULL, to_number TEXT NOT NULL,
    started_at REAL NOT NULL, ended_at REAL NOT NULL, end_reason TEXT, end_detail TEXT NOT NULL,
    carrier_status TEXT NOT NULL);
CREATE INDEX calls_created ON calls (created_at);
CREATE INDEX calls_open ON calls (owner) WHERE end_reason IS NULL;
PRAGMA user_version = 1;
INSERT INTO calls VALUES ('call_1', 'twilio', 'inbound', 'room', 'caller', 'ended', 'here', 1.5, 'CA1', '+1', '+2',
    2.5, 3.5, 'shutdown', 'detail', 'completed');
INSERT INTO calls VALUES ('call_2', 'twilio', 'outbound', 'room', 'caller', 'ringing', 'here', 2.0, '', '', '',
    0.0, 0.0, NULL, '', '');
"""
"""A file of the first release, as it was. Not taken from the code: it must stay readable whatever that says."""


async def test_a_file_of_the_first_release_keeps_its_calls(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    with closing(sqlite3.connect(path)) as db:
        db.executescript(FIRST_SCHEMA)
    store = SqliteStore(path)
    await store.open()
    ringing, ended = await store.list_calls()
    assert ended == replace(
        RECORD,
        state=CallState.ENDED,
        created_at=1.5,
        carrier_call_id="CA1",
        from_number="+1",
        to_number="+2",
        started_at=2.5,
        ended_at=3.5,
        end_reason=EndReason.SHUTDOWN,
        end_detail="detail",
        carrier_status="completed",
    )
    known_now = replace(ringing, rule_id="rule_1", timelog=(("call-started", 2.0),))
    await store.save_call(known_now)
    assert await store.get_call("call_2") == known_now
    assert await store.list_calls(where=CallFilter(owner="here", state=CallState.RINGING)) == [known_now]
    await store.connectors.insert(ConnectorEntry("cn_1", Provider.TWILIO, "hash", "nonce", 1.0))
    await store.close()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (NEWEST,)


async def test_a_step_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    first = ("CREATE TABLE one (a TEXT)", "INSERT INTO one VALUES ('kept')")
    file = SqliteFile(path, {1: first})
    await file.open()
    await file.close()
    broken = SqliteFile(path, {1: first, 2: ("CREATE TABLE two (a TEXT)", "DELETE FROM one", "this is no SQL")})
    with pytest.raises(StoreError, match="syntax error"):
        await broken.open()
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (1,)
        assert db.execute("SELECT name FROM sqlite_master").fetchall() == [("one",)]
        assert db.execute("SELECT a FROM one").fetchall() == [("kept",)]


async def test_a_full_disk_is_an_error_and_what_was_there_stays(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "calls.db")
    await store.open()
    await store.save_call(RECORD)
    await store._file.write(lambda db: db.execute("PRAGMA max_page_count = 1").fetchall())
    large = [Delivery(f"d{n}", "wh", "call", LifecycleEvent.UPDATE, "x" * 9000, 1.0, 1.0) for n in range(50)]
    with pytest.raises(StoreError, match="full"):
        await store.deliveries.put(large)
    assert await store.deliveries.pending() == 0
    assert await store.get_call("call_1") == RECORD
    await store.close()


async def test_the_event_loop_goes_on_while_the_file_is_busy(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    store = SqliteStore(path)
    await store.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        saving = asyncio.create_task(store.save_call(RECORD))
        for _ in range(50):
            await asyncio.sleep(0.001)
        assert not saving.done()
        other.execute("COMMIT")
    await saving
    await store.close()


async def test_a_read_does_not_wait_for_a_write_and_sees_the_own_ones(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    store = SqliteStore(path)
    await store.open()
    await store.save_call(RECORD)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        saving = asyncio.create_task(store.save_call(replace(RECORD, room="second")))
        assert await store.get_call("call_1") == RECORD
        assert (await store.page_calls(0, 5)).items == [RECORD]
        assert not saving.done()
        other.execute("COMMIT")
    await saving
    for number in range(50):
        changed = replace(RECORD, room=str(number))
        await store.save_call(changed)
        assert await store.get_call("call_1") == changed
    await store.close()


async def test_lists_of_a_file_of_an_earlier_version_are_whole(tmp_path: Path) -> None:
    """Records and rules of the second schema, and some that a process of that version writes after the upgrade."""
    path = tmp_path / "calls.db"
    earlier = SqliteFile(path, {version: MIGRATIONS[version] for version in (1, 2)})
    await earlier.open()
    rule = RoutingRule("rule_1", "Grüße", RuleType.INBOUND, 1.0, 1.0, ("+4930100",))
    known = await earlier.write(lambda db: {column[1] for column in db.execute("PRAGMA table_info(calls)")})

    async def write(number: int) -> None:
        row = to_row(replace(RECORD, call_id=f"call_{number}", room=f"SÜD {number}", created_at=float(number)))
        columns = [name for name in row if name in known]
        calls = f"INSERT INTO calls ({', '.join(columns)}) VALUES ({', '.join(f':{name}' for name in columns)})"
        documents = "INSERT INTO documents (collection, id, created_at, body) VALUES ('rules', ?, 1.0, ?)"
        body = Form(RoutingRule).write(replace(rule, id=f"rule_{number}"))
        await earlier.write(lambda db: db.execute(calls, {name: row[name] for name in columns}))
        await earlier.write(lambda db: db.execute(documents, (f"rule_{number}", body)))

    await write(1)
    await write(2)
    store = SqliteStore(path)
    await store.open()
    inbound = DocumentFilter(labels=(("type:inbound",),), texts=("grü",))
    assert [call.call_id for call in (await store.page_calls(0, 5, CallFilter(search="süd"))).items] == [
        "call_2",
        "call_1",
    ]
    assert (await store.page_calls(0, 5, CallFilter(room="SÜD 1"))).total == 1
    assert (await store.rules.page(0, 5, inbound)).total == 2
    await write(3)
    await earlier.close()
    assert (await store.page_calls(0, 5, CallFilter(search="süd 3"))).total == 1
    assert len(await store.list_calls(5, CallFilter(text="süd"))) == 3
    assert (await store.rules.page(0, 5, inbound)).total == 3
    await store.close()


async def test_the_lists_of_calls_are_counted_without_reading_a_record(tmp_path: Path) -> None:
    """By an index that has all that is asked: twenty thousand records are counted in a few milliseconds."""
    store = SqliteStore(tmp_path / "calls.db")
    await store.open()
    filters = (
        CallFilter(),
        CallFilter(room="r"),
        CallFilter(rule_id="r"),
        CallFilter(connector_id="c"),
        CallFilter(direction=Direction.INBOUND),
        CallFilter(provider=Provider.TWILIO, search="x"),
        CallFilter(search="x", created_from=1.0, created_before=2.0),
    )
    for where in filters:
        conditions, values = _conditions(where)
        query = f"EXPLAIN QUERY PLAN SELECT count(*) FROM calls WHERE {conditions}"
        plan = await store._file.read(partial(_explained, query, values))
        assert len(plan) == 1
        assert "COVERING INDEX" in plan[0], (where, plan)
    await store.close()


def _explained(query: str, values: list[Any], db: sqlite3.Connection) -> list[str]:
    return [row[3] for row in db.execute(query, values)]
