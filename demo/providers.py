"""The demo's three carriers: how the connector is set up for each, asked for a call, and called."""

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
"""People take a moment to pick up: long enough to be seen ringing."""

_OWN = "the method is the connector's own, over Twirp at {url} or gRPC"


@dataclass(frozen=True, slots=True)
class Wanted:
    """The call to ask the connector for."""

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
        """Of the connector's API: what makes an outbound call's connect_url."""
        ...

    @property
    def way(self) -> str:
        """How else the method can be called than by hand, in words; `{url}` is the connector's."""
        ...

    def environment(self) -> Mapping[str, str]:
        """What the connector has to know of the account; the carrier runs by then."""
        ...

    async def connect(self, connector: api.LiveKitAPI, url: str, token: str, wanted: Wanted) -> str:
        """Ask the connector, at `url`, for an outbound call; its connect_url."""
        ...

    async def place(self, to: str, from_: str, url: str) -> None:
        """Have the carrier call somebody and fetch its document at `url`."""
        ...

    def request(self, room: str, agent: str) -> tuple[str, str]:
        """Path and JSON body of the request for a connect_url, to be typed by a person."""
        ...

    def order(self, to: str, from_: str, url: str) -> str:
        """The rest of a curl command that does the same as `place`; `url` may be a variable of the shell."""
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
        """By LiveKit's own SDK."""
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
        """By Twilio's own package."""
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
    """LiveKit's SDKs do not have this method: the connector's own API does, as JSON over HTTP."""
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
