"""The carriers' REST APIs for which credentials are configured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from connector.carriers.carrier import LONGEST_FAREWELL
from connector.config import Settings
from connector.model import Provider
from connector.telephony.accounts import AccountCalls
from connector.tokens import SAY_PURPOSE, TokenSigner

DOCUMENT_URL_LIFE = 120.0
"""Seconds that a carrier may take to fetch the document that it was told to follow."""


class CarrierApis:
    """`start` before use."""

    def __init__(self, controls: Mapping[Provider, AccountCalls[Any]]) -> None:
        self.controls = controls
        """By carrier; those without credentials are missing."""

    async def start(self) -> None:
        for control in self.controls.values():
            await control.start()

    async def close(self) -> None:
        for control in self.controls.values():
            await control.close()


def say_signer(secret: Sequence[str]) -> TokenSigner:
    """Of the addresses of documents that read out a sentence."""
    return TokenSigner(secret, SAY_PURPOSE, longest=4 * LONGEST_FAREWELL)


def sentence_url(settings: Settings, provider: Provider) -> Callable[[str], str]:
    """From a sentence to the address at which the carrier finds the document that reads it out and hangs up."""
    signer = say_signer(settings.own_secrets)
    base = f"{settings.public_origin}/{provider.value}"
    return lambda say: f"{base}/{signer.mint(say, time.time() + DOCUMENT_URL_LIFE)}/say"
