"""The parts that all requests of carriers about a call need: their signatures, and the URLs of the call's streams."""

from __future__ import annotations

from dataclasses import dataclass

from aiohttp import web

from connector.api.carrier.forms import Posted, posted
from connector.api.carrier.signed import SignatureCheck
from connector.api.origins import Origins
from connector.carriers.carrier import Carrier, Carriers
from connector.metrics import Metrics
from connector.tokens import TokenSigner, stream_name


@dataclass(frozen=True, slots=True)
class CarrierRequests:
    """Shared by the routes of carriers."""

    streams: TokenSigner
    """Makes and verifies the tokens of streams."""
    signatures: SignatureCheck
    origins: Origins
    carriers: Carriers
    metrics: Metrics

    async def form(self, carrier: Carrier, request: web.Request) -> Posted:
        """Reads the form and checks the carrier's signature. Raises Malformed and SignatureInvalid."""
        form = await posted(request)
        self.signatures.require(carrier.provider, request, form.body, form.fields)
        return form

    def stream_url(self, carrier: Carrier, region: str, call_id: str, stream: int, expires_at: float) -> str:
        """Returns the URL of this stream of the call, with a token that expires at this Unix time."""
        token = self.streams.mint(stream_name(call_id, stream), expires_at)
        return carrier.stream_url(self.origins.pick(region), token)


def document(carrier: Carrier, text: str, status: int = 200) -> web.Response:
    """Returns a document for the carrier to follow."""
    return web.Response(status=status, text=text, content_type=carrier.document_type)
