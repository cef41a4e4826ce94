"""The URLs with which a carrier is told to open a lost stream again."""

from __future__ import annotations

import time

from connector.api.origins import Origins
from connector.call.ports import ReturnAddresses, ReturnUrls
from connector.carriers.carrier import Carriers
from connector.carriers.resume_url import resume_url
from connector.model.call import WaitingCall
from connector.tokens import TokenSigner, stream_name


def return_urls(signer: TokenSigner, origins: Origins, carriers: Carriers) -> ReturnUrls:
    """`signer` makes the tokens of streams."""

    def urls(entry: WaitingCall) -> ReturnAddresses:
        carrier, origin = carriers[entry.request.provider], origins.pick(entry.request.region)

        def stream_url(stream: int, expires_at: float) -> str:
            return carrier.stream_url(origin, signer.mint(stream_name(entry.id, stream), expires_at))

        # The expiry of the token in a resume URL is never looked at.
        document = resume_url(stream_url(entry.stream - 1, time.time()))
        return ReturnAddresses(document, stream_url(entry.stream, entry.expires_at))

    return urls
