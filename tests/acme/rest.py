"""ACME's REST API: `/calls/<id>`."""

from __future__ import annotations

from urllib.parse import quote

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.carriers.transfers import TransferDial
from connector.config import Settings
from connector.errors import FailedPrecondition, NotFound
from connector.model.call import CarrierCall
from connector.telephony.account_calls import AccountCalls
from connector.telephony.http import CarrierApi
from connector.telephony.inventory import Account, Number, list_of, started, text_of
from tests.acme.carrier import Acme, AcmeSettings


class AcmeCalls:
    """Calls of one account. Every method raises ConnectorError for what fails."""

    ends_with_stream = False
    """The phone hears silence when the stream is gone, until somebody hangs up."""
    stream_outlives_transfer = False

    def __init__(self, api: CarrierApi) -> None:
        self._api = api
        self.start, self.close = api.start, api.close

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        """End a call in whatever state it is; one that has ended is no error."""
        if say and await self._take_leave(call, say):
            return
        try:
            await self._api.send("DELETE", _path(call))
        except NotFound:
            return

    async def _take_leave(self, call: CarrierCall, say: str) -> bool:
        try:
            await self._api.send("PUT", _path(call), {"document": Acme().farewell(say)})
        except (NotFound, FailedPrecondition):
            return False
        return True

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        raise NotImplementedError

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        await self._api.send("PUT", _path(call), {"document": Acme().transfer_document(dial)})
        return True

    async def is_live(self, call: CarrierCall) -> bool:
        try:
            await self._api.send("GET", _path(call))
        except NotFound:
            return False
        return True


def _path(call: CarrierCall) -> str:
    return f"/calls/{quote(call.id, safe='')}"


def _api(settings: Settings, secret: str) -> CarrierApi:
    assert isinstance(settings, AcmeSettings)
    return CarrierApi(Acme.title, settings.acme_api_url, f"Bearer {secret}", Acme.rest_settings)


def control(settings: Settings, accounts: CarrierAccounts) -> AccountCalls[AcmeCalls]:
    """See `connector.carrier_table.RestModule`."""
    return AccountCalls(accounts, lambda _, secret: AcmeCalls(_api(settings, secret)))


async def look_at(settings: Settings, account: CarrierAccount) -> Account:
    """See `connector.carrier_table.RestModule`."""
    async with started(_api(settings, account.rest[0])) as api:
        found = (await api.send("GET", "/account")).body
    numbers = [Number(text_of(each, "number"), text_of(each, "url")) for each in list_of(found, "numbers")]
    return Account(text_of(found, "name"), numbers)
