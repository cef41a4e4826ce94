"""The connect_url: an HTTP request gets the carrier's XML; a WebSocket carries the audio of the call.

``/<carrier>?ref=<token>``, or ``/<carrier>/<token>`` for a carrier that removes the query. The other carriers may use
the second form too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial

import structlog
from aiohttp import web

from connector.api.carrier.carrier_requests import CarrierRequests, document
from connector.api.carrier.forms import require_no_event
from connector.api.carrier.media_socket import MediaSocket, new_websocket
from connector.api.carrier.stream_passing import StreamPassing
from connector.api.resume_urls import HEADER
from connector.call.dependencies import FINAL_STATUSES
from connector.call.registry.manager import CallManager, Expected
from connector.call.registry.reports import CarrierReports
from connector.call.session.call_session import CallSession
from connector.carriers.carrier import Carrier
from connector.carriers.facts import CallFacts
from connector.carriers.resume_url import resume_url
from connector.errors import ConnectorError, ConnectUrlError, SignatureInvalid, TokenInvalid
from connector.logs import bind_call
from connector.model.call import CallState
from connector.model.end_reason import EndReason
from connector.model.provider import Provider
from connector.storage.base import Store
from connector.tasks import BackgroundTasks
from connector.tokens import TokenSigner, stream_named

log = structlog.get_logger()

_Handler = Callable[[Carrier, web.Request], Awaitable[web.StreamResponse]]

CHECK_PATH = "/twilio/check"
"""`connector doctor` opens a WebSocket here to check that the proxies in front of the service let WebSockets pass."""


@dataclass(frozen=True, slots=True)
class Words:
    """Greetings in the answer document."""

    greetings: Mapping[Provider, str]
    placed_greeting: str
    """Greeting of calls that this service places itself: only a greeting that an operator has set, never LiveKit's
    default."""


class ConnectUrl:
    """Serves the connect_urls of all carriers. `saying` verifies the tokens that contain sentences."""

    def __init__(
        self,
        calls: CallManager,
        reports: CarrierReports,
        store: Store,
        saying: TokenSigner,
        words: Words,
        requests: CarrierRequests,
        passing: StreamPassing,
    ) -> None:
        self._calls = calls
        self._reports = reports
        self._store = store
        self._saying = saying
        self._words = words
        self._requests = requests
        self._passing = passing
        self._carrying = BackgroundTasks()

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_route("GET", CHECK_PATH, _check)
        for carrier in self._requests.carriers.values():
            base = f"/{carrier.provider.value}"
            for path in (f"{base}/{{token}}", *([] if carrier.cuts_queries else [base])):
                self._add(router, path, carrier, self._handle)
            if carrier.places_calls:
                router.add_route("POST", f"{base}/{{token}}/status", partial(self._status, carrier))
            if carrier.fetches_sentences:
                self._add(router, f"{base}/{{token}}/say", carrier, self._say)

    def _add(self, router: web.UrlDispatcher, path: str, carrier: Carrier, handle: _Handler) -> None:
        for method in ("GET", "POST"):
            router.add_route(method, path, self._of(carrier, handle))

    def _of(self, carrier: Carrier, handle: _Handler) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        """Wraps `handle`: binds the call id to the log, and turns errors into the carrier's refusal document."""

        async def handler(request: web.Request) -> web.StreamResponse:
            with self._in_the_log_of_its_call(request):
                try:
                    return await handle(carrier, request)
                except ConnectorError as error:
                    at = "stream" if _wants_socket(request) else "answer"
                    self._requests.metrics.refused.labels(at, type(error).__name__).inc()
                    log.warning("connect_url refused", at=at, error=error.message, status=error.http_status)
                    return _refusal(carrier, error)

        return handler

    def _in_the_log_of_its_call(self, request: web.Request) -> AbstractContextManager[None]:
        try:
            call_id, _ = stream_named(self._requests.streams.peek(_token(request))[0])
        except TokenInvalid:
            return nullcontext()
        return bind_call(call_id)

    async def _handle(self, carrier: Carrier, request: web.Request) -> web.StreamResponse:
        if _wants_socket(request):
            return await self._stream(carrier.provider, request)
        return await self._answer(carrier, request)

    async def _answer(self, carrier: Carrier, request: web.Request) -> web.Response:
        form = await self._requests.form(carrier, request)
        require_no_event(carrier, form)
        wanted = (await self._verified(carrier.provider, request)).request
        facts = carrier.call_facts(dict(form.fields) or dict(request.query))
        await self._calls.fetched(wanted.call_id, facts.call_id, facts.from_number, facts.to_number, facts.account_id)
        url = carrier.stream_url(self._requests.origins.pick(wanted.region), _token(request))
        words = self._words
        greeting = words.placed_greeting if wanted.placed else words.greetings[carrier.provider]
        response = document(carrier, carrier.stream_answer(url, greeting))
        response.headers[HEADER] = resume_url(url)
        return response

    async def _stream(self, provider: Provider, request: web.Request) -> web.StreamResponse:
        self._requests.signatures.require_handshake(provider, request)
        expected = await self._verified(provider, request)
        websocket = new_websocket()
        if not websocket.can_prepare(request).ok:
            return web.Response(status=400, text="this is not a WebSocket handshake\n")
        _, number = stream_named(self._requests.streams.peek(_token(request))[0])
        if self._passing.pass_on(request, expected.holder):
            # The other process answers. The connection is closed here, so this response is not sent.
            return web.Response()
        call = await self._calls.claim(expected.request.call_id, number)
        try:
            await websocket.prepare(request)
        except BaseException as error:
            call.returns.lose(EndReason.CARRIER_LOST, f"the WebSocket handshake failed: {type(error).__name__}")
            raise
        # A lost connection cancels this handler. The call must not be cancelled: its socket reports how it ended.
        carrying = call.carry(MediaSocket(websocket, request))
        await asyncio.shield(self._carrying.start(carrying, f"carry {call.call_id}"))
        return websocket

    async def _say(self, carrier: Carrier, request: web.Request) -> web.Response:
        """Returns the document with a sentence and a hang-up, which this carrier fetches. The token contains the
        sentence."""
        await self._requests.form(carrier, request)
        return document(carrier, carrier.farewell(self._saying.verify(_token(request), time.time())))

    async def _status(self, carrier: Carrier, request: web.Request) -> web.Response:
        """Handles the status callback of a call that this service placed. The carrier signs it; our token in the URL
        identifies the call."""
        try:
            if not self._requests.signatures.signs(carrier.provider):
                setting, several = carrier.signing_setting, carrier.account_rules.setting
                raise SignatureInvalid(f"status callbacks need {setting} or {several}")
            form = await self._requests.form(carrier, request)
            call_id, _ = self._requests.streams.peek(_token(request))
            await self._report(call_id, carrier.call_facts(dict(form.fields)))
        except ConnectorError as error:
            self._requests.metrics.refused.labels("status", type(error).__name__).inc()
            log.warning("status callback refused", error=error.message, status=error.http_status)
            return web.Response(status=error.http_status, text=f"{error.message}\n")
        return web.Response(status=204)

    async def _report(self, call_id: str, facts: CallFacts) -> None:
        status = facts.status
        with bind_call(call_id):
            log.info("carrier status", status=status)
            call = await self._reports.status(call_id, status, facts.report_number)
            if call is not None and call.state is not CallState.ENDED:
                return
            if isinstance(call, CallSession):
                # Teardown is running; the call's record may already be written.
                await call.finished.wait()
            await self._keep(call_id, status)

    async def _keep(self, call_id: str, status: str) -> None:
        """Writes the status into the record of a call that has ended, or whose process could not be asked."""
        while True:
            record = await self._store.get_call(call_id)
            if record is None:
                raise TokenInvalid("no such call")
            # Status callbacks may arrive out of order: after the end, only a final status is relevant.
            if status not in FINAL_STATUSES or record.carrier_status == status:
                return
            if await self._store.change_call(record, replace(record, carrier_status=status)):
                return

    async def _verified(self, provider: Provider, request: web.Request) -> Expected:
        """Verifies the token and returns its call. The call's current deadline applies, because a
        fetch may have extended it. Any process that shares the store can do this, not only the owner."""
        token = _token(request)
        call_id, stream = stream_named(self._requests.streams.peek(token)[0])
        expected = await self._calls.expected(call_id, stream)
        if expected.request.provider is not provider:
            raise TokenInvalid("this connect_url belongs to another carrier")
        self._requests.streams.verify(token, time.time(), extended_until=expected.deadline)
        return expected


async def _check(request: web.Request) -> web.StreamResponse:
    """Opens and closes a WebSocket; it touches no call."""
    websocket = new_websocket()
    if not websocket.can_prepare(request).ok:
        return web.Response(status=426, headers={"Upgrade": "websocket"}, text="this is not a WebSocket handshake\n")
    await websocket.prepare(request)
    await websocket.close(message=b"connector")
    return websocket


def _token(request: web.Request) -> str:
    return request.match_info.get("token") or request.query.get("ref", "")


def _wants_socket(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _refusal(carrier: Carrier, error: ConnectorError) -> web.Response:
    """Returns a hang-up document for a bad connect_url: otherwise the carrier would read an error message to the
    callee."""
    if isinstance(error, ConnectUrlError):
        return document(carrier, carrier.hang_up(), error.http_status)
    return web.Response(status=error.http_status, text=f"{error.message}\n")
