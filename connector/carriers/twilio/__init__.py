"""Twilio: TwiML, Media Streams, signed requests."""

from __future__ import annotations

from collections.abc import Mapping

from connector.accounts import AccountRules, CarrierAccounts, by_token, listed, merged
from connector.carriers import twiml
from connector.carriers.carrier import Carrier
from connector.carriers.codec import Codec
from connector.carriers.facts import CallFacts, facts_of
from connector.carriers.signatures import SignedRequest
from connector.carriers.transfers import DialOver, TransferDial, dial_outcome, progress_of
from connector.carriers.twilio import documents
from connector.carriers.twilio.codec import TwilioCodec
from connector.carriers.twilio.signatures import HEADER, twilio_signature_valid
from connector.config import Settings
from connector.model.call import TransferStatus
from connector.model.provider import Provider


class Twilio(Carrier):
    provider = Provider.TWILIO
    title = "Twilio"
    signing_setting = "TWILIO_AUTH_TOKEN"
    rest_settings = "TWILIO_ACCOUNT_SID and TWILIO_AUTH_TOKEN"
    # https://www.twilio.com/docs/iam/api/subaccounts
    account_rules = AccountRules("Twilio", "TWILIO_ACCOUNTS", main_serves_all=True)
    delivery_header = "I-Twilio-Idempotency-Token"
    unsigned = "X-Twilio-Signature is missing or does not match"
    cuts_queries = True
    needs_caller_id = True
    places_calls = True
    dials_sip = True
    kind_details = ("connector_twilio",)
    default_greeting = True

    def accounts(self, settings: Settings) -> CarrierAccounts:
        plain, others = listed(settings.twilio_auth_token), by_token(settings.twilio_accounts)
        return merged(self.account_rules, settings.twilio_account_sid, plain, plain, others)

    def is_configured(self, settings: Settings) -> bool:
        return bool(settings.twilio_account_sid) or super().is_configured(settings)

    def codec(self) -> Codec:
        return TwilioCodec()

    def stream_answer(self, url: str, say: str = "") -> str:
        return documents.stream_answer(url, say)

    def hold(self, url: str, seconds: int) -> str:
        return twiml.hold(url, seconds)

    def refusal(self, say: str) -> str:
        return twiml.refusal(say)

    def reject(self) -> str:
        """https://www.twilio.com/docs/voice/twiml/reject"""
        return twiml.reject()

    def ask_pin(self, action_url: str, prompt: str, digits: int) -> str:
        return documents.ask_pin(action_url, prompt, digits)

    def transfer_document(self, dial: TransferDial) -> str:
        """https://www.twilio.com/docs/voice/twiml/dial"""
        return twiml.transfer_document(dial)

    def call_facts(self, fields: Mapping[str, str]) -> CallFacts:
        return facts_of(fields, call_id="CallSid", account_id="AccountSid")

    def dial_over(self, fields: Mapping[str, str]) -> DialOver | None:
        return dial_outcome(fields.get("DialCallStatus", ""), self.call_facts(fields))

    def dial_progress(self, fields: Mapping[str, str]) -> TransferStatus | None:
        return progress_of([fields.get("CallStatus", "")])

    def has_signed(self, secret: str, request: SignedRequest) -> bool:
        signature = request.headers.get(HEADER)
        return any(twilio_signature_valid(secret, url, request.form, signature) for url in request.urls)
