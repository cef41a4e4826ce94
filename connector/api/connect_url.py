"""The connect_url: over http(s) it answers with the carrier's XML, as a WebSocket it carries the call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from urllib.parse import parse_qsl

import structlog
from aiohttp import web

from connector.api.media import MediaSocket, new_websocket
from connector.api.service import ConnectorService
from connector.call.manager import CallManager
from connector.call.terms import FINAL_STATUSES
from connector.carriers import answers
from connector.carriers.signatures import twilio_signature_valid
from connector.errors import ConnectorError, ConnectUrlError, Malformed, SignatureInvalid, TokenInvalid
from connector.logs import bind_call
from connector.metrics import Metrics
from connector.model import CallState, EndReason, Provider
from connector.storage.base import Store
from connector.tokens import TokenSigner

log = structlog.get_logger()

MAX_FORM = 64 * 1024
MAX_FIELDS = 1000
MAX_LEARNED = 128
"""Characters of a CallSid or number that are kept; real ones are far shorter."""


class TwilioConnectUrl:
    """`/twilio/<token>`. `auth_token` empty: signatures are not checked."""

    def __init__(
        self,
        calls: CallManager,
        store: Store,
        signer: TokenSigner,
        service: ConnectorService,
        metrics: Metrics,
        public_origin: str,
        greeting: str,
        auth_token: str,
    ) -> None:
        self._calls = calls
        self._store = store
        self._signer = signer
        self._service = service
        self._metrics = metrics
        self._public_origin = public_origin
        self._greeting = greeting
        self._auth_token = auth_token
        self._carrying: set[asyncio.Task[None]] = set()

    def add_to(self, router: web.UrlDispatcher) -> None:
        router.add_route("GET", "/twilio/{token}", self.handle)
        router.add_route("POST", "/twilio/{token}", self.handle)
        router.add_route("POST", "/twilio/{token}/status", self.status)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        with self._in_the_log_of_its_call(request):
            return await self._handle(request)

    def _in_the_log_of_its_call(self, request: web.Request) -> AbstractContextManager[None]:
        try:
            call_id, _ = self._signer.peek(request.match_info["token"])
        except TokenInvalid:
            return nullcontext()
        return bind_call(call_id)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        wants_socket = request.headers.get("Upgrade", "").lower() == "websocket"
        try:
            if wants_socket:
                return await self._stream(request)
            return await self._answer(request)
        except ConnectorError as error:
            at = "stream" if wants_socket else "answer"
            self._metrics.refused.labels(at, type(error).__name__).inc()
            log.warning("connect_url refused", at=at, error=error.message, status=error.http_status)
            return _refusal(error)

    async def _answer(self, request: web.Request) -> web.Response:
        form = await _form(request)
        self._check_signature(self._public_origin.split("://", 1)[0], request, form)
        call_id = await self._verified(request)
        facts = dict(form) or dict(request.query)
        await self._calls.fetched(call_id, _learned(facts, "CallSid"), _learned(facts, "From"), _learned(facts, "To"))
        url = self._service.connect_url(Provider.TWILIO, request.match_info["token"])
        return web.Response(text=answers.stream_answer(Provider.TWILIO, url, self._greeting), content_type="text/xml")

    async def _stream(self, request: web.Request) -> web.StreamResponse:
        self._check_signature("wss" if self._public_origin.startswith("https") else "ws", request, ())
        call_id = await self._verified(request)
        websocket = new_websocket()
        if not websocket.can_prepare(request).ok:
            return web.Response(status=400, text="this is not a WebSocket handshake\n")
        call = await self._calls.claim(call_id)
        try:
            await websocket.prepare(request)
        except BaseException as error:
            call.end(EndReason.CARRIER_LOST, f"the WebSocket handshake failed: {type(error).__name__}")
            raise
        # A lost connection cancels this handler; how the call ended is all the same for the socket to say.
        carrying = asyncio.create_task(call.carry(MediaSocket(websocket, request)), name=f"carry {call.call_id}")
        self._carrying.add(carrying)
        carrying.add_done_callback(self._carrying.discard)
        await asyncio.shield(carrying)
        return websocket

    async def status(self, request: web.Request) -> web.Response:
        """Twilio's status callback of a call that this connector placed. Signed by Twilio, named by our token."""
        try:
            if not self._auth_token:
                raise SignatureInvalid("status callbacks need TWILIO_AUTH_TOKEN")
            form = await _form(request)
            self._check_signature(self._public_origin.split("://", 1)[0], request, form, "/status")
            call_id, _ = self._signer.peek(request.match_info["token"])
            await self._report(call_id, dict(form))
        except ConnectorError as error:
            self._metrics.refused.labels("status", type(error).__name__).inc()
            log.warning("status callback refused", error=error.message, status=error.http_status)
            return web.Response(status=error.http_status, text=f"{error.message}\n")
        return web.Response(status=204)

    async def _report(self, call_id: str, facts: dict[str, str]) -> None:
        status, number = _learned(facts, "CallStatus"), _learned(facts, "SequenceNumber")
        with bind_call(call_id):
            log.info("carrier status", status=status)
            count = int(number) if number.isascii() and number.isdigit() else 0
            call = await self._calls.carrier_said(call_id, status, count)
            if call is not None:
                if call.state is not CallState.ENDED:
                    return
                # It is being taken down, and its record may be written already.
                await call.finished.wait()
            record = await self._store.get_call(call_id)
            if record is None:
                raise TokenInvalid("no such call")
            # Reports may overtake each other: after the end, only what is final is news.
            if status in FINAL_STATUSES:
                await self._store.save_call(replace(record, carrier_status=status))

    async def _verified(self, request: web.Request) -> str:
        """The call of this URL's token. The call's own deadline counts: a fetch may have moved it. Which process
        holds the call does not matter."""
        token = request.match_info["token"]
        call_id, _ = self._signer.peek(token)
        self._signer.verify(token, time.time(), extended_until=(await self._calls.expected(call_id)).deadline)
        return call_id

    def _check_signature(
        self, scheme: str, request: web.Request, form: Sequence[tuple[str, str]], tail: str = ""
    ) -> None:
        if not self._auth_token:
            return
        # Never from the request's own host: a proxy changes host, scheme and port (and an attacker may).
        url = f"{scheme}://{self._public_origin.split('://', 1)[1]}/twilio/{request.match_info['token']}{tail}"
        if request.rel_url.raw_query_string:
            url += f"?{request.rel_url.raw_query_string}"
        signature = request.headers.get("X-Twilio-Signature")
        if not twilio_signature_valid(self._auth_token, url, form, signature):
            raise SignatureInvalid("X-Twilio-Signature is missing or does not match")


async def _form(request: web.Request) -> list[tuple[str, str]]:
    """The fields of a POST in Twilio's one encoding; a body of another kind has none. Raises Malformed."""
    if request.method != "POST" or request.content_type != "application/x-www-form-urlencoded":
        return []
    if (request.content_length or 0) > MAX_FORM:
        raise web.HTTPRequestEntityTooLarge(max_size=MAX_FORM, actual_size=request.content_length or 0)
    body = await request.read()
    try:
        return parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=MAX_FIELDS)
    except ValueError:
        raise Malformed("the form cannot be read") from None


def _learned(facts: dict[str, str], name: str) -> str:
    return facts.get(name, "")[:MAX_LEARNED]


def _refusal(error: ConnectorError) -> web.Response:
    """A carrier that asks for XML gets a hang-up, so that the callee is not read an error message."""
    if isinstance(error, ConnectUrlError):
        return web.Response(status=error.http_status, text=answers.hang_up(Provider.TWILIO), content_type="text/xml")
    return web.Response(status=error.http_status, text=f"{error.message}\n")
