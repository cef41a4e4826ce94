"""Telnyx's REST API.

A call has two names: the CallSid of TeXML's webhooks, and the call_control_id of its media stream. In all of
Telnyx's examples they are one and the same; where they are not, we may know only one of them. Call Control takes
the one, TeXML the other, so what the first does not know is asked of the second.

https://developers.telnyx.com/api-reference/call-commands/hangup-call,
https://developers.telnyx.com/api-reference/texml-rest-commands/deprecated-update-call (the way that needs no account
id, which a stream does not tell)
"""

from __future__ import annotations

from urllib.parse import quote

from connector.carriers.answers import dial
from connector.errors import FailedPrecondition, NotFound
from connector.model import Provider
from connector.telephony.http import CarrierApi

API = "https://api.telnyx.com"
_HAS_ENDED = "90018"
"""https://developers.telnyx.com/api/errors/90018"""


class TelnyxCalls:
    """Calls of one account. Every method raises ConnectorError for what fails."""

    ends_with_stream = False
    """The answer document's pause holds the phone when the stream is gone."""

    def __init__(self, api_key: str, api_url: str = API) -> None:
        self._api = CarrierApi("Telnyx", api_url, f"Bearer {api_key}", "TELNYX_API_KEY", _HAS_ENDED)
        self.start, self.close = self._api.start, self._api.close

    async def hang_up(self, carrier_call_id: str) -> None:
        """End a call in whatever state it is; one that has ended is no error."""
        try:
            await self._api.send("POST", f"/v2/calls/{quote(carrier_call_id, safe='')}/actions/hangup", {})
        except (NotFound, FailedPrecondition):
            try:
                await self._update(carrier_call_id, {"Status": "completed"})
            except NotFound:
                return

    async def transfer(self, carrier_call_id: str, to: str) -> None:
        """Connect the phone with `to`, E.164, in the stream's place."""
        try:
            await self._update(carrier_call_id, {"Texml": dial(Provider.TELNYX, to)})
        except NotFound:
            await self._api.send("POST", f"/v2/calls/{quote(carrier_call_id, safe='')}/actions/transfer", {"to": to})

    async def _update(self, call_sid: str, changes: dict[str, str]) -> None:
        await self._api.send("POST", f"/v2/texml/calls/{quote(call_sid, safe='')}/update", changes)
