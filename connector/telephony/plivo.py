"""Plivo's REST API.

https://www.plivo.com/docs/voice/api/call/hang-up-a-specific-call and
https://www.plivo.com/docs/voice/api/call/transfer-a-call
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import aiohttp

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.carriers.carrier import LONGEST_FAREWELL
from connector.carriers.plivo import Plivo
from connector.carriers.transfers import TransferDial
from connector.config import Settings
from connector.errors import CarrierCallOver, ConnectorError, FailedPrecondition, NotFound
from connector.model.call import CarrierCall
from connector.telephony.account_calls import AccountCalls
from connector.telephony.apis import sentence_url
from connector.telephony.http import CarrierApi
from connector.telephony.inventory import MOST, Account, Number, list_of, started, text_of

API = "https://api.plivo.com"


class PlivoCalls:
    """The calls of one account. Every method raises ConnectorError on failure."""

    ends_with_stream = False
    """Plivo's pages contradict each other on whether a call with `keepCallAlive` outlasts its stream. A second hang-up
    does no harm."""
    stream_outlives_transfer = False

    def __init__(self, auth_id: str, auth_token: str, say_url: Callable[[str], str], api_url: str = API) -> None:
        """Plivo accepts only the URL of a document. `say_url` returns the URL of a document that reads a sentence aloud
        and hangs up."""
        self._path = f"/v1/Account/{quote(auth_id, safe='')}/Call"
        self._say_url = say_url
        authorization = aiohttp.encode_basic_auth(auth_id, auth_token)
        self._api = CarrierApi(Plivo.title, api_url, authorization, Plivo.rest_settings)
        self.start, self.close = self._api.start, self._api.close

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        """Ends a call in any state; a call that has already ended is no error. If the phone was answered, `say` is
        read aloud before the hang-up, in place of the stream."""
        if say and await self._take_leave(call, say):
            return
        try:
            await self._api.send("DELETE", self._path_of(call))
        except NotFound:
            return

    async def _take_leave(self, call: CarrierCall, say: str) -> bool:
        """Returns whether Plivo will fetch the sentence."""
        try:
            await self._turn_to(call, self._say_url(say[:LONGEST_FAREWELL]))
        except (NotFound, FailedPrecondition):
            return False
        return True

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        """Connects the phone with a number instead of the stream. Plivo accepts only a document's URL, not its text."""
        await self._turn_to(call, document_url)
        return True

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        """Makes the phone's leg follow the document that answers a return. Raises CarrierCallOver if the call has
        ended. Plivo answers 404 to that, as for the call of another account; but it still shows a call that has ended.

        https://www.plivo.com/docs/voice/api/call/retrieve-a-call-detail-record
        """
        try:
            await self._turn_to(call, document_url)
        except NotFound as error:
            try:
                await self._api.send("GET", self._path_of(call))
            except ConnectorError:
                raise error from None
            raise CarrierCallOver(error.message) from error

    async def _turn_to(self, call: CarrierCall, url: str) -> None:
        """Makes the phone's leg follow another document."""
        await self._api.send("POST", self._path_of(call), {"legs": "aleg", "aleg_url": url, "aleg_method": "POST"})

    async def is_live(self, call: CarrierCall) -> bool:
        """Whether the call has not ended."""
        try:
            await self._api.send("GET", f"{self._path_of(call)}?status=live")
        except NotFound:
            return False
        return True

    def _path_of(self, call: CarrierCall) -> str:
        return f"{self._path}/{quote(call.id, safe='')}/"


def control(settings: Settings, accounts: CarrierAccounts) -> AccountCalls[PlivoCalls]:
    """See `connector.carrier_table.RestModule`."""
    say_url = sentence_url(settings, Plivo.provider)
    return AccountCalls(accounts, lambda auth_id, token: PlivoCalls(auth_id, token, say_url, settings.plivo_api_url))


async def look_at(settings: Settings, account: CarrierAccount) -> Account:
    """See `connector.carrier_table.RestModule`. https://www.plivo.com/docs/numbers/api/account-phone-number"""
    authorization = aiohttp.encode_basic_auth(account.id, account.rest[0])
    base = f"/v1/Account/{quote(account.id, safe='')}"
    async with started(CarrierApi(Plivo.title, settings.plivo_api_url, authorization, Plivo.rest_settings)) as api:
        about = (await api.send("GET", f"{base}/")).body
        numbers = (await api.send("GET", f"{base}/Number/?limit={MOST}")).body
        applications = (await api.send("GET", f"{base}/Application/?limit={MOST}")).body
    urls = {text_of(each, "resource_uri"): text_of(each, "answer_url") for each in list_of(applications, "objects")}
    return Account(
        text_of(about, "name"),
        [
            Number(f"+{text_of(each, 'number').removeprefix('+')}", urls.get(text_of(each, "application"), ""))
            for each in list_of(numbers, "objects")
        ],
    )
