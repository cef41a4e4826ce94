"""`POST /v2/hooks/{provider}/{key}`: a carrier announces an incoming call; the response is the carrier's XML.

Steps: find the connector by the key, check the carrier's signature, route the call (`connector.routing`), ask for a
PIN if the rule has one, and answer with a media stream and its single-use URL. A refused caller hears a sentence; the
log has the reason. Carriers send an unanswered webhook again: a repeated webhook must not create a second call.
"""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from dataclasses import replace
from typing import Protocol
from urllib.parse import urlencode

import structlog
from aiohttp import web

from connector.api.carrier.announced import MOST_LEGS, PIN_ARGUMENT, Announced, CarrierCallLegs, WebhookReader
from connector.api.carrier.pins import LOCK_OUT, TRIES, PinTries, right
from connector.api.carrier.sentences import ASK_PIN, NO_MORE_TRIES, SORRY, WRONG_PIN
from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.call.dependencies import BUSY, FINAL_STATUSES
from connector.call.registry.dialled import OWNER
from connector.call.registry.manager import Expected
from connector.carriers.carrier import Carriers
from connector.errors import (
    ConnectorError,
    ConnectUrlError,
    TokenInvalid,
    Unavailable,
)
from connector.logs import bind_call
from connector.metrics import Metrics
from connector.model.call import CallRecord, CallRequest
from connector.model.connector import ConnectorEntry, ConnectorMode
from connector.model.rule import RoutingRule, RuleType
from connector.routing import Arrival, Diversion, Refusal, Route, call_request, diverted, find_route, normal_number
from connector.seal import is_sealed
from connector.storage.base import NameTaken, Store, StoreError
from connector.tokens import TokenSigner, WebhookKeys, stream_name

log = structlog.get_logger()

LEG_PATIENCE = 3.0
"""Seconds that the answer may wait for the teardown of the previous leg. Carriers give up after 15 s."""
REPEATED_LIFE = 90.0
"""Lifetime in seconds, from the start of the call, of the token in a repeated answer for a call that already
streams."""
MAX_WAITING = 50


class SipAnswers(Protocol):
    """Answers for connectors in mode `sip`: the XML tells the carrier to dial LiveKit SIP."""

    async def dial(
        self, connector: ConnectorEntry, arrival: Arrival, call_id: str, origin: str, route: Route | None
    ) -> str:
        """Returns the carrier's XML. Without a route, LiveKit's own dispatch rule for the number chooses the room.
        Raises ConnectorError if the number is not set up."""
        ...


class AdmittedCall(Protocol):
    """See `connector.call.session.call_session.CallSession`."""

    @property
    def deadline(self) -> float: ...


class IncomingCalls(Protocol):
    """See `connector.call.registry.manager.CallManager`."""

    async def create(self, request: CallRequest) -> AdmittedCall: ...
    async def expected(self, call_id: str) -> Expected: ...
    async def until_over(self, call_id: str, seconds: float) -> bool: ...
    async def phone_is_back(self, call_id: str) -> None: ...
    async def phone_has_stayed(self, call_id: str) -> None: ...
    def waiting_of(self, connector_id: str) -> int: ...


class Reports(Protocol):
    """See `connector.call.registry.reports.CarrierReports`."""

    async def status(self, call_id: str, status: str, number: int) -> object: ...
    async def end_stream(self, call_id: str) -> None: ...


class HookRoutes:
    """Handles the webhooks; see the module's docstring."""

    def __init__(
        self,
        calls: IncomingCalls,
        reports: Reports,
        store: Store,
        keys: WebhookKeys,
        signer: TokenSigner,
        origins: Origins,
        signatures: SignatureCheck,
        metrics: Metrics,
        carriers: Carriers,
        sip: SipAnswers | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """`max_waiting`: limit of calls per connector that wait for their stream; callers above it hear the busy
        sentence."""
        self._calls = calls
        self._reports = reports
        self._store = store
        self._signer = signer
        self._pins = PinTries(signer, store)
        self._max_waiting = max_waiting
        self._origins = origins
        self._metrics = metrics
        self._legs = CarrierCallLegs(calls, keys)
        self._webhooks = WebhookReader(store, keys, self._legs, origins, signatures, carriers)
        self._sip = sip
        self._arriving: dict[str, tuple[str, asyncio.Task[str]]] = {}
        """Webhooks in progress: our id of the first leg -> the request's fingerprint and the task that answers it. A
        repeated webhook waits for the result of the first one."""

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_route("POST", "/v2/hooks/{provider}/{key}", self.handle)
        router.add_route("*", "/v2/hooks/{provider}/{key}", self._not_allowed)

    async def _not_allowed(self, _: web.Request) -> web.Response:
        # A wrong method in the carrier's console is the first entry of the troubleshooting tables in the docs.
        log.warning("carrier webhook refused", error="the method is not POST; change it in the carrier's console")
        text = "this URL takes POST: set the webhook's method to HTTP POST in the carrier's console\n"
        return web.Response(status=405, text=text, headers={"Allow": "POST"})

    async def handle(self, request: web.Request) -> web.Response:
        connector: ConnectorEntry | None = None
        try:
            connector = await self._webhooks.connector(request)
            announced = await self._webhooks.read(request, connector)
            with bind_call(announced.call_id, connector=announced.connector.id):
                text = await self._answer(announced)
        except ConnectorError as error:
            self._metrics.refused.labels("hook", type(error).__name__).inc()
            named = {"connector": connector.id} if connector else {}
            log.warning("carrier webhook refused", error=error.message, status=error.http_status, **named)
            return web.Response(status=error.http_status, text=f"{error.message}\n")
        return web.Response(text=text, content_type=announced.carrier.document_type)

    async def _answer(self, announced: Announced) -> str:
        """Returns the carrier's XML for this call."""
        if announced.call.status in FINAL_STATUSES:
            # Plivo reports the end of a call to the answer URL. Other carriers do so if the same URL is configured as
            # answer URL and status callback.
            for call_id in await self._legs.known(announced.connector.id, announced.call.call_id):
                await self._reports.status(call_id, announced.call.status, 0)
            log.info("carrier webhook reports the end of the call", status=announced.call.status)
            return announced.carrier.hang_up()
        first, delivery = announced.call_id, announced.arrival.delivery
        while (running := self._arriving.get(first)) is not None:
            if running[0] == delivery:
                return await asyncio.shield(running[1])
            # Requests of one carrier call run one after another: the leg of this one depends on the one before.
            await asyncio.wait([running[1]])
        # Runs as a task: if the carrier gives up and sends the webhook again, it gets the result of this one.
        arriving = asyncio.create_task(self._arrive_on_leg(announced), name=f"arrive {first}")
        self._arriving[first] = (delivery, arriving)
        arriving.add_done_callback(lambda task: self._arrived(first, task))
        return await asyncio.shield(arriving)

    def _arrived(self, call_id: str, task: asyncio.Task[str]) -> None:
        del self._arriving[call_id]
        if not task.cancelled():
            task.exception()  # Marks it as retrieved; requests that still wait get the exception themselves.

    async def _arrive_on_leg(self, announced: Announced) -> str:
        """Finds the leg of this webhook. If the carrier asks again after the stream has ended or while it is being
        moved away, this is a new leg: a separate call, routed again. A repeated request gets the same answer."""
        for leg in range(1, MOST_LEGS):
            call_id = await self._legs.call_id(announced.connector.id, announced.call.call_id, leg)
            announced = replace(announced, call_id=call_id)
            with bind_call(call_id):
                told = await self._told_before(announced)
                if told is not None:
                    return told or await self._arrive(announced)
                record = await self._store.get_call(call_id)
                announced = replace(announced, rule_before=record.rule_id if record else announced.rule_before)
                log.info("the carrier call has come back; it is routed as a new call", legs=leg)
        log.warning("the carrier call has come back too often; it is refused", legs=MOST_LEGS)
        return announced.carrier.refusal(SORRY)

    async def _arrive(self, announced: Announced) -> str:
        route, by_number = await self._route(announced)
        by_sip = announced.connector.mode is ConnectorMode.SIP
        if route is Refusal.BLOCKED:
            return self._reject(announced, route.value, by_number)
        if by_sip and route is Refusal.NO_ROUTE:
            return await self._dial(announced, None)
        if isinstance(route, Refusal):
            return self._refuse(announced, route.name.lower(), route.value, by_number)
        if is_sealed(route.pin):
            return self._refuse(announced, "pin_unknown", "the rule's PIN was sealed with another secret", route.rule)
        if route.pin and not (route.rule and route.rule.id == announced.rule_before):
            question = await self._ask(announced, route)
            if question:
                return question
        if by_sip:
            return await self._dial(announced, route)
        return await self._create(announced, route)

    async def _told_before(self, announced: Announced) -> str | None:
        """Returns the earlier answer of this leg if its stream has not arrived yet or if the request is a repeated
        delivery. An empty string means that the call is new; None, that the leg has ended."""
        try:
            expected = await self._calls.expected(announced.call_id)
        except TokenInvalid:
            return ""
        except ConnectUrlError:
            return await self._told_of(announced)
        if math.isinf(expected.deadline):
            return await self._told_of(announced)
        log.info("carrier webhook repeated; same answer sent")
        return self._stream(announced, expected.deadline, expected.stream)

    async def _told_of(self, announced: Announced) -> str | None:
        """As `_told_before`, for a leg that already had its stream."""
        call_id, delivery = announced.call_id, announced.arrival.delivery
        record = await self._store.get_call(call_id)
        is_same = record is not None and record.delivery == delivery
        if is_same and record is not None and (announced.has_request_id or record.owner == OWNER):
            if record.owner == OWNER and record.end_reason is None:
                return ""  # Mode `sip`: dial again, as the same call.
            return self._same_answer(announced, record)
        # Before the wait: this process may notice the end of the stream after this request, or another process may.
        await self._calls.phone_is_back(call_id)
        if await self._calls.until_over(call_id, LEG_PATIENCE):
            return None
        if is_same and record is not None:
            await self._calls.phone_has_stayed(call_id)
            return self._same_answer(announced, record)
        log.warning("the carrier requests another document although the stream is still open")
        if announced.carrier.stream_outlives_document:
            await self._reports.end_stream(call_id)
        return None

    def _same_answer(self, announced: Announced, record: CallRecord) -> str:
        log.info("carrier webhook delivered twice; same answer sent")
        return self._stream(announced, record.created_at + REPEATED_LIFE)

    async def _route(self, announced: Announced) -> tuple[Route | Refusal, RoutingRule | None]:
        connector, arrival = announced.connector, announced.arrival
        called = f"{RuleType.INBOUND.value}:{normal_number(arrival.to_number)}"
        by_number = await self._store.rules.find(called)
        by_default = await self._store.rules.get(connector.default_rule_id) if connector.default_rule_id else None
        route = find_route(arrival, connector, by_number, by_default, new_room_name)
        if not isinstance(route, Diversion):
            return route, by_number or by_default
        other = await self._store.rules.get(route.rule_id)
        if other is None or other.type is not RuleType.INBOUND:
            log.warning("the rule for blocked callers does not exist, or is outbound", rule=route.rule_id)
        log.info("incoming call diverted", rule=route.rule_id, blocked_by=route.blocked_by.id)
        return diverted(arrival, other, new_room_name), route.blocked_by

    def _reject(self, announced: Announced, reason: str, rule: RoutingRule | None) -> str:
        """Rejects the call before it is answered; the caller hears no sentence."""
        self._metrics.refused.labels("hook", "blocked").inc()
        hidden = rule is not None and rule.hide_phone_number
        log.info(
            "incoming call rejected",
            reason=reason,
            to=normal_number(announced.arrival.to_number),
            rule=rule.id if rule else None,
            **({} if hidden else {"from": normal_number(announced.arrival.from_number)}),
        )
        return announced.carrier.reject()

    def _refuse(self, announced: Announced, why: str, reason: str, rule: RoutingRule | None, say: str = SORRY) -> str:
        """Says a sentence to the caller and logs the reason for the operator."""
        arrival = announced.arrival
        hidden = rule is not None and rule.hide_phone_number
        self._metrics.refused.labels("hook", why).inc()
        log.warning(
            "incoming call refused",
            reason=reason,
            to=normal_number(arrival.to_number),
            rule=rule.id if rule else None,
            **({} if hidden else {"from": normal_number(arrival.from_number)}),
        )
        return announced.carrier.refusal(say)

    async def _ask(self, announced: Announced, route: Route) -> str:
        """Returns the XML that asks for the PIN, or the refusal after the third wrong PIN; an empty string if the PIN
        is right."""
        now, prompt, tried = time.time(), ASK_PIN, 0
        rule_id = route.rule.id if route.rule else ""
        caller = normal_number(announced.arrival.from_number)
        if await self._pins.locked_out(rule_id, caller, now):
            reason = f"{TRIES} wrong PINs of this caller within {LOCK_OUT:.0f} s"
            return self._refuse(announced, "locked_out", reason, route.rule, NO_MORE_TRIES)
        if announced.pin_token:
            tried, digits = self._pins.tried(announced.pin_token, announced.call_id, now), announced.call.digits
            if right(route.pin, digits):
                await self._pins.forgive(rule_id, caller)
                return ""
            wrong = await self._pins.wrong(rule_id, caller, f"{announced.call_id}:{tried}", now) if digits else 0
            tried, prompt = tried + 1, WRONG_PIN
            if max(tried, wrong) >= TRIES:
                return self._refuse(announced, "wrong_pin", f"{TRIES} wrong PINs", route.rule, NO_MORE_TRIES)
        log.info("PIN requested", wrong=tried)
        more = urlencode({PIN_ARGUMENT: self._pins.mint(announced.call_id, tried, now)})
        url = f"{self._origin(announced)}{announced.url}{'&' if '?' in announced.url else '?'}{more}"
        return announced.carrier.ask_pin(url, prompt, len(route.pin))

    async def _dial(self, announced: Announced, route: Route | None) -> str:
        try:
            if self._sip is None:
                raise Unavailable("the connector is in mode sip, and no SIP endpoint is configured")
            origin = self._origin(announced)
            return await self._sip.dial(announced.connector, announced.arrival, announced.call_id, origin, route)
        except ConnectorError as error:
            return self._refuse(announced, type(error).__name__, error.message, route.rule if route else None)

    async def _create(self, announced: Announced, route: Route) -> str:
        identity = f"{announced.arrival.provider.value}_{announced.call_id[-12:]}"
        request = call_request(
            announced.arrival, route, announced.connector, announced.call_id, identity, announced.region
        )
        waiting = self._calls.waiting_of(announced.connector.id)
        if waiting >= self._max_waiting:
            # A leaked URL, or a carrier that cannot reach the stream URL, must not use up the capacity for all calls.
            reason = f"{waiting} calls of this connector are waiting for their stream, which is the configured maximum"
            return self._refuse(announced, "too_many_waiting", reason, route.rule, BUSY)
        try:
            call = await self._calls.create(request)
        except NameTaken:
            # Another process got the same webhook slightly earlier. It may already have given the call up.
            told = await self._told_before(announced)
            return told or self._refuse(
                announced, "given_up", "another process ended the waiting call", route.rule, BUSY
            )
        except StoreError:
            raise
        except ConnectorError as error:
            return self._refuse(announced, type(error).__name__, error.message, route.rule, BUSY)
        return self._stream(announced, call.deadline)

    def _stream(self, announced: Announced, deadline: float, stream: int = 1) -> str:
        token = self._signer.mint(stream_name(announced.call_id, stream), deadline)
        return announced.carrier.stream_answer(announced.carrier.stream_url(self._origin(announced), token))

    def _origin(self, announced: Announced) -> str:
        return self._origins.pick(announced.region)


def new_room_name() -> str:
    """A random room name in the style of VideoSDK, but longer: four groups of four characters. There are no vowels,
    so that it never contains a word."""
    letters = "bcdfghjklmnpqrstvwxyz0123456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))
