"""A strict Telnyx with TeXML applications."""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Sequence
from typing import Unpack

from aiohttp import web

from carrier_simulator.simulator import CarrierSimulator, World, WorldOptions
from carrier_simulator.telnyx.dialect import TelnyxDialect
from carrier_simulator.telnyx.rest import RestApi
from carrier_simulator.telnyx.signing import TelnyxSigner, public_key
from carrier_simulator.web import Manner


class TelnyxSimulator(CarrierSimulator):
    """`world` are the fields of a `World`. `signer.clock` can be set wrong."""

    def __init__(self, *, api_key: str = "", signing_secret: str = "", **world: Unpack[WorldOptions]) -> None:
        self.account_sid = str(uuid.uuid4())
        self.application_sid = str(secrets.randbelow(9 * 10**18) + 10**18)
        self.api_key = api_key or "KEY" + secrets.token_hex(16).upper()
        secret = signing_secret or secrets.token_hex(16)
        self.public_key = public_key(secret)
        """Base64; the key that verifies its webhooks."""
        self.signer = TelnyxSigner()
        self.knows_texml = True
        """Whether the REST API finds calls by TeXML's way; calls of a Call Control application it does not."""
        manner = Manner(self.signer, "telnyx-webhooks", "telnyx-media-streaming")
        super().__init__(TelnyxDialect(self.account_sid, self.application_sid), manner, secret, World(**world))

    def routes(self) -> Sequence[web.RouteDef]:
        return RestApi(self).routes()
