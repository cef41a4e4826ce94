"""No secret can be read in the store's file, whoever wrote it and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from connector.model.rule import RoomType, RoutingRule, RuleRoom, RuleType
from connector.model.webhook import SigningKey, WebhookEndpoint
from connector.seal import MARK, is_sealed
from connector.storage.sqlite import SqliteStore
from connector.storage.vault import Vault

PIN, PEM = "8675309867530999", "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG\n-----END PRIVATE KEY-----"
RULE = RoutingRule(
    "rule_1", "Rule", RuleType.INBOUND, 1.0, 1.0, room=RuleRoom(RoomType.DYNAMIC, pin=PIN), numbers=("+15550001111",)
)
KEY = SigningKey("key_1", PEM, 1.0)


class Stores:
    """One file, and stores on it with these secrets."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def write(self, *secrets: str) -> None:
        store = await self.open(*secrets)
        await store.rules.insert(RULE)
        await store.keys.insert(KEY)
        await store.close()

    async def open(self, *secrets: str) -> SqliteStore:
        store = SqliteStore(self.path, Vault(secrets))
        await store.open()
        return store

    async def read(self, *secrets: str) -> tuple[Sequence[RoutingRule], Sequence[SigningKey]]:
        store = await self.open(*secrets)
        try:
            return await store.rules.list(), await store.keys.list()
        finally:
            await store.close()

    async def reseal(self, *secrets: str) -> int:
        store = await self.open(*secrets)
        try:
            return await store.reseal()
        finally:
            await store.close()

    def found(self) -> set[str]:
        """The secrets that stand in the file, or in one beside it."""
        files = b"".join(path.read_bytes() for path in self.path.parent.iterdir())
        return {secret for secret in (PIN, "MIIEvQIBADANBgkqhkiG") if secret.encode() in files}


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(tmp_path / "calls.db")


async def test_a_secret_comes_back_and_is_not_in_the_file(stores: Stores) -> None:
    await stores.write("new")
    assert await stores.read("new") == ([RULE], [KEY])
    assert stores.found() == set()


async def test_while_it_is_open_too(stores: Stores) -> None:
    store = await stores.open("new")
    await store.rules.insert(RULE)
    assert await store.rules.replace(replace(RULE, name="New"), RULE)
    assert stores.found() == set()
    await store.close()


async def test_what_is_plain_is_read_and_sealed_at_the_next_write(stores: Stores) -> None:
    await stores.write()
    assert stores.found() == {PIN, "MIIEvQIBADANBgkqhkiG"}
    assert await stores.read("new") == ([RULE], [KEY])
    store = await stores.open("new")
    assert await store.rules.replace(replace(RULE, name="New"), RULE)
    await store.close()
    assert stores.found() == {"MIIEvQIBADANBgkqhkiG"}


async def test_and_at_the_next_start_leaves_no_trace(stores: Stores) -> None:
    await stores.write()
    store = await stores.open("new")
    assert await store.reseal() == 2
    # Not in the log of writes either, while the store is open.
    assert stores.found() == set()
    assert await store.rules.find("inbound:+15550001111") == RULE
    assert await store.reseal() == 0
    await store.close()
    assert await stores.read("new") == ([RULE], [KEY])


async def test_a_secret_is_rotated_with_its_predecessor(stores: Stores) -> None:
    await stores.write("old")
    assert await stores.read("new", "old") == ([RULE], [KEY])
    assert await stores.reseal("new", "old") == 2
    assert await stores.reseal("new", "old") == 0
    assert await stores.read("new") == ([RULE], [KEY])


async def test_what_nobody_can_open_stays_sealed_and_is_not_lost(stores: Stores) -> None:
    await stores.write("old")
    (rule,), (key,) = await stores.read("new")
    assert rule.room is not None
    assert is_sealed(rule.room.pin)
    assert is_sealed(key.private_pem)
    store = await stores.open("new")
    assert await store.rules.replace(replace(rule, name="New"), rule)
    assert await store.reseal() == 0
    await store.close()
    (rule,), (key,) = await stores.read("old")
    assert (rule.name, rule.room, key) == ("New", RULE.room, KEY)


def test_documents_without_a_secret_are_left_alone() -> None:
    vault, endpoint = Vault("secret"), WebhookEndpoint("wh_1", "https://example.com", (), 1.0, 1.0)
    without = replace(RULE, room=None)
    assert (vault.sealed(endpoint), vault.sealed(without)) == (endpoint, without)
    assert vault.is_current(without)
    sealed = vault.sealed(RULE)
    assert sealed.room is not None
    assert sealed.room.pin.startswith(MARK)
    assert vault.sealed(sealed) == sealed
