"""One call of any carrier: the simulated carrier, a connector with its credentials, and somebody in the room."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

from carrier_simulator import (
    CarrierSimulator,
    Document,
    MediaStream,
    PhoneCall,
    PlivoSimulator,
    TelnyxSimulator,
    TwilioSimulator,
)
from carrier_simulator.simulator import WorldOptions
from connector.app import Connector
from connector.call.session.call_session import CallSession
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from demo.verdict import GOOD_SCORE, find_whole
from tests.integration.harness import PATIENCE, RATE, Guest, Stage, only_session, until
from tests.integration.wire import Wire, wire_to

CALLEE, OURS = "+15551234567", "+15557654321"
HANGS_UP = {
    Provider.TWILIO: EndReason.CARRIER_HANGUP,
    Provider.TELNYX: EndReason.CARRIER_HANGUP,
    Provider.PLIVO: EndReason.CARRIER_CLOSED,
}
"""What is known of a phone that hangs up: Plivo closes its socket and says nothing."""
_TRIES = 5
"""A busy machine loses frames of a sentence: one of so many arrives as it was said, or none does."""
_METHODS = {
    Provider.TWILIO: ("livekit.Connector/ConnectTwilioCall", "twilio_call_direction", "TWILIO_CALL_DIRECTION"),
    Provider.TELNYX: ("connector.v1.Connector/ConnectTelnyxCall", "direction", "CALL_DIRECTION"),
    Provider.PLIVO: ("connector.v1.Connector/ConnectPlivoCall", "direction", "CALL_DIRECTION"),
}


def carrier_of(provider: Provider, **world: Unpack[WorldOptions]) -> tuple[CarrierSimulator, dict[str, str]]:
    """A simulator that has yet to be started, and the connector's settings for its account (without the API's URL)."""
    match provider:
        case Provider.TWILIO:
            twilio = TwilioSimulator(**world)
            return twilio, {"twilio_account_sid": twilio.account_sid, "twilio_auth_token": twilio.auth_token}
        case Provider.TELNYX:
            telnyx = TelnyxSimulator(**world)
            return telnyx, {"telnyx_public_key": telnyx.public_key, "telnyx_api_key": telnyx.api_key}
        case Provider.PLIVO:
            plivo = PlivoSimulator(**world)
            return plivo, {"plivo_auth_id": plivo.auth_id, "plivo_auth_token": plivo.auth_token}


@dataclass
class Line:
    stage: Stage
    provider: Provider
    room: str
    carrier: CarrierSimulator
    connector: Connector
    wire: Wire
    guest: Guest
    phone: PhoneCall | None = None

    async def connect(self, direction: str = "OUTBOUND") -> str:
        """Connect…Call; the connect_url as an http URL, which the carrier fetches."""
        method, field, prefix = _METHODS[self.provider]
        fields = {field: f"{prefix}_{direction}", "room_name": self.room, "participant_identity": "caller"}
        reply = await self.wire.send_json(fields, f"/twirp/{method}")
        assert reply.status == 200, reply.body
        return str(reply.document["connect_url"]).replace("ws", "http", 1)

    async def answer(self) -> None:
        """A call is placed, answered, and talks."""
        self.phone = self.carrier.dial(CALLEE, OURS, Document(await self.connect()))
        await self.talks()

    async def talks(self) -> None:
        """Until the phone's track is heard of in the room, and the call active."""
        await self.guest.event("track_subscribed")
        await until(lambda: bool(self.connector.calls.live()) and self.session.state == "active")
        await self.call.stream_started.wait()

    @property
    def call(self) -> PhoneCall:
        assert self.phone is not None
        return self.phone

    @property
    def stream(self) -> MediaStream:
        return self.call.stream

    @property
    def session(self) -> CallSession:
        session: CallSession = only_session(self.connector)
        return session

    async def end_by_api(self) -> None:
        path = "/twirp/connector.v1.Connector/EndCall"
        reply = await self.wire.send_json({"call_id": self.session.call_id}, path)
        assert reply.status == 200, reply.body


async def phone_says(line: Line, pcm: NDArray[np.int16]) -> None:
    """Int16 at 8 kHz; returns when the room has heard so much and half a second more."""
    wanted = len(line.guest.sound_of("caller")) + len(pcm) + RATE // 2
    line.call.say(pcm)
    await line.guest.until(lambda: len(line.guest.sound_of("caller")) >= wanted, 2 * PATIENCE)


async def room_says(line: Line, pcm: NDArray[np.int16]) -> None:
    """Int16 at 8 kHz; returns when the phone has played it."""
    await line.guest.say(pcm)
    await asyncio.sleep(0.5)
    await until(lambda: line.stream.buffered == 0)


async def speech_passes(
    sentence: NDArray[np.int16], say: Callable[[], Awaitable[None]], heard: Callable[[], NDArray[np.int16]]
) -> bool:
    """Whether `heard`, int16 at 8 kHz, gets the whole of what `say` says: it returns when that must have arrived."""
    for _ in range(_TRIES):
        before = len(heard())
        await say()
        found = await asyncio.to_thread(find_whole, sentence, heard()[before:])
        if found.score > GOOD_SCORE:
            return True
    return False


async def line_at(
    stage: Stage, room: str, provider: Provider, world: WorldOptions | None = None, **settings: Any
) -> Line:
    """`world` are the simulator's options; `settings` the connector's, beside the carrier's credentials."""
    carrier, credentials = carrier_of(provider, **(world or {}))
    await stage.enter(carrier)
    api = {f"{provider.value}_api_url": carrier.base_url}
    connector = await stage.connector(**credentials | api | settings)
    guest = await stage.guest(room)
    await guest.publish()
    return Line(stage, provider, room, carrier, connector, await wire_to(stage, connector), guest)
