"""Twilio's REST API, by Twilio's own package."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import quote, urlsplit

import aiohttp
from twilio.base.exceptions import TwilioException, TwilioRestException, TwilioServiceException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from connector.accounts import CarrierAccount, CarrierAccounts
from connector.carriers.transfers import TransferDial
from connector.carriers.twilio import Twilio
from connector.config import Settings
from connector.errors import (
    CarrierCallOver,
    ConnectorError,
    CredentialsRefused,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)
from connector.model.call import CarrierCall
from connector.numbers import E164
from connector.telephony.account_calls import AccountCalls
from connector.telephony.http import CarrierApi, body_of
from connector.telephony.inventory import MOST, Account, Number, list_of, started, text_of

API = "https://api.twilio.com"
PLACE_TIMEOUT = 10.0
HANG_UP_TIMEOUT = 5.0
"""Seconds; the teardown of a call waits for it."""
STATUS_EVENTS = ["initiated", "ringing", "answered", "completed"]
"""Twilio's events for status callbacks; `completed` stands for every final status."""

_TWILIO = Twilio()
_OVER = frozenset({"completed", "busy", "failed", "no-answer", "canceled"})
_UNAUTHORISED = 401
_FORBIDDEN = 403
_TOO_MANY = 429
_NOT_FOUND = 404
_HAS_ENDED = 21220
# https://www.twilio.com/docs/api/errors
_FIELDS = dict.fromkeys((13223, 13224, 13226, 21201, 21211, 21214, 21215, 21216, 21217, 21219, 21401), "to") | (
    dict.fromkeys((21210, 21212, 21213, 21606), "from")
)


class TwilioCalls:
    """Call resources, with the credentials of one account. Call `start` before use. Every method raises ConnectorError
    on failure."""

    ends_with_stream = True
    """Nothing follows the stream in the answer document, so the call ends with it."""
    stream_outlives_transfer = False

    def __init__(self, account_sid: str, auth_token: str, api_url: str = API) -> None:
        self._account_sid = account_sid
        self._auth_token = auth_token
        self._api_url = api_url.rstrip("/")
        self._http: AsyncTwilioHttpClient | None = None
        self._client: Client | None = None

    async def start(self) -> None:
        self._http = _HttpClient(self._api_url)
        self._client = Client(self._account_sid, self._auth_token, http_client=self._http)

    async def close(self) -> None:
        if self._http is not None:
            await self._http.close()
            self._http = self._client = None

    @property
    def client(self) -> Any:
        if self._client is None:
            raise RuntimeError("TwilioCalls.start() has not run")
        return self._client

    @property
    def _calls(self) -> Any:
        return self.client.calls

    def _call(self, call: CarrierCall) -> Any:
        """The call resource in the call's own account: a main account has access to its subaccounts."""
        return self.account(call.account_id).calls(call.id)

    def account(self, account_id: str) -> Any:
        """The resources of an account that these credentials can access; an empty id means their own account."""
        return self.client.api.v2010.accounts(account_id or self._account_sid)

    async def place(self, to: str, from_: str, url: str, status_url: str, ring_timeout: int) -> tuple[str, str]:
        """Asks Twilio to call `to`; on the answer, Twilio fetches TwiML at `url`. Returns the CallSid and the first
        status."""
        async with translated(PLACE_TIMEOUT):
            call = await self._calls.create_async(
                to=to,
                from_=from_,
                url=url,
                method="POST",
                status_callback=status_url,
                status_callback_event=STATUS_EVENTS,
                status_callback_method="POST",
                timeout=ring_timeout,
            )
            if not call.sid:
                raise ValueError("a call without a sid")
            return str(call.sid), str(call.status or "")

    async def hang_up(self, call: CarrierCall, say: str = "") -> None:
        """Ends a call in any state; an ended call is no error. Raises NotFound if the call does not exist in this
        account; it may be live in another account. `say` is read out first, instead of the stream, if the phone was
        answered."""
        if say and await self._take_leave(call, say):
            return
        try:
            async with translated(HANG_UP_TIMEOUT):
                await self._call(call).update_async(status="completed")
        except CarrierCallOver:
            return
        except NotFound as error:
            account = call.account_id or self._account_sid
            raise NotFound(f"account {account} has no call {call.id}: {error.message}") from error

    async def _take_leave(self, call: CarrierCall, say: str) -> bool:
        """Returns whether Twilio accepted the sentence: it refuses a document for a phone that was not answered."""
        try:
            async with translated(HANG_UP_TIMEOUT):
                await self._call(call).update_async(twiml=_TWILIO.farewell(say))
        except (NotFound, FailedPrecondition, InvalidArgument):
            return False
        return True

    async def transfer(self, call: CarrierCall, dial: TransferDial, document_url: str) -> bool:
        """Connects the phone with a number instead of the stream."""
        if not dial.caller_id:
            dial = replace(dial, caller_id=await self._number_of_ours(call))
        async with translated(HANG_UP_TIMEOUT):
            await self._call(call).update_async(twiml=_TWILIO.transfer_document(dial))
        return True

    async def _number_of_ours(self, call: CarrierCall) -> str:
        """Fetches our number in the call, which the stream does not report; empty if there is none. For callers from
        apps and SIP, Twilio refuses a Dial without a caller ID (13214)."""
        async with translated(HANG_UP_TIMEOUT):
            found = await self._call(call).fetch_async()
            number = str((found.to if found.direction == "inbound" else found.from_) or "")
        return number if E164.fullmatch(number) else ""

    async def bring_back(self, call: CarrierCall, document_url: str, stream_url: str) -> None:
        """Makes the call follow the document that answers a return. Raises NotFound if the call has ended."""
        async with translated(HANG_UP_TIMEOUT):
            await self._call(call).update_async(url=document_url, method="POST")

    async def is_live(self, call: CarrierCall) -> bool:
        """Whether the call has not ended."""
        try:
            async with translated(HANG_UP_TIMEOUT):
                return str((await self._call(call).fetch_async()).status) not in _OVER
        except NotFound:
            return False


class TwilioAccounts(AccountCalls[TwilioCalls]):
    """`TwilioCalls` for several accounts. The connector places calls in the default account."""

    async def place(self, to: str, from_: str, url: str, status_url: str, ring_timeout: int) -> tuple[str, str]:
        """See `TwilioCalls.place`."""
        return await self.take("", lambda client: client.place(to, from_, url, status_url, ring_timeout))


def control(settings: Settings, accounts: CarrierAccounts) -> TwilioAccounts:
    """See `connector.carrier_table.RestModule`."""
    return TwilioAccounts(accounts, lambda sid, token: TwilioCalls(sid, token, settings.twilio_api_url))


async def look_at(settings: Settings, account: CarrierAccount) -> Account:
    """See `connector.carrier_table.RestModule`.

    https://www.twilio.com/docs/phone-numbers/api/incomingphonenumber-resource
    """
    authorization = aiohttp.encode_basic_auth(account.id, account.rest[0])
    base = f"/2010-04-01/Accounts/{quote(account.id, safe='')}"
    async with started(CarrierApi(Twilio.title, settings.twilio_api_url, authorization, Twilio.rest_settings)) as api:
        about = (await api.send("GET", f"{base}.json")).body
        numbers = (await api.send("GET", f"{base}/IncomingPhoneNumbers.json?PageSize={MOST}")).body
    return Account(
        f"{text_of(about, 'friendly_name')} ({text_of(about, 'status')})",
        [
            Number(text_of(each, "phone_number"), text_of(each, "voice_url"))
            for each in list_of(numbers, "incoming_phone_numbers")
        ],
    )


class _HttpClient(AsyncTwilioHttpClient):  # type: ignore[misc]
    """An HTTP client that can use a different origin, for a test or a proxy. It also limits the size of responses;
    the package's client does not."""

    def __init__(self, api_url: str) -> None:
        super().__init__(pool_connections=True)
        self._api_url = api_url

    async def request(
        self,
        method: str,
        url: str,
        params: Any = None,
        data: Any = None,
        headers: Any = None,
        auth: tuple[str, str] | None = None,
        timeout: float | None = None,  # noqa: ASYNC109 - the package's signature
        allow_redirects: bool = False,
    ) -> Response:
        # The package's default URL contains the edge and region of TWILIO_EDGE and TWILIO_REGION.
        if self._api_url != API:
            url = self._api_url + urlsplit(url).path
        # The package leaves lists to its HTTP library, and this one wants pairs.
        pairs = data and [(name, each) for name, value in data.items() for each in _each(value)]
        if auth is not None:
            # The package's own method is deprecated in aiohttp.
            headers = {**(headers or {}), "Authorization": aiohttp.encode_basic_auth(*auth)}
        async with self.session.request(
            method, url, params=params, data=pairs, headers=headers, allow_redirects=allow_redirects
        ) as response:
            body = await body_of(response)
            return Response(response.status, body.decode(errors="replace"), response.headers)


def _each(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]


@asynccontextmanager
async def translated(seconds: float) -> AsyncIterator[None]:
    """Sets a time limit, which the package does not have, and translates its errors."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except (TwilioRestException, TwilioServiceException) as error:
        raise _refusal(error) from error
    except (TwilioException, aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Unavailable(f"Twilio's API cannot be reached ({type(error).__name__})") from error
    except (ValueError, AttributeError) as error:  # The package stumbles over JSON that is no call resource.
        raise Unavailable("the answer is not from Twilio's API; check TWILIO_API_URL") from error


def _refusal(error: TwilioRestException | TwilioServiceException) -> ConnectorError:
    said = error.msg if isinstance(error, TwilioRestException) else error.detail or error.title
    text = f"Twilio answered {error.status}, error {error.code}: {said}"
    if error.status in (_UNAUTHORISED, _FORBIDDEN):
        refused = CredentialsRefused if error.status == _UNAUTHORISED else Internal
        return refused(f"{text}; check {Twilio.rest_settings}")
    if error.code == _HAS_ENDED:
        return CarrierCallOver(text)
    if error.status == _NOT_FOUND:
        return NotFound(text)
    if error.status == _TOO_MANY:
        return ResourceExhausted(text)
    if error.status >= 500:
        return Unavailable(text)
    if error.code in _FIELDS:
        return InvalidArgument(_FIELDS[error.code], text)
    return FailedPrecondition(text)
