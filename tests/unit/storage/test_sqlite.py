"""SQLite's own: the file, its schema, and what an operator reads when it cannot be used."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from connector.model import CallRecord, CallState, Direction, Provider
from connector.storage.base import StoreError
from connector.storage.sqlite import SqliteStore
from connector.storage.sqlite_schema import SCHEMA_VERSION

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
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)


async def test_a_file_of_a_newer_connector_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "calls.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE calls (from_the_future TEXT)")
        db.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
        db.commit()
    told = await problem(path)
    assert f"has schema {SCHEMA_VERSION + 1}" in told
    assert "use a newer connector" in told
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION + 1,)
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
