"""Twilio's REST API, by Twilio's own package."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp
from twilio.base.exceptions import TwilioException, TwilioRestException
from twilio.http.async_http_client import AsyncTwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

from connector.errors import ConnectorError, Internal, InvalidArgument, NotFound, ResourceExhausted, Unavailable

API = "https://api.twilio.com"
REQUEST_TIMEOUT = 10.0
STATUS_EVENTS = ["initiated", "ringing", "answered", "completed"]
"""Twilio's names of the moments at which it calls back; the last stands for every final status."""

_TOO_MANY = 429
# https://www.twilio.com/docs/api/errors
_FIELDS = {21211: "to", 21214: "to", 21215: "to", 21217: "to", 21401: "to", 13223: "to", 13224: "to"} | dict.fromkeys(
    (21210, 21212, 21213, 21606), "from"
)


class TwilioCalls:
    """Call resources of one account. `start` before use. Every method raises ConnectorError for what fails."""

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
    def _calls(self) -> Any:
        if self._client is None:
            raise RuntimeError("TwilioCalls.start() has not run")
        return self._client.calls

    async def place(self, to: str, from_: str, url: str, status_url: str, ring_timeout: int) -> tuple[str, str]:
        """Have Twilio call `to`; it fetches TwiML at `url` on the answer. The CallSid and Twilio's first status."""
        try:
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
        except (TwilioException, aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _translate(error) from error
        return str(call.sid), str(call.status)

    async def hang_up(self, call_sid: str) -> None:
        """End a call in whatever state it is; one that has ended is no error."""
        try:
            await self._calls(call_sid).update_async(status="completed")
        except (TwilioException, aiohttp.ClientError, TimeoutError, OSError) as error:
            ours = _translate(error)
            if not isinstance(ours, NotFound):
                raise ours from error


class _HttpClient(AsyncTwilioHttpClient):  # type: ignore[misc]
    """Sends requests to another origin than Twilio's, where a test or an edge proxy stands."""

    def __init__(self, api_url: str) -> None:
        super().__init__(pool_connections=True)
        self._api_url = api_url

    async def request(
        self, method: str, url: str, params: Any = None, data: Any = None, *args: Any, **kwargs: Any
    ) -> Response:
        # The package leaves lists to its HTTP library, and this one wants pairs; it also sets no time limit.
        pairs = data and [(name, each) for name, value in data.items() for each in _each(value)]
        async with asyncio.timeout(REQUEST_TIMEOUT):
            return await super().request(method, self._api_url + url.removeprefix(API), params, pairs, *args, **kwargs)


def _each(value: Any) -> list[str]:
    return [str(each) for each in value] if isinstance(value, list | tuple) else [str(value)]


def _translate(error: Exception) -> ConnectorError:
    if not isinstance(error, TwilioRestException):
        return Unavailable(f"Twilio's API cannot be reached ({type(error).__name__})")
    text = f"Twilio answered {error.status}, error {error.code}: {error.msg}"
    if error.status in (401, 403) and error.code in (20003, None):
        return Internal(f"{text}; check TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN")
    if error.status == 404:
        # 21220: a call that has ended cannot be ended again.
        return NotFound(text)
    if error.status == _TOO_MANY:
        return ResourceExhausted(text)
    if error.code == 21220:
        return NotFound(text)
    if error.status < 500:
        return InvalidArgument(_FIELDS.get(error.code, "call"), text)
    return Unavailable(text)
