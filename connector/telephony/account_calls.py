"""A carrier's REST API for several accounts: each request uses the credentials of the call's account.

During rotation an account has two tokens: the new one is tried first, then the old one if the carrier refuses the new.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Generic, Protocol, TypeVar

import structlog

from connector.accounts import CarrierAccounts
from connector.carriers.transfers import TransferDial
from connector.errors import CredentialsRefused
from connector.model.call import CarrierCall

log = structlog.get_logger()


class AccountClient(Protocol):
    """REST client for the calls of one account, with one of its secrets."""

    @property
    def ends_with_stream(self) -> bool: ...
    @property
    def stream_outlives_transfer(self) -> bool: ...
    async def start(self) -> None: ...
    async def close(self) -> None: ...
    async def hang_up(self, call: CarrierCall, say: str = "") -> None: ...
    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool: ...
    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None: ...
    async def is_live(self, call: CarrierCall) -> bool: ...


ClientT = TypeVar("ClientT", bound=AccountClient)
T = TypeVar("T")


class AccountCalls(Generic[ClientT]):
    """See `connector.call.ports.CarrierControl`. At least one of the accounts must have credentials."""

    def __init__(self, accounts: CarrierAccounts, make: Callable[[str, str], ClientT]) -> None:
        """`make` creates a client from an account id and one of the account's secrets."""
        self._accounts = accounts
        self._clients = {
            account.id: [make(account.id, secret) for secret in dict.fromkeys(account.rest)]
            for account in accounts.with_api
        }
        first = self._clients[accounts.with_api[0].id][0]
        self.ends_with_stream = first.ends_with_stream
        self.stream_outlives_transfer = first.stream_outlives_transfer

    @property
    def default_account(self) -> str:
        """The id of the account that places calls; empty if its credentials do not name it."""
        return self._accounts.with_api[0].id

    @property
    def account_ids(self) -> list[str]:
        """The ids of all accounts with credentials, the default first."""
        return list(self._clients)

    async def start(self) -> None:
        for client in self._every():
            await client.start()

    async def close(self) -> None:
        for client in self._every():
            await client.close()

    def _every(self) -> list[ClientT]:
        return [client for clients in self._clients.values() for client in clients]

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        await self.take(call.account_id, lambda client: client.hang_up(call, say))

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        return await self.take(call.account_id, lambda client: client.transfer(call, dial, document_url))

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        await self.take(call.account_id, lambda client: client.bring_back(call, document_url, stream_url))

    async def is_live(self, call: CarrierCall) -> bool:
        return await self.take(call.account_id, lambda client: client.is_live(call))

    async def take(self, account_id: str, step: Callable[[ClientT], Awaitable[T]]) -> T:
        """Runs `step` with the credentials of this account; an empty id means the default account. Raises the errors of
        `step`, and FailedPrecondition for an account without credentials."""
        account = self._accounts.calling(account_id)
        clients = self._clients[account.id]
        for client in clients[:-1]:
            try:
                return await step(client)
            except CredentialsRefused as error:
                title = self._accounts.rules.title
                log.warning(
                    "the newer credential was refused; trying the older one", carrier=title, error=error.message
                )
        return await step(clients[-1])
