"""Reads and checks the webhook with which a carrier announces a call: connector, signature, facts about the call.

Also derives our ids of the carrier call's legs.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from aiohttp import web

from connector.api.carrier.forms import posted, require_no_event
from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.carriers.carrier import Carrier, Carriers
from connector.carriers.facts import CallFacts, sip_headers
from connector.errors import ConnectUrlError, InvalidArgument, Malformed, NotFound, TokenInvalid
from connector.model.connector import ConnectorEntry
from connector.numbers import WITHHELD
from connector.routing import Arrival
from connector.storage.base import Store
from connector.tokens import WebhookKeys

MAX_ROOM = 256
MOST_LEGS = 100
"""Legs of one carrier call are numbered below this. Each leg is a separate call in this service."""
PIN_ARGUMENT = "pin_attempt"
"""Query parameter with the token of a PIN prompt; we add it to the webhook's URL."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BY_HEADER = "id:"


class KnownCalls(Protocol):
    """See `connector.call.registry.manager.CallManager`."""

    async def expected(self, call_id: str) -> object: ...


@dataclass(frozen=True, slots=True)
class Announced:
    """A webhook that has passed the checks."""

    connector: ConnectorEntry
    carrier: Carrier
    call: CallFacts
    arrival: Arrival
    call_id: str
    """The id in this service, not the carrier's."""
    region: str
    """The configured region that serves the call; empty: the default origin."""
    pin_token: str
    url: str
    """Path and query of the request, without the parameters that we added."""
    rule_before: str = ""
    """The rule of an earlier leg of the same carrier call: a caller who entered its PIN is not asked again."""

    @property
    def has_request_id(self) -> bool:
        """Whether the carrier's header, not only the body, shows that two deliveries are of one request."""
        return self.arrival.delivery.startswith(_BY_HEADER)


class CarrierCallLegs:
    """Our ids of the legs of carrier calls."""

    def __init__(self, calls: KnownCalls, keys: WebhookKeys) -> None:
        self._calls = calls
        self._keys = keys

    async def call_id(self, connector_id: str, carrier_call_id: str, leg: int) -> str:
        """Our id of one leg of the carrier's call. During a rotation of the secret, a process that still has the
        previous secret may have created the call with a different id."""
        name = carrier_call_id if leg == 1 else f"{carrier_call_id}#{leg}"
        newest, *before = self._keys.call_ids(connector_id, name)
        for call_id in before:
            try:
                await self._calls.expected(call_id)
            except TokenInvalid:
                continue
            except ConnectUrlError:
                pass  # The call exists; it has ended, or a stream has claimed it.
            return call_id
        return newest

    async def known(self, connector_id: str, carrier_call_id: str) -> list[str]:
        """Our ids of all legs of a carrier call so far; only the first id if the call is unknown."""
        found = [await self.call_id(connector_id, carrier_call_id, 1)]
        for leg in range(2, MOST_LEGS):
            call_id = await self.call_id(connector_id, carrier_call_id, leg)
            try:
                await self._calls.expected(call_id)
            except TokenInvalid:
                break
            except ConnectUrlError:
                pass
            found.append(call_id)
        return found


class WebhookReader:
    """Finds the connector of a webhook, and reads and checks the request."""

    def __init__(
        self,
        store: Store,
        keys: WebhookKeys,
        legs: CarrierCallLegs,
        origins: Origins,
        signatures: SignatureCheck,
        carriers: Carriers,
    ) -> None:
        self._store = store
        self._keys = keys
        self._legs = legs
        self._origins = origins
        self._signatures = signatures
        self._carriers = carriers

    async def connector(self, request: web.Request) -> ConnectorEntry:
        """Finds the connector by its webhook key. Raises NotFound or StoreError."""
        key = request.match_info["key"]
        connector = await self._store.connectors.find(f"key:{WebhookKeys.hash(key)}")
        if connector is None or connector.provider.value != request.match_info["provider"]:
            raise NotFound("no connector has this webhook URL; copy it again from the connector")
        if not self._keys.fits(connector, key):
            raise NotFound("the secret has changed since this webhook URL was made; copy the connector's new one")
        return connector

    async def read(self, request: web.Request, connector: ConnectorEntry) -> Announced:
        """Checks the signature and parses the webhook. Raises SignatureInvalid, Malformed or InvalidArgument."""
        form = await posted(request)
        self._signatures.require_webhook(connector.provider, request, form.body, form.fields)
        carrier = self._carriers[connector.provider]
        require_no_event(carrier, form)
        fields = dict(form.fields)
        call = carrier.call_facts(fields)
        if not call.call_id:
            raise Malformed("the form has no call id")
        room_id = request.query.get("roomId", "")
        if len(room_id) > MAX_ROOM or _CONTROL.search(room_id):
            raise InvalidArgument("roomId", f"must be at most {MAX_ROOM} characters, no control characters")
        own = f"?{urlencode({'roomId': room_id})}" if room_id else ""
        return Announced(
            connector=connector,
            carrier=carrier,
            call=call,
            arrival=Arrival(
                provider=connector.provider,
                carrier_call_id=call.call_id,
                from_number=call.from_number or WITHHELD,
                to_number=call.to_number,
                room_id=room_id,
                from_country=call.from_country,
                headers=sip_headers(fields),
                account_id=call.account_id,
                delivery=_fingerprint(request, form.body, carrier.delivery_header),
            ),
            call_id=await self._legs.call_id(connector.id, call.call_id, 1),
            region=self._origins.region(connector.region or "", call.from_country),
            pin_token=request.query.get(PIN_ARGUMENT, ""),
            url=request.rel_url.raw_path + own,
        )


def _fingerprint(request: web.Request, body: bytes, header: str) -> str:
    """A fingerprint that is equal for all deliveries of one request. Some carriers send a request id in a header. For
    the others it is a hash of the body, which a later request of the same call may share."""
    name = request.headers.get(header, "") if header else ""
    if name:
        return _BY_HEADER + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return "body:" + hashlib.sha256(request.path_qs.encode("utf-8", "surrogatepass") + b"\n" + body).hexdigest()[:32]
