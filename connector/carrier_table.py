"""The table of carriers, one line each. All other code gets the carriers from here; see docs/adding-a-carrier.md."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, cast

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.carriers.carrier import Carrier, Carriers
from connector.carriers.plivo import Plivo
from connector.carriers.telnyx import Telnyx
from connector.carriers.twilio import Twilio
from connector.config import Settings
from connector.model.provider import Provider
from connector.telephony.account_calls import AccountCalls
from connector.telephony.inventory import Account


class RestModule(Protocol):
    """The interface of a carrier's REST API module."""

    def control(self, settings: Settings, accounts: CarrierAccounts) -> AccountCalls[Any]:
        """Creates the REST client for these accounts; at least one must have credentials."""
        ...

    async def look_at(self, settings: Settings, account: CarrierAccount) -> Account:
        """Reads the account over the REST API. Raises ConnectorError: Internal if the credentials are refused."""
        ...


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the table."""

    carrier: type[Carrier]
    rest: str
    """Name of a `RestModule`, imported on demand: a carrier's SDK may take long to import."""

    @property
    def rest_module(self) -> RestModule:
        return cast(RestModule, import_module(self.rest))


TABLE: Sequence[Entry] = (
    Entry(Twilio, "connector.telephony.twilio"),
    Entry(Telnyx, "connector.telephony.telnyx"),
    Entry(Plivo, "connector.telephony.plivo"),
)


def carriers_of(settings: Settings, table: Sequence[Entry] = TABLE) -> Carriers:
    """Creates all carriers from the settings."""
    return {entry.carrier.provider: entry.carrier.of(settings) for entry in table}


def controls_of(settings: Settings, table: Sequence[Entry] = TABLE) -> dict[Provider, AccountCalls[Any]]:
    """Creates the REST clients of the carriers with credentials in the settings."""
    carriers = carriers_of(settings, table)
    accounts = {entry.carrier.provider: carriers[entry.carrier.provider].accounts(settings) for entry in table}
    return {
        entry.carrier.provider: entry.rest_module.control(settings, accounts[entry.carrier.provider])
        for entry in table
        if accounts[entry.carrier.provider].with_api
    }


def carrier_secrets(settings: Settings, table: Sequence[Entry] = TABLE) -> tuple[str, ...]:
    """Returns the carriers' secrets that must not appear in logs."""
    accounts = [
        account for carrier in carriers_of(settings, table).values() for account in carrier.accounts(settings).all
    ]
    return tuple(secret for account in accounts for secret in account.rest)
