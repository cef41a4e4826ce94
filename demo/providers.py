"""The demo's three carriers: the connector's settings for each, and how to create and place a call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from livekit import api
from livekit.protocol.agent_dispatch import RoomAgentDispatch

from carrier_simulator import CarrierSimulator, PlivoSimulator, TelnyxSimulator, TwilioSimulator
from carrier_simulator.terms import Outcome
from carrier_simulator.twilio.client import place_call

PICKS_UP_AFTER = Outcome(after=0.5)
"""The callee answers after half a second, so that the ringing state is visible."""

_OWN = "the method is the connector's own, over Twirp at {url} or gRPC"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The requested call."""

    room: str
    identity: str
    name: str
    agent: str


class Account(Protocol):
    """An application's account with a (simulated) carrier."""

    @property
    def carrier(self) -> CarrierSimulator: ...

    @property
    def method(self) -> str:
        """The method of the connector's API that creates the connect_url of an outbound call."""
        ...

    @property
    def way(self) -> str:
        """A text on how programs can call the method; `{url}` stands for the connector's URL."""
        ...

    def environment(self) -> Mapping[str, str]:
        """The connector's settings for the account. The carrier must be running."""
        ...

    async def connect(self, connector: api.LiveKitAPI, url: str, token: str, wanted: Wanted) -> str:
        """Requests an outbound call from the connector at `url`; returns its connect_url."""
        ...

    async def place(self, to: str, from_: str, url: str) -> None:
        """Makes the carrier call a number and fetch its document at `url`."""
        ...

    def request(self, room: str, agent: str) -> tuple[str, str]:
        """Returns path and JSON body of the request for a connect_url, for manual use."""
        ...

    def order(self, to: str, from_: str, url: str) -> str:
        """Returns the arguments of a curl command equivalent to `place`; `url` may be a shell variable."""
        ...


class TwilioAccount:
    method = "ConnectTwilioCall"
    way = "any LiveKit SDK does it when its URL is {url}"

    def __init__(self) -> None:
        self.carrier = TwilioSimulator(outcome=PICKS_UP_AFTER)

    def environment(self) -> Mapping[str, str]:
        carrier = self.carrier
        return {
            "TWILIO_ACCOUNT_SID": carrier.account_sid,
            "TWILIO_AUTH_TOKEN": carrier.auth_token,
            "TWILIO_API_URL": carrier.base_url,
        }

    async def connect(self, connector: api.LiveKitAPI, url: str, token: str, wanted: Wanted) -> str:
        """Uses LiveKit's SDK."""
        request = api.ConnectTwilioCallRequest(
            twilio_call_direction=api.ConnectTwilioCallRequest.TWILIO_CALL_DIRECTION_OUTBOUND,
            room_name=wanted.room,
            participant_identity=wanted.identity,
            participant_name=wanted.name,
            destination_country="US",
            agents=[RoomAgentDispatch(agent_name=wanted.agent)],
        )
        return str((await connector.connector.connect_twilio_call(request)).connect_url)

    async def place(self, to: str, from_: str, url: str) -> None:
        """Uses Twilio's package."""
        carrier = self.carrier
        await place_call(carrier.base_url, carrier.account_sid, carrier.auth_token, to=to, from_=from_, url=url)

    def request(self, room: str, agent: str) -> tuple[str, str]:
        body = {"twilioCallDirection": "TWILIO_CALL_DIRECTION_OUTBOUND", **_place_in_room(room, agent)}
        return "/twirp/livekit.Connector/ConnectTwilioCall", json.dumps(body)

    def order(self, to: str, from_: str, url: str) -> str:
        sid = self.carrier.account_sid
        return (
            f"-u {sid}:{self.carrier.auth_token} {self.carrier.base_url}/2010-04-01/Accounts/{sid}/Calls.json \\\n"
            f'  --data-urlencode "To={to}" --data-urlencode "From={from_}" --data-urlencode "Url={url}"'
        )


class TelnyxAccount:
    method = "ConnectTelnyxCall"
    way = _OWN

    def __init__(self) -> None:
        self.carrier = TelnyxSimulator(outcome=PICKS_UP_AFTER)

    def environment(self) -> Mapping[str, str]:
        carrier = self.carrier
        return {
            "TELNYX_PUBLIC_KEY": carrier.public_key,
            "TELNYX_API_KEY": carrier.api_key,
            "TELNYX_API_URL": carrier.base_url,
        }

    async def connect(self, connector: api.LiveKitAPI, url: str, token: str, wanted: Wanted) -> str:
        return await _connect(self.method, url, token, wanted)

    async def place(self, to: str, from_: str, url: str) -> None:
        fields = {"To": to, "From": from_, "Url": url, "ApplicationSid": self.carrier.application_sid}
        await _post(self._calls, {"Authorization": f"Bearer {self.carrier.api_key}"}, fields)

    @property
    def _calls(self) -> str:
        return f"{self.carrier.base_url}/v2/texml/Accounts/{self.carrier.account_sid}/Calls"

    def request(self, room: str, agent: str) -> tuple[str, str]:
        return _our_request(self.method, room, agent)

    def order(self, to: str, from_: str, url: str) -> str:
        return (
            f'-H "Authorization: Bearer {self.carrier.api_key}" {self._calls} \\\n'
            f'  --data-urlencode "To={to}" --data-urlencode "From={from_}" --data-urlencode "Url={url}" \\\n'
            f"  -d ApplicationSid={self.carrier.application_sid}"
        )


class PlivoAccount:
    method = "ConnectPlivoCall"
    way = _OWN

    def __init__(self) -> None:
        self.carrier = PlivoSimulator(outcome=PICKS_UP_AFTER)

    def environment(self) -> Mapping[str, str]:
        carrier = self.carrier
        return {
            "PLIVO_AUTH_ID": carrier.auth_id,
            "PLIVO_AUTH_TOKEN": carrier.auth_token,
            "PLIVO_API_URL": carrier.base_url,
        }

    async def connect(self, connector: api.LiveKitAPI, url: str, token: str, wanted: Wanted) -> str:
        return await _connect(self.method, url, token, wanted)

    async def place(self, to: str, from_: str, url: str) -> None:
        authorization = aiohttp.encode_basic_auth(self.carrier.auth_id, self.carrier.auth_token)
        await _post(self._calls, {"Authorization": authorization}, {"to": to, "from": from_, "answer_url": url})

    @property
    def _calls(self) -> str:
        return f"{self.carrier.base_url}/v1/Account/{self.carrier.auth_id}/Call/"

    def request(self, room: str, agent: str) -> tuple[str, str]:
        return _our_request(self.method, room, agent)

    def order(self, to: str, from_: str, url: str) -> str:
        body = f'{{\\"to\\": \\"{to}\\", \\"from\\": \\"{from_}\\", \\"answer_url\\": \\"{url}\\"}}'
        return (
            f"-u {self.carrier.auth_id}:{self.carrier.auth_token} {self._calls} \\\n"
            f'  -H "Content-Type: application/json" -d "{body}"'
        )


ACCOUNTS: Mapping[str, type[TwilioAccount | TelnyxAccount | PlivoAccount]] = {
    "twilio": TwilioAccount,
    "telnyx": TelnyxAccount,
    "plivo": PlivoAccount,
}


def _place_in_room(room: str, agent: str) -> dict[str, Any]:
    return {"roomName": room, "agents": [{"agentName": agent}]}


def _our_request(method: str, room: str, agent: str) -> tuple[str, str]:
    body = {"direction": "CALL_DIRECTION_OUTBOUND", **_place_in_room(room, agent)}
    return f"/twirp/connector.v1.Connector/{method}", json.dumps(body)


async def _connect(method: str, url: str, token: str, wanted: Wanted) -> str:
    """LiveKit's SDKs do not have this method; it is called as JSON over HTTP in the connector's own API."""
    path, body = _our_request(method, wanted.room, wanted.agent)
    fields = json.loads(body) | {"participantIdentity": wanted.identity, "participantName": wanted.name}
    answer = await _post(url + path, {"Authorization": f"Bearer {token}"}, fields)
    return str(answer.get("connectUrl") or answer["connect_url"])


async def _post(url: str, headers: Mapping[str, str], fields: Mapping[str, Any]) -> Mapping[str, Any]:
    async with (
        aiohttp.ClientSession(raise_for_status=_told) as session,
        session.post(url, headers=headers, json=fields) as response,
    ):
        answer: dict[str, Any] = await response.json()
        return answer


async def _told(response: aiohttp.ClientResponse) -> None:
    if response.status >= 400:
        raise OSError(f"{response.url.path} answered {response.status}: {(await response.text())[:500]}")
