"""Telnyx: TeXML, media streaming, signed requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from connector.accounts import AccountRules, CarrierAccount, CarrierAccounts, listed, merged
from connector.carriers import twiml
from connector.carriers.carrier import Carrier
from connector.carriers.codec import Codec
from connector.carriers.facts import CallFacts, facts_of
from connector.carriers.signatures import SignedRequest
from connector.carriers.telnyx import documents
from connector.carriers.telnyx.codec import TelnyxCodec
from connector.carriers.telnyx.signatures import HEADER, TIMESTAMP_HEADER, telnyx_public_key, telnyx_signature_valid
from connector.carriers.telnyx.voice_api import event_name
from connector.carriers.transfers import DialOver, TransferDial, dial_outcome, progress_of
from connector.config import Settings
from connector.model.call import TransferStatus
from connector.model.provider import Provider

OFTEN, SELDOM = 1, 10
"""Seconds between two questions of Telnyx about a live call, without and with REST credentials."""


class Telnyx(Carrier):
    provider = Provider.TELNYX
    title = "Telnyx"
    signing_setting = "TELNYX_PUBLIC_KEY"
    rest_settings = "TELNYX_API_KEY"
    account_rules = AccountRules("Telnyx", "TELNYX_ACCOUNTS", key_names_account=True)
    unsigned = "telnyx-signature-ed25519 is missing, does not match, or is older than five minutes"
    signs_handshakes = False
    """Telnyx is not known to sign handshakes; only the token is checked there."""
    holds_calls = True
    without_rest = (
        "a call that the room ends stays up in silence until Telnyx asks again (TELNYX_POLL_SECONDS), a call whose "
        "media connection breaks returns as late, Telnyx asks every second for each call, and calls cannot be "
        "transferred"
    )
    stream_has_own_ids = True
    longest_ring = 120

    def __init__(
        self, codec_name: documents.CodecName = "PCMU", *, in_connect: bool = False, poll_seconds: int = SELDOM
    ) -> None:
        """`codec_name`: the codec requested from Telnyx for both directions. `in_connect`: the answer document waits
        for the end of the stream, instead of running in parallel with it."""
        self.poll_seconds = poll_seconds
        self._codec_name = codec_name
        self._in_connect = in_connect
        self.stream_outlives_document = not in_connect

    @classmethod
    def of(cls, settings: Settings) -> Self:
        seconds = settings.telnyx_poll_seconds or cls._poll_seconds(settings)
        return cls(settings.telnyx_codec, in_connect=settings.telnyx_connect_stream, poll_seconds=seconds)

    @classmethod
    def _poll_seconds(cls, settings: Settings) -> int:
        """With the REST API, Telnyx is told to bring a lost stream back. Without it, the interval is the gap."""
        accounts = cls().accounts(settings)
        has_rest = bool(accounts.all) and len(accounts.with_api) == len(accounts.all)
        return SELDOM if has_rest or not settings.resume_grace else OFTEN

    def accounts(self, settings: Settings) -> CarrierAccounts:
        others = [
            CarrierAccount(name, each.public_key, tuple(key.get_secret_value() for key in each.api_key))
            for name, each in settings.telnyx_accounts.items()
        ]
        signing, rest = listed(settings.telnyx_public_key), listed(settings.telnyx_api_key)
        return merged(self.account_rules, "", signing, rest, others)

    def codec(self) -> Codec:
        return TelnyxCodec(documents.FORMATS[self._codec_name])

    def stream_answer(self, url: str, say: str = "") -> str:
        return documents.stream_answer(url, say, self._codec_name, in_connect=self._in_connect, pause=self.poll_seconds)

    def hold(self, url: str, seconds: int) -> str:
        return twiml.hold(url, seconds)

    def refusal(self, say: str) -> str:
        return twiml.refusal(say)

    def reject(self) -> str:
        """https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/reject"""
        return twiml.reject()

    def ask_pin(self, action_url: str, prompt: str, digits: int) -> str:
        return documents.ask_pin(action_url, prompt, digits)

    def transfer_document(self, dial: TransferDial) -> str:
        """https://developers.telnyx.com/docs/voice/programmable-voice/texml-verbs/dial"""
        return twiml.transfer_document(dial)

    def call_facts(self, fields: Mapping[str, str]) -> CallFacts:
        return facts_of(fields, call_id="CallSid", account_id="AccountSid")

    def wrong_event(self, body: bytes) -> str:
        event = event_name(body)
        return event and (
            f"this is a Voice API event ({event}), not a TeXML request: in Telnyx's portal, assign the number to a "
            "TeXML application with this URL, instead of a Voice API application"
        )

    def dial_over(self, fields: Mapping[str, str]) -> DialOver | None:
        return dial_outcome(fields.get("DialCallStatus", ""), self.call_facts(fields))

    def dial_progress(self, fields: Mapping[str, str]) -> TransferStatus | None:
        return progress_of([fields.get("CallStatus", "")])

    def has_signed(self, secret: str, request: SignedRequest) -> bool:
        signature, timestamp = request.headers.get(HEADER), request.headers.get(TIMESTAMP_HEADER)
        return telnyx_signature_valid(telnyx_public_key(secret), timestamp, request.body, signature, request.now)
