"""Connectors in mode `sip`: Twilio dials LiveKit SIP and reports the outcome.

LiveKit SIP chooses the room by its dispatch rules. If our routing has a route, we create a dispatch rule for this
call alone and delete it after the call. If routing has none for the number, the rule of `connector sip setup` applies.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import structlog
from aiohttp import web

from connector.api.carrier.forms import posted
from connector.api.carrier.sentences import SORRY
from connector.api.carrier.signed import SignatureCheck
from connector.call.dependencies import BUSY
from connector.call.ports import Admin
from connector.call.registry.dialled import DialledCalls
from connector.carriers.carrier import Carrier
from connector.carriers.twilio.dial import SipDial, sip_dial_over, sip_uri, twilio_dial, valid_caller_id
from connector.errors import ConnectorError, FailedPrecondition, TokenInvalid
from connector.logs import bind_call
from connector.metrics import Metrics
from connector.model.call import CallRequest
from connector.model.connector import ConnectorEntry
from connector.numbers import WITHHELD
from connector.routing import Arrival, Route, call_request, normal_number
from connector.sip.plan import RoomForCall
from connector.sip.provisioning import CallerTaken, SipProvisioning
from connector.sip.secrets import SipCredentials, SipSecrets
from connector.tokens import TokenSigner

log = structlog.get_logger()

PURPOSE = "connector sip report token v1"
REPORT_MARGIN = 3600.0
"""Seconds after the longest possible call during which its end may be reported."""
LONGEST_DIAL = 86400
"""Seconds: one day, Twilio's limit for a Dial."""


@dataclass(frozen=True, slots=True)
class SipParts:
    """Dependencies of mode `sip`, besides the calls."""

    endpoint: str
    """Empty if none is configured."""
    numbers: SipSecrets
    rooms: SipProvisioning
    admin: Admin
    max_duration: float
    """Seconds."""


class SipDialler:
    """See the module's docstring. `carrier` dials; `signer` must have the purpose PURPOSE."""

    def __init__(
        self,
        carrier: Carrier,
        calls: DialledCalls,
        parts: SipParts,
        signer: TokenSigner,
        signatures: SignatureCheck,
        metrics: Metrics,
    ) -> None:
        self._carrier = carrier
        self._calls = calls
        self._parts = parts
        self._signer = signer
        self._signatures = signatures
        self._metrics = metrics
        self._prepared: dict[str, Any] = {}
        """Rooms prepared for calls that are not answered yet; this is undone if the call is never answered."""

    async def dial(
        self, connector: ConnectorEntry, arrival: Arrival, call_id: str, origin: str, route: Route | None
    ) -> str:
        """Returns the TwiML. Raises ConnectorError if the number is not set up or LiveKit refuses the route."""
        if not self._parts.endpoint:
            raise FailedPrecondition("the connector is in mode sip, and CONNECTOR_SIP_ENDPOINT is not set")
        number = normal_number(arrival.to_number)
        credentials = await self._parts.numbers.of(number)
        try:
            uri = sip_uri(number, self._parts.endpoint)
        except ValueError as error:
            raise FailedPrecondition(str(error)) from None
        if await self._calls.is_over(call_id):
            raise FailedPrecondition("the call is over")
        request = call_request(arrival, route or Route(""), connector, call_id, "", connector.region or "")
        caller = _caller_id(request)
        if not request.dtmf:
            log.warning("the rule turns digits off, but LiveKit SIP passes them on", rule=request.rule_id)
        if route is not None:
            caller = await self._send_to_room(request, credentials, caller)
        await self._calls.announce(_named(request, caller))
        reports = f"{origin}/v2/hooks/sip/{self._token(call_id)}"
        log.info("incoming call is dialled to LiveKit SIP", room=request.room or None, rule=request.rule_id or None)
        return twilio_dial(
            SipDial(
                uri=uri,
                username=credentials.username,
                password=credentials.password,
                action=f"{reports}/ended",
                progress=f"{reports}/answered",
                caller_id="" if caller == arrival.from_number else caller,
                time_limit=min(max(round(self._parts.max_duration), 1), LONGEST_DIAL),
            )
        )

    def _token(self, call_id: str) -> str:
        return self._signer.mint(call_id, time.time() + self._parts.max_duration + REPORT_MARGIN)

    async def _send_to_room(self, request: CallRequest, credentials: SipCredentials, caller: str) -> str:
        """Creates the dispatch rule of this call. Returns the caller ID by which LiveKit recognises the call."""
        call_id, rooms = request.call_id, self._parts.rooms
        try:
            # The carrier may repeat its request: delete the rule of the first request.
            await rooms.forget_call(call_id)
            if call_id not in self._prepared:
                self._prepared[call_id] = await self._parts.admin.ensure_room(request.room, request.agents)
            try:
                await rooms.send_to_room(_room_for(request, credentials, caller))
            except CallerTaken:
                # The same caller has two calls at once. Use our call id to distinguish them; LiveKit then does not
                # see the caller's number.
                caller = call_id
                await rooms.send_to_room(_room_for(request, credentials, caller))
        except ConnectorError as error:
            await self._calls.announce(_named(request, caller))
            await self._calls.ended(call_id, "failed", 0.0, error.message)
            await self._undo(call_id)
            raise
        return caller

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_route("POST", "/v2/hooks/sip/{token}/answered", self._reported(self._answered))
        router.add_route("POST", "/v2/hooks/sip/{token}/ended", self._reported(self._ended))

    def _reported(self, handle: Any) -> Any:
        async def checked(request: web.Request) -> web.Response:
            try:
                form = await posted(request)
                self._signatures.require_webhook(self._carrier.provider, request, form.body, form.fields)
                call_id = self._signer.verify(request.match_info["token"], time.time())
                with bind_call(call_id):
                    return web.Response(
                        text=await handle(call_id, dict(form.fields)), content_type=self._carrier.document_type
                    )
            except ConnectorError as error:
                self._metrics.refused.labels("sip report", type(error).__name__).inc()
                log.warning("SIP report refused", error=error.message, status=error.http_status)
                return web.Response(status=error.http_status, text=f"{error.message}\n")

        return checked

    async def _answered(self, call_id: str, _: dict[str, str]) -> str:
        self._prepared.pop(call_id, None)
        await self._calls.answered(call_id)
        return self._carrier.hang_up()  # Twilio reads only the HTTP status of the response to a status callback.

    async def _ended(self, call_id: str, facts: dict[str, str]) -> str:
        """Returns the document after the dial has ended: a hang-up, or a sentence if the dial failed."""
        over = sip_dial_over(facts)
        if over is None:
            raise TokenInvalid("this URL is the action of a Dial, but the request has no result of a Dial")
        detail = "" if over.talked or not over.sip_code else f"LiveKit SIP answered {over.sip_code}"
        log.info("SIP dial ended", status=over.status, sip_status=over.sip_code or None)
        await self._calls.ended(call_id, "completed" if over.talked else over.status, over.seconds, detail)
        if over.talked:
            self._prepared.pop(call_id, None)
        await self._undo(call_id)
        if over.talked or over.status == "canceled":
            return self._carrier.hang_up()
        return self._carrier.refusal(BUSY if over.status == "busy" else SORRY)

    async def sweep(self) -> None:
        """Deletes the dispatch rules of ended calls: the last report of a call may be lost if no process ran."""
        for call_id in list(self._prepared):
            if await self._calls.is_over(call_id):
                self._prepared.pop(call_id, None)
        if not self._parts.endpoint:
            return
        for call_id in await self._parts.rooms.calls_with_rules():
            if await self._calls.is_over(call_id):
                await self._parts.rooms.forget_call(call_id)

    async def _undo(self, call_id: str) -> None:
        """Deletes the call's rule, and undoes the preparation of the room if the caller never joined."""
        prepared = self._prepared.pop(call_id, None)
        if prepared is not None:
            await self._parts.admin.undo(prepared)
        try:
            await self._parts.rooms.forget_call(call_id)
        except ConnectorError as error:
            log.warning("the call's dispatch rule could not be deleted", error=error.message)


def _named(request: CallRequest, caller: str) -> CallRequest:
    """Sets the identity that LiveKit SIP gives the caller. The room is empty if LiveKit's own rule chooses it."""
    return replace(request, participant=replace(request.participant, identity=f"sip_{caller}"))


def _caller_id(request: CallRequest) -> str:
    """The caller ID for LiveKit SIP: the number, or our call id if the number is missing or must be hidden."""
    hidden = request.hide_number or request.from_number == WITHHELD or not valid_caller_id(request.from_number)
    return request.call_id if hidden else request.from_number


def _room_for(request: CallRequest, credentials: SipCredentials, caller: str) -> RoomForCall:
    attributes = request.participant.attributes | {
        "connector.callId": request.call_id,
        "connector.provider": request.provider.value,
        "connector.direction": request.direction.value,
    }
    return RoomForCall(
        call_id=request.call_id,
        trunk_id=credentials.trunk_id,
        number=credentials.number,
        caller_id=caller,
        room=request.room,
        attributes=attributes,
    )
