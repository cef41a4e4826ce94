"""The resume URL: `/<carrier>/<token>/resume`, GET or POST. A carrier asks how the phone of a call goes on after its
media stream has ended, and gets the next document. Any process that shares the store can answer.

Every answer is a document: after an error, too, the phone is hung up instead of left on a silent line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol
from urllib.parse import urlencode

import structlog
from aiohttp import web

from connector.api.carrier.carrier_requests import CarrierRequests, document
from connector.api.carrier.forms import Posted, require_no_event
from connector.call.dependencies import FINAL_STATUSES
from connector.call.session.returns import Resume, ResumeVerdict
from connector.carriers.carrier import Carrier
from connector.carriers.facts import CallFacts
from connector.carriers.resume_url import resume_url
from connector.errors import ConnectorError, SignatureInvalid, TokenInvalid, Unavailable
from connector.logs import bind_call
from connector.model.call import CallRecord
from connector.storage.base import StoreError
from connector.tokens import stream_named

log = structlog.get_logger()

PATIENCE = 8.0
"""Seconds for the store's answer. Carriers give up after 15 s."""
TRIES = 5
"""Requests after which the phone is hung up, if the store cannot be reached."""
TRY_AGAIN_IN = 1
"""Seconds."""
_TRIED = "tried"
"""Query parameter: number of requests that the store did not answer."""


class ReturningCalls(Protocol):
    """See `connector.call.registry.manager.CallManager`."""

    async def record(self, call_id: str) -> CallRecord | None: ...
    async def resume(self, call_id: str, stream: int, *, carrier_let_go: bool) -> Resume: ...
    async def carrier_said(self, call_id: str, status: str, number: int) -> object: ...


class ResumeRoutes:
    """The token of the stream that has ended names the call."""

    def __init__(
        self,
        calls: ReturningCalls,
        requests: CarrierRequests,
    ) -> None:
        self._calls = calls
        self._requests = requests

    def add_to(self, router: web.UrlDispatcher) -> None:
        for carrier in self._requests.carriers.values():
            path = f"/{carrier.provider.value}/{{token}}/resume"
            for method in ("GET", "POST"):
                router.add_route(method, path, self._of(carrier))

    def _of(self, carrier: Carrier) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            try:
                form = await self._requests.form(carrier, request)
                require_no_event(carrier, form)
                # The expiry of the token does not matter: it names a call, and the call's state decides.
                call_id, stream = stream_named(self._requests.streams.peek(request.match_info["token"])[0])
            except ConnectorError as error:
                self._note(error)
                status = error.http_status if isinstance(error, SignatureInvalid) else 200
                return document(carrier, carrier.hang_up(), status)
            with bind_call(call_id):
                return document(carrier, await self._answer(carrier, request, form, call_id, stream))

        return handler

    async def _answer(self, carrier: Carrier, request: web.Request, form: Posted, call_id: str, stream: int) -> str:
        """Returns the document for the phone."""
        facts = carrier.call_facts(dict(form.fields) or dict(request.query))
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._next(carrier, facts, call_id, stream)
        except (StoreError, Unavailable, TimeoutError) as error:
            return self._later(carrier, request, error)
        except ConnectorError as error:
            self._note(error)
        except Exception:
            log.exception("resume failed")
        return carrier.hang_up()

    async def _next(self, carrier: Carrier, facts: CallFacts, call_id: str, stream: int) -> str:
        if facts.status in FINAL_STATUSES:
            await self._calls.carrier_said(call_id, facts.status, facts.report_number)
            return carrier.hang_up()
        await self._require_of_the_call(carrier, facts, call_id)
        resume = await self._calls.resume(call_id, stream, carrier_let_go=not carrier.stream_outlives_document)
        # A carrier that polls requests it again and again for each live call.
        tell = log.debug if resume.verdict is ResumeVerdict.LIVES else log.info
        tell("the carrier has requested the next document", stream=stream, verdict=resume.verdict.name.lower())
        request = resume.request
        if resume.verdict is ResumeVerdict.OVER or request is None:
            return carrier.hang_up()
        if resume.verdict is ResumeVerdict.LIVES:
            # The expiry of this token is never checked.
            url = self._requests.stream_url(carrier, request.region, call_id, stream, time.time())
            return carrier.hold(resume_url(url), carrier.poll_seconds)
        return carrier.stream_answer(
            self._requests.stream_url(carrier, request.region, call_id, resume.stream, resume.deadline)
        )

    async def _require_of_the_call(self, carrier: Carrier, facts: CallFacts, call_id: str) -> None:
        """Raises TokenInvalid if the token is not of this carrier, or not of the carrier call that asks."""
        record = await self._calls.record(call_id)
        if record is None:
            raise TokenInvalid("no such call")
        if record.provider is not carrier.provider:
            raise TokenInvalid("this resume URL is another carrier's")
        known = record.carrier_call_id
        # If the stream has its own id for the call, the record may have that id, which cannot be compared with this
        # one.
        if known and facts.call_id != known and not carrier.stream_has_own_ids:
            raise TokenInvalid("this resume URL belongs to another carrier call")

    def _later(self, carrier: Carrier, request: web.Request, error: Exception) -> str:
        """The store cannot be reached, so the state of the call is not known. The phone waits a moment and asks again,
        a few times."""
        tried = request.query.get(_TRIED, "0")
        done = int(tried) + 1 if tried.isascii() and tried.isdigit() and len(tried) < 3 else TRIES
        if done >= TRIES:
            log.warning("the store cannot be reached: the phone is hung up", error=str(error), tried=done)
            return carrier.hang_up()
        log.warning("the store cannot be reached: the phone waits", error=str(error), tried=done)
        # The call's region is not known now; every origin leads to this service.
        url = f"{self._requests.origins.default}{request.rel_url.raw_path}?{urlencode({_TRIED: done})}"
        return carrier.hold(url, TRY_AGAIN_IN)

    def _note(self, error: ConnectorError) -> None:
        self._requests.metrics.refused.labels("resume", type(error).__name__).inc()
        log.warning("resume refused", error=error.message, status=error.http_status)
