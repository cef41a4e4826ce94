"""`POST /v2/hooks/{provider}/{key}`: a carrier announces a call, and is told in its own XML what to do with it.

The key finds the connector, the carrier's signature is checked, the call is routed (`connector.routing`), a PIN is
asked for where the rule has one, and the answer is a stream whose URL works once. A call that is refused hears a
sentence; the log has the reason. Carriers repeat a webhook that was not answered: one carrier call is one call.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
import secrets
import time
from dataclasses import dataclass, replace
from typing import Protocol
from urllib.parse import urlencode

import structlog
from aiohttp import web

from connector.api.carrier.forms import posted, require_no_event
from connector.api.carrier.pins import LOCK_OUT, TRIES, PinTries, right
from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.call.dependencies import BUSY, FINAL_STATUSES
from connector.call.registry.dialled import OWNER
from connector.call.registry.manager import Expected
from connector.carriers.carrier import Carrier, Carriers
from connector.carriers.facts import CallFacts, sip_headers
from connector.errors import (
    ConnectorError,
    ConnectUrlError,
    InvalidArgument,
    Malformed,
    NotFound,
    TokenInvalid,
    Unavailable,
)
from connector.logs import bind_call
from connector.metrics import Metrics
from connector.model import CallRecord, CallRequest, ConnectorEntry, ConnectorMode, RoutingRule, RuleType
from connector.numbers import WITHHELD
from connector.routing import Arrival, Diversion, Refusal, Route, call_request, diverted, find_route, normal_number
from connector.seal import is_sealed
from connector.storage.base import NameTaken, Store, StoreError
from connector.tokens import TokenSigner, WebhookKeys, stream_name

log = structlog.get_logger()

MAX_ROOM = 256
MOST_LEGS = 100
"""Of one carrier call, each of which is a call of ours."""
LEG_PATIENCE = 3.0
"""Seconds that a carrier waits for its answer while the leg before is being taken down; they give up after 15."""
REPEATED_LIFE = 90.0
"""Seconds after its beginning until which the answer of a call that streams already would be good."""
MAX_WAITING = 50
SORRY = "We are sorry, this call cannot be connected. Goodbye."
ASK_PIN = "Please enter your PIN, followed by the pound key."
WRONG_PIN = "That PIN is not correct. Please try again."
NO_MORE_TRIES = "That PIN is not correct. Goodbye."
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PIN_ARGUMENT = "pin_attempt"


class SipAnswers(Protocol):
    """For connectors in mode `sip`: the carrier is told to dial LiveKit SIP."""

    async def dial(
        self, connector: ConnectorEntry, arrival: Arrival, call_id: str, origin: str, route: Route | None
    ) -> str:
        """The carrier's XML. Without a route LiveKit's own dispatch rule for the number decides. Raises ConnectorError
        when the number is not set up."""
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
    def end_stream(self, call_id: str) -> None: ...
    def waiting_of(self, connector_id: str) -> int: ...
    async def carrier_said(self, call_id: str, status: str, number: int) -> object: ...


@dataclass(frozen=True, slots=True)
class Announced:
    """One webhook, checked."""

    connector: ConnectorEntry
    carrier: Carrier
    call: CallFacts
    arrival: Arrival
    call_id: str
    """Ours."""
    region: str
    """The configured one that serves the call; empty for the default origin."""
    pin_token: str
    url: str
    """Path and query as they came, without what we added."""
    rule_before: str = ""
    """The rule that took an earlier leg of the same carrier call: who has pressed its PIN is not asked again."""


class HookRoutes:
    """See the module."""

    def __init__(
        self,
        calls: IncomingCalls,
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
        """`max_waiting`: calls of one connector whose stream has not come; more hear the busy sentence."""
        self._calls = calls
        self._store = store
        self._keys = keys
        self._signer = signer
        self._pins = PinTries(signer, store)
        self._max_waiting = max_waiting
        self._origins = origins
        self._signatures = signatures
        self._metrics = metrics
        self._carriers = carriers
        self._sip = sip
        self._arriving: dict[str, tuple[str, asyncio.Task[str]]] = {}
        """Calls that are being made, by our id of the first leg, with the request's fingerprint: a second webhook waits
        for what the first one gets."""

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_route("POST", "/v2/hooks/{provider}/{key}", self.handle)
        router.add_route("*", "/v2/hooks/{provider}/{key}", self._not_allowed)

    async def _not_allowed(self, _: web.Request) -> web.Response:
        # What the documents' troubleshooting tables name first: the method in the console is not POST.
        log.warning("carrier webhook refused", error="the method is not POST; change it in the carrier's console")
        text = "this URL takes POST: set the webhook's method to HTTP POST in the carrier's console\n"
        return web.Response(status=405, text=text, headers={"Allow": "POST"})

    async def handle(self, request: web.Request) -> web.Response:
        connector: ConnectorEntry | None = None
        try:
            connector = await self._connector(request)
            announced = await self._announced(request, connector)
            with bind_call(announced.call_id, connector=announced.connector.id):
                text = await self._answer(announced)
        except ConnectorError as error:
            self._metrics.refused.labels("hook", type(error).__name__).inc()
            named = {"connector": connector.id} if connector else {}
            log.warning("carrier webhook refused", error=error.message, status=error.http_status, **named)
            return web.Response(status=error.http_status, text=f"{error.message}\n")
        return web.Response(text=text, content_type=announced.carrier.document_type)

    async def _connector(self, request: web.Request) -> ConnectorEntry:
        """Whose URL was asked for. Raises NotFound or StoreError."""
        key = request.match_info["key"]
        connector = await self._store.connectors.find(f"key:{WebhookKeys.hash(key)}")
        if connector is None or connector.provider.value != request.match_info["provider"]:
            raise NotFound("no connector has this webhook URL; copy it again from the connector")
        if not self._keys.fits(connector, key):
            raise NotFound("the secret has changed since this webhook URL was made; copy the connector's new one")
        return connector

    async def _announced(self, request: web.Request, connector: ConnectorEntry) -> Announced:
        """Who announces which call. Raises SignatureInvalid, Malformed or InvalidArgument."""
        form = await posted(request)
        self._signatures.require_webhook(connector.provider, request, form.body, form.fields)
        carrier = self._carriers[connector.provider]
        require_no_event(carrier, form)
        fields = dict(form.fields)
        call = carrier.call_facts(fields)
        if not call.call_id:
            raise Malformed("the form does not name a call")
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
            call_id=await self._call_id(connector.id, call.call_id, 1),
            region=self._origins.region(connector.region or "", call.from_country),
            pin_token=request.query.get(_PIN_ARGUMENT, ""),
            url=request.rel_url.raw_path + own,
        )

    async def _call_id(self, connector_id: str, carrier_call_id: str, leg: int) -> str:
        """Ours, of one leg of the carrier's call. While the secret is rotated, a process with the one before may have
        made the call, under another id."""
        name = carrier_call_id if leg == 1 else f"{carrier_call_id}#{leg}"
        newest, *before = self._keys.call_ids(connector_id, name)
        for call_id in before:
            try:
                await self._calls.expected(call_id)
            except TokenInvalid:
                continue
            except ConnectUrlError:
                pass  # It was, and is over or taken: it is that call all the same.
            return call_id
        return newest

    async def _answer(self, announced: Announced) -> str:
        """The XML for this call."""
        if announced.call.status in FINAL_STATUSES:
            # Plivo tells of a call's end at the answer URL, and others do where one URL is entered for both.
            for call_id in await self._legs(announced):
                await self._calls.carrier_said(call_id, announced.call.status, 0)
            log.info("carrier webhook tells of the call's end", status=announced.call.status)
            return announced.carrier.hang_up()
        first, delivery = announced.call_id, announced.arrival.delivery
        while (running := self._arriving.get(first)) is not None:
            if running[0] == delivery:
                return await asyncio.shield(running[1])
            # Requests of one carrier call take turns: which leg this one is, that one decides.
            await asyncio.wait([running[1]])
        # A task, so that a carrier that gives up and asks again finds the call that it asked for first.
        arriving = asyncio.create_task(self._arrive_on_leg(announced), name=f"arrive {first}")
        self._arriving[first] = (delivery, arriving)
        arriving.add_done_callback(lambda task: self._arrived(first, task))
        return await asyncio.shield(arriving)

    async def _legs(self, announced: Announced) -> list[str]:
        """Our ids of all legs of a carrier call so far; of one that is not known the first."""
        found = [announced.call_id]
        for leg in range(2, MOST_LEGS):
            call_id = await self._call_id(announced.connector.id, announced.call.call_id, leg)
            try:
                await self._calls.expected(call_id)
            except TokenInvalid:
                break
            except ConnectUrlError:
                pass
            found.append(call_id)
        return found

    def _arrived(self, call_id: str, task: asyncio.Task[str]) -> None:
        del self._arriving[call_id]
        if not task.cancelled():
            task.exception()  # Whoever still waits is told.

    async def _arrive_on_leg(self, announced: Announced) -> str:
        """A carrier call that comes back, when its stream is over or is being moved away, is a new leg: a call of its
        own, routed afresh. A request that was delivered before gets the same answer."""
        for leg in range(1, MOST_LEGS):
            call_id = await self._call_id(announced.connector.id, announced.call.call_id, leg)
            announced = replace(announced, call_id=call_id)
            with bind_call(call_id):
                told = await self._told_before(announced)
                if told is not None:
                    return told or await self._arrive(announced)
                record = await self._store.get_call(call_id)
                announced = replace(announced, rule_before=record.rule_id if record else announced.rule_before)
                log.info("the carrier call comes back: a new leg", legs=leg)
        log.warning("the carrier call comes back too often", legs=MOST_LEGS)
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
        """The answer that this leg got already, while its stream has not come, or to a request that was delivered
        before; empty for a new call, None for one that is over."""
        try:
            expected = await self._calls.expected(announced.call_id)
        except TokenInvalid:
            return ""
        except ConnectUrlError:
            return await self._told_of(announced)
        if math.isinf(expected.deadline):
            return await self._told_of(announced)
        log.info("carrier webhook repeated: the same answer")
        return self._stream(announced, expected.deadline, expected.stream)

    async def _told_of(self, announced: Announced) -> str | None:
        """The same of a leg that has had its stream."""
        call_id, delivery = announced.call_id, announced.arrival.delivery
        record = await self._store.get_call(call_id)
        is_same = record is not None and record.delivery == delivery
        if is_same and record is not None and (delivery.startswith(_NAMED) or record.owner == OWNER):
            if record.owner == OWNER and record.end_reason is None:
                return ""  # Mode `sip`: dialled once more, as the same call.
            return self._same_answer(announced, record)
        # First: the end of the stream may be seen after this request, and on another process.
        await self._calls.phone_is_back(call_id)
        if await self._calls.until_over(call_id, LEG_PATIENCE):
            return None
        if is_same and record is not None:
            await self._calls.phone_has_stayed(call_id)
            return self._same_answer(announced, record)
        log.warning("the carrier asks for another document, and the stream goes on")
        if announced.carrier.stream_outlives_document:
            self._calls.end_stream(call_id)
        return None

    def _same_answer(self, announced: Announced, record: CallRecord) -> str:
        log.info("carrier webhook delivered again: the same answer")
        return self._stream(announced, record.created_at + REPEATED_LIFE)

    async def _route(self, announced: Announced) -> tuple[Route | Refusal, RoutingRule | None]:
        connector, arrival = announced.connector, announced.arrival
        called = f"{RuleType.INBOUND.value}:{normal_number(arrival.to_number)}"
        by_number = await self._store.rules.find(called)
        by_default = await self._store.rules.get(connector.default_rule_id) if connector.default_rule_id else None
        route = find_route(arrival, connector, by_number, by_default, _new_name)
        if not isinstance(route, Diversion):
            return route, by_number or by_default
        other = await self._store.rules.get(route.rule_id)
        if other is None or other.type is not RuleType.INBOUND:
            log.warning("the rule for blocked callers does not exist, or is outbound", rule=route.rule_id)
        log.info("incoming call diverted", rule=route.rule_id, blocked_by=route.blocked_by.id)
        return diverted(arrival, other, _new_name), route.blocked_by

    def _reject(self, announced: Announced, reason: str, rule: RoutingRule | None) -> str:
        """Before the answer, without a word."""
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
        """A sentence for the caller; the reason for the operator."""
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
        """The question for the PIN, or the refusal after the third wrong one; empty when the PIN is right."""
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
        log.info("PIN asked for", wrong=tried)
        more = urlencode({_PIN_ARGUMENT: self._pins.mint(announced.call_id, tried, now)})
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
            # A URL that leaked, or a carrier that streams to nowhere, must not take the place of all other calls.
            reason = f"{waiting} calls of this connector wait for their stream, its configured maximum"
            return self._refuse(announced, "too_many_waiting", reason, route.rule, BUSY)
        try:
            call = await self._calls.create(request)
        except NameTaken:
            # The same webhook, at another process, was a moment quicker; and may have given the call up by now.
            told = await self._told_before(announced)
            return told or self._refuse(announced, "given_up", "another process gave the call up", route.rule, BUSY)
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


_NAMED = "id:"


def _fingerprint(request: web.Request, body: bytes, header: str) -> str:
    """The same for each delivery of one request. Some carriers name it in a header; of the others the body has to do,
    which a later request of the same call may have too."""
    name = request.headers.get(header, "") if header else ""
    if name:
        return _NAMED + hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    return "body:" + hashlib.sha256(request.path_qs.encode("utf-8", "surrogatepass") + b"\n" + body).hexdigest()[:32]


def _new_name() -> str:
    """A room's name as VideoSDK's are, longer: four characters, four times. Without vowels it never is a word."""
    letters = "bcdfghjklmnpqrstvwxyz0123456789"
    return "-".join("".join(secrets.choice(letters) for _ in range(4)) for _ in range(4))
