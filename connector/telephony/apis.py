"""The carriers' REST APIs for which credentials are configured."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from connector.carriers.answers import LONGEST_FAREWELL
from connector.config import Settings
from connector.model import Provider
from connector.telephony.accounts import AccountCalls, TwilioAccounts
from connector.telephony.plivo import PlivoCalls
from connector.telephony.telnyx import TelnyxCalls
from connector.telephony.twilio import TwilioCalls
from connector.tokens import SAY_PURPOSE, TokenSigner

DOCUMENT_URL_LIFE = 120.0
"""Seconds that a carrier may take to fetch the document that it was told to follow."""


class CarrierApis:
    """`start` before use."""

    def __init__(self, settings: Settings) -> None:
        self.twilio: TwilioAccounts | None = None
        self.controls: dict[Provider, AccountCalls[Any]] = {}
        """By carrier; those without credentials are missing."""
        twilio, telnyx, plivo = (settings.accounts(provider) for provider in Provider)
        if twilio.with_api:
            self.twilio = TwilioAccounts(twilio, lambda sid, token: TwilioCalls(sid, token, settings.twilio_api_url))
            self.controls[Provider.TWILIO] = self.twilio
        if telnyx.with_api:
            self.controls[Provider.TELNYX] = AccountCalls(
                telnyx, lambda _, key: TelnyxCalls(key, settings.telnyx_api_url)
            )
        if plivo.with_api:
            say_url = _document_url(settings, say_signer(settings.own_secrets), "say")
            self.controls[Provider.PLIVO] = AccountCalls(
                plivo,
                lambda auth_id, token: PlivoCalls(auth_id, token, say_url, settings.plivo_api_url),
            )

    async def start(self) -> None:
        for control in self.controls.values():
            await control.start()

    async def close(self) -> None:
        for control in self.controls.values():
            await control.close()


def say_signer(secret: Sequence[str]) -> TokenSigner:
    """Of the addresses of documents that read out a sentence."""
    return TokenSigner(secret, SAY_PURPOSE, longest=4 * LONGEST_FAREWELL)


def _document_url(settings: Settings, signer: TokenSigner, what: str) -> Callable[[str], str]:
    """From what a document is about to the address at which Plivo finds it."""
    return lambda about: f"{settings.public_origin}/plivo/{signer.mint(about, time.time() + DOCUMENT_URL_LIFE)}/{what}"
