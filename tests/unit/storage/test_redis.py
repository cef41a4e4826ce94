"""Redis' own: how it is reached, what an operator reads when it cannot be, and what stands in it."""

from __future__ import annotations

import asyncio
import re
import ssl
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import trustme
from redis.asyncio import Redis

from connector.logs import scrub
from connector.model.call import CallFilter, CallRecord, CallState, Direction
from connector.model.connector import ConnectorEntry
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.model.rule import RoutingRule, RuleType
from connector.model.webhook import Attempt, Delivery, LifecycleEvent
from connector.storage.base import DEFAULT_PREFIX as PREFIX
from connector.storage.base import DocumentFilter, Page, StoreError
from connector.storage.json_form import Form
from connector.storage.redis import MIGRATIONS, RedisStore
from connector.storage.redis_server import RedisServer as Connection
from connector.storage.rows import to_row
from demo.ports import PortLease
from demo.redis_server import RedisServer

STORAGE_PAGE = Path(__file__).resolve().parents[3] / "docs" / "storage.md"
PASSWORD = "p@ss/w:rd#1%"
QUOTED = "p%40ss%2Fw%3Ard%231%25"
SOON = 20.0
"""Seconds in which anything must have failed or come back; the store's own patience is far below."""

RECORD = CallRecord(
    "call_1", Provider.TWILIO, Direction.INBOUND, "room", "caller", CallState.ACTIVE, "here", created_at=1.0
)
ENTRY = ConnectorEntry("cn_1", Provider.TWILIO, "hash", "nonce", 1.0)
DELIVERY = Delivery("d1", "wh_1", "call_1", LifecycleEvent.STARTED, "{}", 1.0, 1.0)


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[RedisServer]:
    async with RedisServer(folder=tmp_path) as server:
        yield server


@pytest.fixture
async def store(server: RedisServer) -> AsyncIterator[RedisStore]:
    store = RedisStore(server.url)
    await store.open()
    yield store
    await store.close()


async def problem(url: str) -> str:
    store = RedisStore(url)
    async with asyncio.timeout(SOON):
        with pytest.raises(StoreError) as caught:
            await store.open()
    await store.close()
    return caught.value.message


async def test_a_server_that_is_not_there_is_named_soon_and_without_the_password() -> None:
    lease = PortLease()
    told = await problem(f"redis://me:{QUOTED}@127.0.0.1:{lease.port}/2")
    lease.close()
    assert f"redis://127.0.0.1:{lease.port}/2 cannot be reached" in told
    assert PASSWORD not in told
    assert QUOTED not in told


async def test_a_server_that_says_nothing_is_given_up_soon() -> None:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    silent = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    async with silent:
        port = silent.sockets[0].getsockname()[1]
        assert "cannot be reached" in await problem(f"redis://127.0.0.1:{port}")


async def test_a_password_opens_it_and_a_wrong_one_is_said_to_be_wrong() -> None:
    async with RedisServer(password=PASSWORD) as locked:
        address = locked.address
        store = RedisStore(f"redis://:{QUOTED}@{address}/0")
        await store.open()
        await store.save_call(RECORD)
        assert await store.get_call("call_1") == RECORD
        await store.close()
        for url in (f"redis://{address}", f"redis://:wrong-secret@{address}", f"redis://me:wrong-secret@{address}"):
            told = await problem(url)
            assert "refused this user" in told
            assert "wrong-secret" not in told
    assert PASSWORD not in scrub(f"it was {PASSWORD}")


async def test_databases_of_one_server_are_apart(server: RedisServer, store: RedisStore) -> None:
    other = RedisStore(f"redis://{server.address}/1")
    await other.open()
    await store.save_call(RECORD)
    assert await other.list_calls() == []
    await other.close()


async def test_tls_is_spoken_and_the_certificate_checked(
    server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        inner_reader, inner_writer = await asyncio.open_connection("127.0.0.1", server.port)
        await asyncio.gather(_pump(reader, inner_writer), _pump(inner_reader, writer))

    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context))
        port = proxy.sockets[0].getsockname()[1]
        assert "certificate" in await problem(f"rediss://localhost:{port}")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert "certificate" in await problem(f"rediss://127.0.0.1:{port}")
        store = RedisStore(f"rediss://localhost:{port}/0")
        await store.open()
        await store.save_call(RECORD)
        assert await store.get_call("call_1") == RECORD
        await store.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()


async def test_after_a_restart_it_goes_on_by_itself_and_has_everything(server: RedisServer, store: RedisStore) -> None:
    await asyncio.gather(*(store.save_call(replace(RECORD, call_id=f"call_{number}")) for number in range(20)))
    await store.connectors.insert(ENTRY)
    await store.deliveries.put([DELIVERY])
    await server.restart()
    # Every connection of the pool is a dead one now.
    records = await asyncio.gather(*(store.get_call(f"call_{number}") for number in range(20)))
    assert [record.call_id for record in records if record] == [f"call_{number}" for number in range(20)]
    assert await store.connectors.delete("cn_1")
    assert await store.deliveries.take(1.0, 2.0, 5) == [DELIVERY]


async def test_a_short_absence_is_waited_for_and_a_step_is_done_once(server: RedisServer, store: RedisStore) -> None:
    await store.connectors.insert(ENTRY)
    await server.kill()
    claims = [asyncio.create_task(store.connectors.delete("cn_1")) for _ in range(3)]
    done, _ = await asyncio.wait(claims, timeout=0.1)
    assert not done
    await server.start()
    assert sorted(await asyncio.gather(*claims)) == [False, False, True]


async def test_a_long_absence_is_an_error_and_it_comes_back_after_it(server: RedisServer, store: RedisStore) -> None:
    await store.save_call(RECORD)
    await server.kill()
    async with asyncio.timeout(SOON):
        with pytest.raises(StoreError, match="cannot be reached"):
            await store.get_call("call_1")
    await server.start()
    assert await store.get_call("call_1") == RECORD


async def test_a_newer_schema_is_refused_and_left_alone(server: RedisServer) -> None:
    async with Redis.from_url(server.url, decode_responses=True) as client:
        await client.set(f"{PREFIX}schema", max(MIGRATIONS) + 1)
        told = await problem(server.url)
        assert f"has schema {max(MIGRATIONS) + 1}" in told
        assert "use a newer connector" in told
        assert {key: await client.get(key) async for key in client.scan_iter()} == {
            f"{PREFIX}schema": str(max(MIGRATIONS) + 1)
        }


async def test_steps_to_a_newer_schema_are_taken_in_order_and_once(server: RedisServer) -> None:
    steps = {number: f"redis.call('RPUSH', 'steps', '{number}')" for number in (1, 2, 3)}
    for known in ({1: steps[1]}, {1: steps[1], 2: steps[2]}, steps, steps):
        connections = [Connection(server.url, known) for _ in range(3)]
        await asyncio.gather(*(connection.open() for connection in connections))
        for connection in connections:
            await connection.close()
    async with Redis.from_url(server.url, decode_responses=True) as client:
        assert await client.lrange("steps", 0, -1) == ["1", "2", "3"]
        assert await client.get(f"{PREFIX}schema") == "3"


async def test_every_key_has_our_prefix_and_nothing_is_left_when_all_is_gone(
    server: RedisServer, store: RedisStore
) -> None:
    await store.save_call(RECORD)
    await store.connectors.insert(ENTRY)
    await store.deliveries.put([DELIVERY, replace(DELIVERY, id="d2", endpoint_id="wh_2")])
    await store.deliveries.settle(Attempt("d1", "wh_1", "call_1", LifecycleEvent.STARTED, 1, 1.0, 0.1, 200), None)
    async with Redis.from_url(server.url, decode_responses=True) as client:
        assert [key async for key in client.scan_iter() if not key.startswith(PREFIX)] == []
        await store.save_call(replace(RECORD, state=CallState.ENDED, end_reason=EndReason.SHUTDOWN))
        await store.forget_before(2.0)
        await store.connectors.delete("cn_1")
        await store.deliveries.drop_endpoint("wh_2")
        await store.deliveries.forget_before(2.0)
        assert sorted([key async for key in client.scan_iter()]) == [f"{PREFIX}attempts:last", f"{PREFIX}schema"]


async def test_a_record_that_a_newer_connector_wrote_is_a_clear_error(server: RedisServer, store: RedisStore) -> None:
    await store.save_call(RECORD)
    async with Redis.from_url(server.url) as client:
        await client.hset(f"{PREFIX}call:call_1", "provider", "smoke signals")
    with pytest.raises(StoreError, match="smoke signals"):
        await store.list_calls()


async def test_the_rights_that_the_documentation_names_are_enough(server: RedisServer) -> None:
    (rights,) = re.findall(r"`(\+@read [^`]+)`", STORAGE_PAGE.read_text())
    async with Redis.from_url(server.url) as client:
        await cast("Any", client).execute_command(
            "ACL", "SETUSER", "me", "on", ">secret-word", "~connector:*", *rights.split()
        )
    store = RedisStore(f"redis://me:secret-word@{server.address}/0")
    await store.open()
    await store.save_call(RECORD)
    assert await store.list_calls() == [RECORD]
    await store.connectors.insert(ENTRY)
    assert await store.connectors.replace(replace(ENTRY, key_hash="other"))
    assert await store.connectors.find("key:other") is not None
    assert await store.connectors.delete("cn_1")
    await store.deliveries.put([DELIVERY])
    assert await store.deliveries.take(1.0, 2.0, 5) == [DELIVERY]
    await store.deliveries.settle(Attempt("d1", "wh_1", "call_1", LifecycleEvent.STARTED, 1, 1.0, 0.1, 200), None)
    assert await store.deliveries.forget_before(2.0) == 1
    await store.save_call(replace(RECORD, state=CallState.ENDED, end_reason=EndReason.SHUTDOWN))
    assert await store.forget_before(2.0) == 1
    with pytest.raises(StoreError, match=r"can't run this command|ACL failure"):
        await store.weaknesses()
    await store.close()


async def test_a_server_that_could_lose_something_is_told_of() -> None:
    async with RedisServer() as forgetful:
        store = RedisStore(forgetful.url)
        await store.open()
        async with Redis.from_url(forgetful.url) as client:
            assert [mend for _, mend in await store.weaknesses()] == ["set appendonly yes"]
            await client.config_set("appendonly", "yes")
            assert await store.weaknesses() == []
            await client.config_set("maxmemory-policy", "allkeys-lru")
            # Without a limit it never throws anything away.
            assert await store.weaknesses() == []
            await client.config_set("maxmemory", "100mb")
            ((_, mend),) = await store.weaknesses()
            assert mend == "set maxmemory-policy noeviction, not allkeys-lru"
        await store.close()


async def test_a_replica_and_a_full_server_are_clear_errors(server: RedisServer, store: RedisStore) -> None:
    async with Redis.from_url(server.url) as client:
        await client.config_set("maxmemory", "1")
        with pytest.raises(StoreError, match="OOM"):
            await store.save_call(RECORD)
        await client.config_set("maxmemory", "0")
        await cast("Any", client).execute_command("REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreError, match="READONLY"):
            await store.save_call(RECORD)


async def test_lists_of_what_an_earlier_version_wrote_are_whole(server: RedisServer, store: RedisStore) -> None:
    """A call was a hash, with what is searched in it, and in two sorted sets; a rule was its body and its names."""
    rule = RoutingRule("rule_1", "Grüße", RuleType.INBOUND, 1.0, 1.0)
    async with Redis.from_url(server.url, decode_responses=True) as client:
        for number in range(700):
            record = replace(RECORD, call_id=f"call_{number}", room=f"SÜD {number}", created_at=float(number))
            row: dict[Any, Any] = {name: "" if value is None else value for name, value in to_row(record).items()}
            del row["end_id"], row["account_id"]
            row["searched"] = "\0".join((record.call_id, record.room, "", "")).lower()
            await client.hset(f"{PREFIX}call:{record.call_id}", mapping=row)
            await client.zadd(f"{PREFIX}calls", {record.call_id: -record.created_at})
            await client.zadd(f"{PREFIX}calls:open", {record.call_id: -record.created_at})
        await client.hset(f"{PREFIX}rules", "rule_1", Form(RoutingRule).write(rule))
        await client.zadd(f"{PREFIX}rules:by_age", {"rule_1": -1.0})
    for where, expected in (
        (CallFilter(search="süd 69"), 11),
        (CallFilter(search="call_69"), 0),
        (CallFilter(text="call_69"), 11),
        (CallFilter(room="SÜD 5"), 1),
        (CallFilter(direction=Direction.INBOUND), 700),
        (CallFilter(), 700),
    ):
        assert (await store.page_calls(0, 1, where)).total == expected, where
    assert await store.rules.page(0, 5, DocumentFilter((("type:inbound",),), ("grü",))) == Page([rule], 1)
