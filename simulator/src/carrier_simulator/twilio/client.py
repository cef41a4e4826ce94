"""The carrier's official Python client, pointed at the simulator."""

from __future__ import annotations

import asyncio
from typing import Any

from twilio.http.http_client import TwilioHttpClient
from twilio.http.response import Response
from twilio.rest import Client

_HOME = "https://api.twilio.com"


class SimulatorHttpClient(TwilioHttpClient):  # type: ignore[misc]
    """Sends requests for api.twilio.com to `base_url`."""

    def __init__(self, base_url: str) -> None:
        super().__init__(timeout=10)
        self._base_url = base_url

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Response:
        if not url.startswith(_HOME + "/"):
            raise ValueError(f"not an address of the simulated API: {url}")
        return super().request(method, self._base_url + url.removeprefix(_HOME), *args, **kwargs)


def twilio_client(base_url: str, account_sid: str, auth_token: str) -> Client:
    """Blocking, as the client is: call it from a thread (`asyncio.to_thread`) beside a running simulator."""
    return Client(account_sid, auth_token, http_client=SimulatorHttpClient(base_url))


async def place_call(
    base_url: str, account_sid: str, auth_token: str, *, to: str, from_: str, url: str, **options: Any
) -> str:
    """Place a call as an application does; return its sid. `options` are `client.calls.create`'s."""
    client = twilio_client(base_url, account_sid, auth_token)
    call = await asyncio.to_thread(client.calls.create, to=to, from_=from_, url=url, **options)
    return str(call.sid)
