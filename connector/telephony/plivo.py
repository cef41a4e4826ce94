"""Plivo's REST API.

https://www.plivo.com/docs/voice/api/call/hang-up-a-specific-call and
https://www.plivo.com/docs/voice/api/call/transfer-a-call
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import quote

import aiohttp

from connector.errors import NotFound
from connector.model import CarrierCall
from connector.telephony.http import CarrierApi

API = "https://api.plivo.com"


class PlivoCalls:
    """Calls of one account. Every method raises ConnectorError for what fails."""

    ends_with_stream = False
    """Plivo's pages disagree whether a call that is kept alive outlasts its stream; to hang up twice does no harm."""
    stream_outlives_transfer = False

    def __init__(self, auth_id: str, auth_token: str, dial_url: Callable[[str], str], api_url: str = API) -> None:
        """`dial_url` gives the address of a document that dials a number: Plivo takes no document itself."""
        self._path = f"/v1/Account/{quote(auth_id, safe='')}/Call"
        self._dial_url = dial_url
        authorization = aiohttp.encode_basic_auth(auth_id, auth_token)
        self._api = CarrierApi("Plivo", api_url, authorization, "PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN")
        self.start, self.close = self._api.start, self._api.close

    async def hang_up(self, call: CarrierCall) -> None:
        """End a call in whatever state it is; one that has ended is no error."""
        try:
            await self._api.send("DELETE", self._path_of(call))
        except NotFound:
            return

    async def transfer(self, call: CarrierCall, to: str) -> None:
        """Connect the phone with `to`, E.164, in the stream's place."""
        order = {"legs": "aleg", "aleg_url": self._dial_url(to), "aleg_method": "POST"}
        await self._api.send("POST", self._path_of(call), order)

    def _path_of(self, call: CarrierCall) -> str:
        return f"{self._path}/{quote(call.id, safe='')}/"
