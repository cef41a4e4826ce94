"""Passwords in the store: sealed, opened with the same API secret alone, never logged."""

from __future__ import annotations

import pytest

from connector.errors import FailedPrecondition, Internal
from connector.logs import scrub
from connector.model.connector import SipNumber
from connector.sip.secrets import SipCredentials, SipSecrets

SECRET = "the-api-secret-of-this-test-000001"
ONE = SipCredentials("+15550001111", "ST_1", "connector", "first-password-of-one")
TWO = SipCredentials("+15550002222", "ST_2", "connector", "password-of-two")


class Numbers:
    """What the store does for them."""

    def __init__(self) -> None:
        self.kept: dict[str, SipNumber] = {}

    async def insert(self, document: SipNumber) -> None:
        assert document.id not in self.kept
        self.kept[document.id] = document

    async def replace(self, document: SipNumber, expected: SipNumber | None = None) -> bool:
        if expected is not None and self.kept.get(document.id) != expected:
            return False
        if document.id not in self.kept:
            return False
        self.kept[document.id] = document
        return True

    async def delete(self, document_id: str) -> bool:
        return self.kept.pop(document_id, None) is not None

    async def get(self, document_id: str) -> SipNumber | None:
        return self.kept.get(document_id)

    async def list(self) -> list[SipNumber]:
        return list(self.kept.values())


async def test_what_was_remembered_is_there_until_it_is_forgotten() -> None:
    secrets = SipSecrets(Numbers(), SECRET)
    await secrets.remember(ONE)
    assert await secrets.of(ONE.number) == ONE
    changed = SipCredentials(ONE.number, ONE.trunk_id, "someone", "second-password")
    await secrets.remember(changed)
    assert await secrets.of(ONE.number) == changed
    assert await secrets.forget(ONE.number)
    assert not await secrets.forget(ONE.number)
    with pytest.raises(FailedPrecondition, match="connector sip setup"):
        await secrets.of(ONE.number)


async def test_numbers_of_one_trunk_have_its_credentials() -> None:
    secrets = SipSecrets(Numbers(), SECRET)
    sibling = SipCredentials("+15550003333", ONE.trunk_id, ONE.username, ONE.password)
    for each in (ONE, TWO, sibling):
        await secrets.remember(each)
    await secrets.remember_trunk(SipCredentials(ONE.number, ONE.trunk_id, "someone", "second-password"))
    assert (await secrets.of(sibling.number)).password == "second-password"
    assert await secrets.of(TWO.number) == TWO


async def test_the_store_does_not_hold_the_password() -> None:
    numbers = Numbers()
    await SipSecrets(numbers, SECRET).remember(ONE)
    assert ONE.password not in repr(numbers.kept)
    assert await SipSecrets(numbers, SECRET).of(ONE.number) == ONE
    with pytest.raises(Internal, match="another secret"):
        await SipSecrets(numbers, "another-api-secret-altogether-0001").of(ONE.number)


async def test_the_only_number_need_not_be_named() -> None:
    secrets = SipSecrets(Numbers(), SECRET)
    with pytest.raises(FailedPrecondition, match="no number"):
        await secrets.only()
    await secrets.remember(ONE)
    assert await secrets.only() == ONE
    await secrets.remember(TWO)
    with pytest.raises(FailedPrecondition, match="2 numbers"):
        await secrets.only()


async def test_an_opened_password_is_scrubbed_from_every_log_line() -> None:
    secrets = SipSecrets(Numbers(), SECRET)
    fresh = SipCredentials("+15550004444", "ST_4", "connector", "nobody-opened-this-yet")
    await secrets.remember(fresh)
    assert fresh.password in scrub(f"said {fresh.password}")
    await secrets.of(fresh.number)
    assert fresh.password not in scrub(f"said {fresh.password}")
    assert fresh.password not in repr(await secrets.of(fresh.number))


async def test_passwords_outlive_the_secret_that_sealed_them() -> None:
    numbers = Numbers()
    await SipSecrets(numbers, "old").remember(ONE)
    assert await SipSecrets(numbers, "new").reseal() == 0  # Nobody can open it: it stays as it is.
    both = SipSecrets(numbers, ("new", "old"))
    assert await both.of(ONE.number) == ONE
    assert (await both.reseal(), await both.reseal()) == (1, 0)
    assert await SipSecrets(numbers, "new").of(ONE.number) == ONE
