"""Whose credentials a REST step is taken with."""

from __future__ import annotations

from typing import Any

import pytest

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.carriers.transfers import TransferDial
from connector.errors import ConnectorError, CredentialsRefused, FailedPrecondition, Unavailable
from connector.model.call import CarrierCall
from connector.model.provider import Provider
from connector.telephony.account_calls import AccountCalls
from tests.carriers import CARRIERS


class Client:
    ends_with_stream = True
    stream_outlives_transfer = False

    def __init__(self, world: World, account: str, secret: str) -> None:
        self._world, self._account, self._secret = world, account, secret

    async def start(self) -> None:
        self._world.open += 1

    async def close(self) -> None:
        self._world.open -= 1

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        self._world.asked.append((self._account, self._secret, call.id))
        if error := self._world.errors.get(self._secret):
            raise error

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        raise NotImplementedError

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        await self.hang_up(call)
        return True

    async def is_live(self, call: CarrierCall) -> bool:
        await self.hang_up(call)
        return True


class World:
    def __init__(self, provider: Provider = Provider.PLIVO) -> None:
        self.open = 0
        self.asked: list[tuple[str, str, str]] = []
        self.errors: dict[str, ConnectorError] = {}
        accounts = [CarrierAccount("A", (), ("a",)), CarrierAccount("B", (), ("new", "old")), CarrierAccount("C")]
        self.calls: AccountCalls[Any] = AccountCalls(
            CarrierAccounts(CARRIERS[provider].account_rules, accounts),
            lambda account, secret: Client(self, account, secret),
        )


async def test_each_call_with_the_credentials_of_its_account() -> None:
    world = World()
    await world.calls.start()
    assert world.open == 3
    for account in ("", "A", "B"):
        await world.calls.hang_up(CarrierCall("c", account))
    assert [account for account, _, _ in world.asked] == ["A", "A", "B"]
    with pytest.raises(FailedPrecondition, match="account Z"):
        await world.calls.transfer(CarrierCall("c", "Z"), TransferDial("+15551234567", 30), "")
    await world.calls.close()
    assert world.open == 0


async def test_the_old_token_is_tried_when_the_new_one_is_refused_and_at_nothing_else() -> None:
    world = World()
    world.errors["new"] = CredentialsRefused("401")
    await world.calls.transfer(CarrierCall("c", "B"), TransferDial("+15551234567", 30), "")
    assert [secret for _, secret, _ in world.asked] == ["new", "old"]
    world.errors["old"] = CredentialsRefused("401")
    with pytest.raises(CredentialsRefused):
        await world.calls.hang_up(CarrierCall("c", "B"))
    world.errors["new"] = Unavailable("503")
    world.asked.clear()
    with pytest.raises(Unavailable):
        await world.calls.hang_up(CarrierCall("c", "B"))
    assert [secret for _, secret, _ in world.asked] == ["new"]


async def test_twilio_s_main_account_acts_for_a_subaccount_without_a_token() -> None:
    world = World(Provider.TWILIO)
    await world.calls.hang_up(CarrierCall("c", "C"))
    assert world.asked == [("A", "a", "c")]
