"""The carriers' REST APIs for which credentials are configured."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from connector.carriers.carrier import LONGEST_FAREWELL
from connector.config import Settings
from connector.model.provider import Provider
from connector.telephony.account_calls import AccountCalls
from connector.tokens import SAY_PURPOSE, TokenSigner

DOCUMENT_URL_LIFE = 120.0
"""Seconds within which a carrier must fetch the document at the URL that it was given."""


class CarrierApis:
    """The REST API clients of all carriers. Call `start` before use."""

    def __init__(self, controls: Mapping[Provider, AccountCalls[Any]]) -> None:
        self.controls = controls
        """By carrier; carriers without credentials are missing."""

    async def start(self) -> None:
        for control in self.controls.values():
            await control.start()

    async def close(self) -> None:
        for control in self.controls.values():
            await control.close()


def say_signer(secret: Sequence[str]) -> TokenSigner:
    """Returns the signer for the URLs of documents that read a sentence aloud."""
    return TokenSigner(secret, SAY_PURPOSE, longest=4 * LONGEST_FAREWELL)


def sentence_url(settings: Settings, provider: Provider) -> Callable[[str], str]:
    """Returns a function from a sentence to the URL of a document that reads it aloud and hangs up."""
    signer = say_signer(settings.own_secrets)
    base = f"{settings.public_origin}/{provider.value}"
    return lambda say: f"{base}/{signer.mint(say, time.time() + DOCUMENT_URL_LIFE)}/say"
