"""Telnyx's REST API.

A call has two ids: the CallSid of TeXML's webhooks and the call_control_id of its media stream. They are equal in
Telnyx's examples, but this is not guaranteed, and we may know only one of them. TeXML's endpoints need the CallSid and
the account id, which the stream reports; Call Control's endpoints need the call_control_id. If one API does not know
the call, we try the other.

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
from connector.errors import CarrierCallOver, ConnectorError, FailedPrecondition, NotFound
from connector.model.call import CarrierCall
from connector.telephony.account_calls import AccountCalls
from connector.telephony.http import CarrierApi
from connector.telephony.inventory import MOST, Account, Number, list_of, started, text_of

API = "https://api.telnyx.com"
_TELNYX = Telnyx()
_HAS_ENDED = "90018"
"""https://developers.telnyx.com/api/errors/90018"""
_CHARACTERS_A_SECOND = 12.0
"""Speaking rate of a slow voice."""
_SPEECH_BEGINS = 1.5
"""Maximum seconds from the command to the start of the speech."""
LONGEST_SPEECH = 20.0
"""Seconds after which a phone is hung up, even during a sentence; fits into `hang_ups.TRY_LIMIT`."""
_FAREWELL_COMMAND = "connector-farewell"
"""Telnyx ignores a command with an id that the call already had: a retry does not repeat the sentence."""


def speaking_seconds(text: str) -> float:
    """Seconds to wait while a phone hears a sentence."""
    return min(_SPEECH_BEGINS + len(text) / _CHARACTERS_A_SECOND, LONGEST_SPEECH)


class TelnyxCalls:
    """Calls of one account. Every method raises ConnectorError on failure."""

    ends_with_stream = False
    """The pause in the answer document keeps the phone on the line after the stream has ended."""
    stream_outlives_transfer = True
    """The stream runs in parallel with the document, so a new document does not end it."""

    def __init__(self, api_key: str, api_url: str = API, speaking: Callable[[str], float] = speaking_seconds) -> None:
        self._speaking = speaking
        self._api = CarrierApi(Telnyx.title, api_url, f"Bearer {api_key}", Telnyx.rest_settings, _HAS_ENDED)
        self.start, self.close = self._api.start, self._api.close

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        """Ends a call in any state; an ended call is no error. `say` is read out first, in a new document. For a call
        without TeXML documents, this method takes as long as the sentence."""
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
        """Uses TeXML: returns whether Telnyx has accepted the sentence and will hang up after it."""
        try:
            await self._update(call, {"Texml": _TELNYX.farewell(say)})
        except (NotFound, FailedPrecondition):
            return False
        return True

    async def _speak(self, call: CarrierCall, say: str) -> None:
        """Uses Call Control. It reports the end of a sentence (`call.speak.ended`) to the webhook of the call's
        application, which is not ours; so we wait for the estimated duration of the sentence."""
        command = {"payload": say, "voice": "female", "language": "en-US", "command_id": _FAREWELL_COMMAND}
        try:
            await self._act(call, "speak", command)
        except (NotFound, FailedPrecondition):
            return
        await asyncio.sleep(self._speaking(say))

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        """Connects the phone with a number instead of the stream. A call without TeXML is transferred by Call Control,
        which does not use our documents: in that case nothing reports whether the number answered."""
        try:
            await self._update(call, {"Texml": _TELNYX.transfer_document(dial)})
        except NotFound:
            body: dict[str, str | int] = {"to": dial.number, "timeout_secs": dial.timeout}
            await self._act(call, "transfer", body | ({"from": dial.caller_id} if dial.caller_id else {}))
            return False
        return True

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        """Makes a TeXML call follow the document that answers a return; starts a stream for a call without TeXML, with
        the settings of our documents. Raises CarrierCallOver if the call has ended.

        https://developers.telnyx.com/api-reference/call-commands/streaming-start
        """
        try:
            await self._update(call, {"Url": document_url, "Method": "POST"})
        except (NotFound, FailedPrecondition):
            stream = {
                "stream_url": stream_url,
                "stream_bidirectional_mode": "rtp",
                "stream_bidirectional_codec": "PCMU",
            }
            try:
                await self._act(call, "streaming_start", stream)
            except CarrierCallOver:
                raise
            except (NotFound, FailedPrecondition) as error:
                # A call that has ended, one of another account, or one that refuses the command.
                if await self._is_over(call):
                    raise CarrierCallOver(error.message) from error
                raise

    async def _is_over(self, call: CarrierCall) -> bool:
        """Whether Telnyx knows the call, and it has ended. Telnyx tells of a call for ten minutes after its end."""
        try:
            data = (await self._api.send("GET", self._path_of(call))).body.get("data")
        except CarrierCallOver:
            return True
        except ConnectorError:
            return False
        return isinstance(data, dict) and data.get("is_alive") is False

    async def is_live(self, call: CarrierCall) -> bool:
        """Whether the call has not ended."""
        try:
            answer = await self._api.send("GET", self._path_of(call))
        except (NotFound, FailedPrecondition):
            return False
        data = answer.body.get("data")
        return bool(data.get("is_alive", True)) if isinstance(data, dict) else True

    async def _act(self, call: CarrierCall, action: str, body: Mapping[str, str | int]) -> None:
        """Sends a command of Call Control."""
        await self._api.send("POST", f"{self._path_of(call)}/actions/{action}", body)

    @staticmethod
    def _path_of(call: CarrierCall) -> str:
        return f"/v2/calls/{quote(call.stream_call_id or call.id, safe='')}"

    async def _update(self, call: CarrierCall, changes: Mapping[str, str]) -> None:
        """Updates the call by TeXML. The URL without the account is deprecated, but the account id is unknown before
        the stream."""
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
