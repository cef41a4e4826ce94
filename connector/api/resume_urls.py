"""The resume URLs for clients: in the response that creates a call, and in GetCall."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.message import Message

from connector.api.origins import Origins
from connector.call.registry.dialled import OWNER
from connector.carriers.carrier import Carriers
from connector.carriers.resume_url import resume_url
from connector.model.call import CallRecord
from connector.tokens import TokenSigner, stream_name

HEADER = "Connector-Resume-Url"
"""Response header of the RPCs that create a connect_url, and of the answer document behind one."""


class StreamNumbers(Protocol):
    """See `connector.call.registry.manager.CallManager`."""

    async def stream_of(self, call_id: str) -> int: ...


def header_of(response: Message) -> dict[str, str]:
    """Returns the header for an RPC's response, if it has a connect_url."""
    connect_url = getattr(response, "connect_url", "")
    return {HEADER: resume_url(connect_url)} if connect_url else {}


class ResumeUrls:
    """`streams` makes the tokens of streams."""

    def __init__(self, numbers: StreamNumbers, streams: TokenSigner, origins: Origins, carriers: Carriers) -> None:
        self._numbers = numbers
        self._streams = streams
        self._origins = origins
        self._carriers = carriers

    async def of(self, record: CallRecord) -> str:
        """Returns the URL for the current stream of a call, or for the one that it waits for; empty if the call has
        ended, or has no media stream (mode `sip`). Raises StoreError."""
        carrier = self._carriers.get(record.provider)
        if record.end_reason is not None or record.owner == OWNER or carrier is None:
            return ""
        name = stream_name(record.call_id, await self._numbers.stream_of(record.call_id))
        # The expiry is in the past, so the token opens no stream. The resume URL ignores the expiry.
        token = self._streams.mint(name, record.created_at)
        return resume_url(carrier.stream_url(self._origins.pick(record.region), token))
