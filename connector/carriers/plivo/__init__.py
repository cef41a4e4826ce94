"""Plivo: its XML, audio streaming, signed requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from connector.accounts import AccountRules, CarrierAccounts, by_token, listed, merged
from connector.carriers.carrier import Carrier
from connector.carriers.codec import Codec
from connector.carriers.facts import CallFacts, facts_of
from connector.carriers.plivo import documents
from connector.carriers.plivo.codec import PlivoCodec
from connector.carriers.plivo.signatures import HEADER, MAIN_ACCOUNT_HEADER, NONCE_HEADER, plivo_signature_valid
from connector.carriers.signatures import SignedRequest
from connector.carriers.transfers import DialOver, TransferDial, dial_outcome, progress_of
from connector.config import Settings
from connector.model.call import TransferStatus
from connector.model.provider import Provider


class Plivo(Carrier):
    provider = Provider.PLIVO
    title = "Plivo"
    signing_setting = "PLIVO_AUTH_TOKEN"
    rest_settings = "PLIVO_AUTH_ID and PLIVO_AUTH_TOKEN"
    # Requests name only the main account, even if the call belongs to a subaccount (SA…).
    account_rules = AccountRules("Plivo", "PLIVO_ACCOUNTS", unnamed_prefix="SA")
    unsigned = "X-Plivo-Signature-V3 is missing or does not match"
    holds_calls = True
    reopens_streams = True
    without_rest = "a phone may stay on a silent line if this service cannot be reached; calls cannot be transferred"
    fetches_sentences = True

    def __init__(self, content_type: documents.ContentType = "audio/x-mulaw;rate=8000") -> None:
        """`content_type`: the format requested from Plivo for both directions."""
        self._content_type = content_type

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings.plivo_codec)

    def accounts(self, settings: Settings) -> CarrierAccounts:
        plain, others = listed(settings.plivo_auth_token), by_token(settings.plivo_accounts)
        return merged(self.account_rules, settings.plivo_auth_id, plain, plain, others)

    def is_configured(self, settings: Settings) -> bool:
        return bool(settings.plivo_auth_id) or super().is_configured(settings)

    def codec(self) -> Codec:
        return PlivoCodec()

    def stream_answer(self, url: str, say: str = "") -> str:
        return documents.stream_answer(url, say, self._content_type)

    def hold(self, url: str, seconds: int) -> str:
        return documents.hold(url, seconds)

    def refusal(self, say: str) -> str:
        return documents.refusal(say)

    def reject(self) -> str:
        return documents.reject()

    def ask_pin(self, action_url: str, prompt: str, digits: int) -> str:
        return documents.ask_pin(action_url, prompt, digits)

    def transfer_document(self, dial: TransferDial) -> str:
        return documents.transfer_document(dial)

    def call_facts(self, fields: Mapping[str, str]) -> CallFacts:
        return facts_of(fields, call_id="CallUUID", account_id="ParentAuthID")

    def dial_over(self, fields: Mapping[str, str]) -> DialOver | None:
        return dial_outcome(fields.get("DialStatus", ""), self.call_facts(fields))

    def dial_progress(self, fields: Mapping[str, str]) -> TransferStatus | None:
        return progress_of([fields.get("DialAction", ""), fields.get("DialBLegStatus", "")])

    def has_signed(self, secret: str, request: SignedRequest) -> bool:
        headers = request.headers
        signatures = f"{headers.get(HEADER) or ''},{headers.get(MAIN_ACCOUNT_HEADER, '')}"
        return any(
            plivo_signature_valid(secret, request.method, url, request.form, headers.get(NONCE_HEADER), signatures)
            for url in request.urls
        )
