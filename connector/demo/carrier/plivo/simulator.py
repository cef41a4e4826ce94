"""A strict Plivo."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Unpack

from aiohttp import web

from connector.demo.carrier.plivo.dialect import PlivoDialect
from connector.demo.carrier.plivo.rest import RestApi
from connector.demo.carrier.plivo.signing import PlivoSigner
from connector.demo.carrier.simulator import CarrierSimulator, World, WorldOptions
from connector.demo.carrier.web import Manner


class PlivoSimulator(CarrierSimulator):
    """`world` are the fields of a `World`."""

    def __init__(self, *, auth_id: str = "", auth_token: str = "", **world: Unpack[WorldOptions]) -> None:
        self.auth_id = auth_id or "MA" + secrets.token_hex(9).upper()
        self.auth_token = auth_token or secrets.token_hex(20)
        manner = Manner(PlivoSigner(), "Plivo", "Plivo-Streams", longest_url=2048)
        super().__init__(PlivoDialect(self.auth_id), manner, self.auth_token, World(**world))

    def routes(self) -> Sequence[web.RouteDef]:
        return RestApi(self).routes()
