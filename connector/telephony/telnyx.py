"""Telnyx's REST API.

A call has two names: the CallSid of TeXML's webhooks and the call_control_id of its media stream. In Telnyx's own
examples they are one and the same, but nothing promises that, and we may know only one of them. TeXML's endpoints take
the one, and want the account's id, which a stream tells; Call Control's take the other. So what the one has not heard
of is asked of the other.

https://developers.telnyx.com/api-reference/texml-rest-commands/update-call,
https://developers.telnyx.com/api-reference/call-commands/hangup-call,
https://developers.telnyx.com/api-reference/call-commands/speak-text
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from urllib.parse import quote

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.carriers.carrier import LONGEST_FAREWELL
from connector.carriers.telnyx import Telnyx
from connector.carriers.transfers import TransferDial
from connector.config import Settings
from connector.errors import FailedPrecondition, NotFound
from connector.model import CarrierCall
from connector.telephony.accounts import AccountCalls
from connector.telephony.http import CarrierApi
from connector.telephony.inventory import MOST, Account, Number, list_of, started, text_of

API = "https://api.telnyx.com"
_TELNYX = Telnyx()
_HAS_ENDED = "90018"
"""https://developers.telnyx.com/api/errors/90018"""
_CHARACTERS_A_SECOND = 12.0
"""Spoken; a slow voice."""
_SPEECH_BEGINS = 1.5
"""Seconds after the command, at most."""
LONGEST_SPEECH = 20.0
"""Seconds after which a phone is hung up, whatever it still hears; less than `hang_ups.TRY_LIMIT` leaves."""
_FAREWELL_COMMAND = "connector-farewell"
"""Telnyx ignores a command whose id this call has had: who tries again does not repeat the sentence."""


def speaking_seconds(text: str) -> float:
    """How long a phone is left to hear a sentence."""
    return min(_SPEECH_BEGINS + len(text) / _CHARACTERS_A_SECOND, LONGEST_SPEECH)


class TelnyxCalls:
    """Calls of one account. Every method raises ConnectorError for what fails."""

    ends_with_stream = False
    """The answer document's pause holds the phone when the stream is gone."""
    stream_outlives_transfer = True
    """It runs beside the document, so another document does not end it."""

    def __init__(self, api_key: str, api_url: str = API, speaking: Callable[[str], float] = speaking_seconds) -> None:
        self._speaking = speaking
        self._api = CarrierApi(Telnyx.title, api_url, f"Bearer {api_key}", Telnyx.rest_settings, _HAS_ENDED)
        self.start, self.close = self._api.start, self._api.close

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        """End a call in whatever state it is; one that has ended is no error. `say` is read out first, in the place of
        the document that holds the phone; then this takes as long as the sentence where a call follows none."""
        if say:
            if await self._take_leave(call, say):
                return
            await self._speak(call, say[:LONGEST_FAREWELL])
        try:
            await self._act(call, "hangup", {})
        except (NotFound, FailedPrecondition):
            try:
                await self._update(call, {"Status": "completed"})
            except NotFound:
                return

    async def _take_leave(self, call: CarrierCall, say: str) -> bool:
        """Whether Telnyx has taken the sentence, and hangs up after it. TeXML's way."""
        try:
            await self._update(call, {"Texml": _TELNYX.farewell(say)})
        except (NotFound, FailedPrecondition):
            return False
        return True

    async def _speak(self, call: CarrierCall, say: str) -> None:
        """Call Control's way. It tells the end of a sentence (`call.speak.ended`) to the webhook of the call's
        application, which is not ours: so the phone gets the time that the sentence takes."""
        command = {"payload": say, "voice": "female", "language": "en-US", "command_id": _FAREWELL_COMMAND}
        try:
            await self._act(call, "speak", command)
        except (NotFound, FailedPrecondition):
            return
        await asyncio.sleep(self._speaking(say))

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        """Connect the phone with a number in the stream's place. A call that follows no TeXML is told to Call Control,
        which follows no document of ours either: nobody then tells whether somebody answered."""
        try:
            await self._update(call, {"Texml": _TELNYX.transfer_document(dial)})
        except NotFound:
            body: dict[str, str | int] = {"to": dial.number, "timeout_secs": dial.timeout}
            await self._act(call, "transfer", body | ({"from": dial.caller_id} if dial.caller_id else {}))
            return False
        return True

    async def is_live(self, call: CarrierCall) -> bool:
        """Whether the call has not ended."""
        name = quote(call.stream_call_id or call.id, safe="")
        try:
            answer = await self._api.send("GET", f"/v2/calls/{name}")
        except (NotFound, FailedPrecondition):
            return False
        data = answer.body.get("data")
        return bool(data.get("is_alive", True)) if isinstance(data, dict) else True

    async def _act(self, call: CarrierCall, action: str, body: Mapping[str, str | int]) -> None:
        """Call Control's way."""
        name = quote(call.stream_call_id or call.id, safe="")
        await self._api.send("POST", f"/v2/calls/{name}/actions/{action}", body)

    async def _update(self, call: CarrierCall, changes: Mapping[str, str]) -> None:
        """TeXML's way; the address without the account is deprecated, but all there is before a stream."""
        name, account = quote(call.id, safe=""), quote(call.account_id, safe="")
        if account:
            await self._api.send_form(f"/v2/texml/Accounts/{account}/Calls/{name}", changes)
        else:
            await self._api.send("POST", f"/v2/texml/calls/{name}/update", changes)


def control(settings: Settings, accounts: CarrierAccounts) -> AccountCalls[TelnyxCalls]:
    """See `connector.carrier_table.RestModule`."""
    return AccountCalls(accounts, lambda _, key: TelnyxCalls(key, settings.telnyx_api_url))


async def look_at(settings: Settings, account: CarrierAccount) -> Account:
    """See `connector.carrier_table.RestModule`.

    https://developers.telnyx.com/api-reference/phone-number-configurations/list-phone-numbers,
    https://developers.telnyx.com/api-reference/texml-applications/list-all-texml-applications
    """
    authorization = f"Bearer {account.rest[0]}"
    async with started(CarrierApi(Telnyx.title, settings.telnyx_api_url, authorization, Telnyx.rest_settings)) as api:
        numbers = (await api.send("GET", f"/v2/phone_numbers?page[size]={MOST}")).body
        applications = (await api.send("GET", f"/v2/texml_applications?page[size]={MOST}")).body
    urls = {text_of(each, "id"): text_of(each, "voice_url") for each in list_of(applications, "data")}
    return Account(
        "the account of TELNYX_API_KEY",
        [
            Number(text_of(each, "phone_number"), urls.get(text_of(each, "connection_id"), ""))
            for each in list_of(numbers, "data")
        ],
    )
