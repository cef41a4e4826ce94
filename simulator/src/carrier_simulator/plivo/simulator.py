"""A strict Plivo."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Unpack

from aiohttp import web

from carrier_simulator.plivo.dialect import PlivoDialect
from carrier_simulator.plivo.rest import RestApi
from carrier_simulator.plivo.signing import PlivoSigner
from carrier_simulator.simulator import CarrierSimulator, World, WorldOptions
from carrier_simulator.web import Manner


class PlivoSimulator(CarrierSimulator):
    """`world` are the fields of a `World`."""

    def __init__(self, *, auth_id: str = "", auth_token: str = "", **world: Unpack[WorldOptions]) -> None:
        self.auth_id = auth_id or "MA" + secrets.token_hex(9).upper()
        self.auth_token = auth_token or secrets.token_hex(20)
        manner = Manner(PlivoSigner(), "Plivo", "Plivo-Streams", longest_url=2048)
        super().__init__(PlivoDialect(self.auth_id), manner, self.auth_token, World(**world))

    def routes(self) -> Sequence[web.RouteDef]:
        return RestApi(self).routes()
