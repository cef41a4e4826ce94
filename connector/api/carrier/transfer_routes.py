"""Callbacks of a transfer and the documents that answer them: `/<carrier>/<token>/transfer` and below.

The token identifies the call and the stream that the phone opens if it returns. Any process that shares the store can
serve these requests.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

import structlog
from aiohttp import web

from connector.api.carrier.carrier_requests import CarrierRequests, document
from connector.api.origins import Origins
from connector.call.ports import Addresses
from connector.call.registry.reports import CarrierReports, TransferReports
from connector.carriers.carrier import Carrier
from connector.carriers.transfers import TransferDial
from connector.errors import ConnectorError, ConnectUrlError, Malformed, TokenExpired
from connector.logs import bind_call
from connector.model.provider import Provider
from connector.tokens import TokenSigner, stream_name, stream_named

log = structlog.get_logger()

URL_LIFE = 2 * 86400.0
"""Seconds. The end of the conversation is reported to the same URL; carriers allow at most one day."""

Handler = Callable[[Carrier, str, int, dict[str, str]], Awaitable[str]]


class TransferAddresses:
    """Makes the URLs of a transfer. `signer` must have the purpose TRANSFER_PURPOSE."""

    def __init__(self, signer: TokenSigner, origins: Origins) -> None:
        self._signer = signer
        self._origins = origins

    def __call__(self, provider: Provider, call_id: str, region: str, stream: int) -> Addresses:
        token = self._signer.mint(stream_name(call_id, stream), time.time() + URL_LIFE)
        action = f"{self._origins.pick(region)}/{provider.value}/{token}/transfer"
        return Addresses(action, f"{action}/progress", f"{action}/document")


class TransferRoutes:
    """`signer` must have the purpose TRANSFER_PURPOSE."""

    def __init__(
        self,
        transfers: TransferReports,
        reports: CarrierReports,
        signer: TokenSigner,
        requests: CarrierRequests,
    ) -> None:
        self._transfers = transfers
        self._reports = reports
        self._signer = signer
        self._requests = requests

    def add_to(self, router: web.UrlDispatcher) -> None:
        for carrier in self._requests.carriers.values():
            path = f"/{carrier.provider.value}/{{token}}/transfer"
            router.add_route("POST", path, self._of(carrier, self._over))
            router.add_route("POST", f"{path}/progress", self._of(carrier, self._progress))
            router.add_route("POST", f"{path}/document", self._of(carrier, self._document))

    def _of(self, carrier: Carrier, handle: Handler) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def handler(request: web.Request) -> web.Response:
            try:
                form = await self._requests.form(carrier, request)
                name = self._signer.verify(request.match_info["token"], time.time())
                call_id, stream = stream_named(name)
                with bind_call(call_id):
                    text = await handle(carrier, call_id, stream, dict(form.fields))
            except ConnectorError as error:
                self._requests.metrics.refused.labels("transfer", type(error).__name__).inc()
                log.warning("transfer report refused", error=error.message, status=error.http_status)
                if isinstance(error, ConnectUrlError):
                    return document(carrier, carrier.hang_up(), error.http_status)
                return web.Response(status=error.http_status, text=f"{error.message}\n")
            return document(carrier, text)

        return handler

    async def _over(self, carrier: Carrier, call_id: str, stream: int, fields: dict[str, str]) -> str:
        """The dial has ended: either the other side answered, or the phone returns to its room."""
        told = carrier.dial_over(fields)
        if told is None:
            raise Malformed("the form has no result of a dial")
        log.info("transfer ended", status=told.status.value, caller_left=told.caller_left)
        way = await self._transfers.over(call_id, stream, told.status, caller_left=told.caller_left)
        if way is None:
            return carrier.hang_up()
        if way.say:
            return carrier.refusal(way.say)
        return carrier.stream_answer(self._requests.stream_url(carrier, way.region, call_id, way.stream, way.deadline))

    async def _progress(self, carrier: Carrier, call_id: str, stream: int, fields: dict[str, str]) -> str:
        status = carrier.dial_progress(fields)
        if status is not None:
            await self._reports.transfer_progress(call_id, stream, status)
        return carrier.hang_up()  # Carriers read only the HTTP status of the response to a status callback.

    async def _document(self, carrier: Carrier, call_id: str, stream: int, _: dict[str, str]) -> str:
        """Returns the transfer document, for a carrier with an API that accepts only the URL of a document."""
        order = await self._transfers.order(call_id, stream)
        if order is None:
            raise TokenExpired("the call is not being transferred any more")
        urls = self._addresses(carrier.provider, call_id, stream)
        dial = TransferDial(order.to, order.timeout, order.caller_id, urls.action, urls.progress)
        return carrier.transfer_document(dial)

    def _addresses(self, provider: Provider, call_id: str, stream: int) -> Addresses:
        return TransferAddresses(self._signer, self._requests.origins)(provider, call_id, "", stream)
