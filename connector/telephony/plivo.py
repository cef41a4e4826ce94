"""Plivo's REST API.

https://www.plivo.com/docs/voice/api/call/hang-up-a-specific-call and
https://www.plivo.com/docs/voice/api/call/transfer-a-call
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import aiohttp

from connector.carriers.answers import LONGEST_FAREWELL
from connector.carriers.transfers import TransferDial
from connector.errors import FailedPrecondition, NotFound
from connector.model import REST_SETTINGS, CarrierCall, Provider
from connector.telephony.http import CarrierApi

API = "https://api.plivo.com"


class PlivoCalls:
    """Calls of one account. Every method raises ConnectorError for what fails."""

    ends_with_stream = False
    """Plivo's pages disagree whether a call that is kept alive outlasts its stream; to hang up twice does no harm."""
    stream_outlives_transfer = False

    def __init__(self, auth_id: str, auth_token: str, say_url: Callable[[str], str], api_url: str = API) -> None:
        """Plivo takes no document itself, but the address of one: `say_url` of one that reads out a sentence and hangs
        up."""
        self._path = f"/v1/Account/{quote(auth_id, safe='')}/Call"
        self._say_url = say_url
        authorization = aiohttp.encode_basic_auth(auth_id, auth_token)
        self._api = CarrierApi("Plivo", api_url, authorization, REST_SETTINGS[Provider.PLIVO])
        self.start, self.close = self._api.start, self._api.close

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        """End a call in whatever state it is; one that has ended is no error. `say` is read out first, in the stream's
        place, to a phone that was answered."""
        if say and await self._take_leave(call, say):
            return
        try:
            await self._api.send("DELETE", self._path_of(call))
        except NotFound:
            return

    async def _take_leave(self, call: CarrierCall, say: str) -> bool:
        """Whether Plivo will fetch the sentence."""
        try:
            await self._turn_to(call, self._say_url(say[:LONGEST_FAREWELL]))
        except (NotFound, FailedPrecondition):
            return False
        return True

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        """Connect the phone with a number in the stream's place. Plivo takes no document, only where one is."""
        await self._turn_to(call, document_url)
        return True

    async def _turn_to(self, call: CarrierCall, url: str) -> None:
        """Have the phone's leg follow another document."""
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
