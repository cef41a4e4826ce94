"""`POST /v2/conferences/twilio`: status callback of conferences; bridges a conference if its name matches a pattern.

https://www.twilio.com/docs/voice/twiml/conference#attributes-statuscallback
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import structlog
from aiohttp import web

from connector.api.carrier.conferences import LABEL, ConferenceBridge, log_bridged
from connector.api.carrier.forms import posted
from connector.api.carrier.signed import SignatureCheck
from connector.api.refusals import Refusals
from connector.carriers.carrier import Carrier
from connector.carriers.twilio.conference_events import ConferenceEvent, conference_event
from connector.errors import ConnectorError, SignatureInvalid

log = structlog.get_logger()

PATH = "/v2/conferences/twilio"


class ConferenceCallback:
    """`carrier` hosts the conferences. `pattern` is a shell pattern (`support-*`) for friendly names; empty: no match.

    The URL's query may contain `number` and `from` for `ConferenceBridge.bridge`; Twilio signs the query.
    """

    def __init__(
        self,
        carrier: Carrier,
        bridge: ConferenceBridge,
        signatures: SignatureCheck,
        refusals: Refusals,
        pattern: str,
    ) -> None:
        self._carrier = carrier
        self._bridge = bridge
        self._signatures = signatures
        self._refusals = refusals
        self._pattern = pattern

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_route("POST", PATH, self.handle)

    async def handle(self, request: web.Request) -> web.Response:
        try:
            if not self._signatures.signs(self._carrier.provider):
                setting, several = self._carrier.signing_setting, self._carrier.account_rules.setting
                raise SignatureInvalid(f"conference callbacks need {setting} or {several}")
            form = await posted(request)
            self._signatures.require(self._carrier.provider, request, form.body, form.fields)
            await self._handle(conference_event(dict(form.fields)), request)
        except ConnectorError as error:
            # Twilio's debugger shows error statuses to the operator.
            self._refusals.note(f"POST {PATH}", error.twirp_code, error.message)
            return web.Response(status=error.http_status, text=f"{error.message}\n")
        return web.Response(status=204)

    async def _handle(self, event: ConferenceEvent, request: web.Request) -> None:
        if not self._pattern or not fnmatchcase(event.name, self._pattern):
            log.info("conference ignored: its name does not match the pattern", conference=event.conference_sid)
            return
        # When LiveKit itself joins, this is not the start of the conference. Otherwise a removed LiveKit could return.
        if event.begins and event.label != LABEL:
            sid, from_, number = event.conference_sid, request.query.get("from", ""), request.query.get("number", "")
            log_bridged(sid, await self._bridge.bridge(sid, from_, number, event.account_id))
