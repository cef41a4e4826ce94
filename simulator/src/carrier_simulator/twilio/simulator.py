"""A strict Twilio."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Unpack

from aiohttp import web

from carrier_simulator.simulator import CarrierSimulator, World, WorldOptions
from carrier_simulator.twilio.conferences import ConferenceApi
from carrier_simulator.twilio.dialect import TwilioDialect
from carrier_simulator.twilio.rest import RestApi
from carrier_simulator.twilio.signing import TwilioSigner
from carrier_simulator.web import Manner


class TwilioSimulator(CarrierSimulator):
    """`world` are the fields of a `World`."""

    def __init__(self, *, account_sid: str = "", auth_token: str = "", **world: Unpack[WorldOptions]) -> None:
        self.account_sid = account_sid or "AC" + secrets.token_hex(16)
        self.auth_token = auth_token or secrets.token_hex(16)
        manner = Manner(TwilioSigner(), "TwilioProxy/1.1", "Twilio.TmeWs/1.0", queries=False)
        self._api = RestApi(self)
        self.conferences = ConferenceApi(self.account_sid, lambda: self.office, self._api.checked)
        super().__init__(TwilioDialect(self.account_sid), manner, self.auth_token, World(**world))

    def routes(self) -> Sequence[web.RouteDef]:
        return [*self._api.routes(), *self.conferences.routes()]

    async def stop(self) -> None:
        if self.conferences.conferences:
            self.sip.hurry()
        await self.conferences.close()
        await super().stop()
