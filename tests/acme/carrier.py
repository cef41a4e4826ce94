"""What the connector asks of ACME."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hmac import compare_digest

from pydantic import Field, SecretStr

from connector.accounts import AccountRules, CarrierAccounts, listed, merged
from connector.carriers.carrier import Carrier
from connector.carriers.codec import Codec
from connector.carriers.facts import MAX_LEARNED, CallFacts, caller_in
from connector.carriers.resume_url import resume_url
from connector.carriers.signatures import SignedRequest
from connector.carriers.transfers import DialOver, TransferDial, dial_outcome, progress_of
from connector.config import Settings
from connector.model.call import TransferStatus
from tests.acme.codec import AcmeCodec
from tests.acme.name import ACME

HEADER = "X-Acme-Secret"


class AcmeSettings(Settings):
    """In the product these stand in `Settings` itself."""

    acme_secret: SecretStr = Field(SecretStr(""), validation_alias="ACME_SECRET")
    acme_api_url: str = Field("https://api.acme.example", validation_alias="ACME_API_URL")


class Acme(Carrier):
    provider = ACME
    title = "ACME"
    signing_setting = "ACME_SECRET"
    rest_settings = "ACME_SECRET"
    account_rules = AccountRules("ACME", "ACME_ACCOUNTS", key_names_account=True)
    document_type = "application/json"
    unsigned = f"{HEADER} is missing or does not match"
    holds_calls = True
    without_rest = "a phone may stay on a silent line"

    def accounts(self, settings: Settings) -> CarrierAccounts:
        secret = listed(settings.acme_secret) if isinstance(settings, AcmeSettings) else ()
        return merged(self.account_rules, "", secret, secret, [])

    def codec(self) -> Codec:
        return AcmeCodec()

    def stream_answer(self, url: str, say: str = "") -> str:
        return _document(say, {"do": "stream", "url": url}, {"do": "go", "url": resume_url(url)})

    def hold(self, url: str, seconds: int) -> str:
        return _document("", {"do": "hold", "seconds": seconds}, {"do": "go", "url": url})

    def refusal(self, say: str) -> str:
        return _document(say, {"do": "hangup"})

    def reject(self) -> str:
        return _document("", {"do": "reject"})

    def ask_pin(self, action_url: str, prompt: str, digits: int) -> str:
        return _document("", {"do": "ask", "say": prompt, "digits": digits, "url": action_url})

    def transfer_document(self, dial: TransferDial) -> str:
        number = {"number": dial.number, "timeout": dial.timeout, "from": dial.caller_id}
        return _document("", {"do": "dial", **number, "url": dial.action, "progress": dial.progress})

    def call_facts(self, fields: Mapping[str, str]) -> CallFacts:
        known = {name: value[:MAX_LEARNED] for name, value in fields.items()}
        return CallFacts(
            call_id=known.get("call", ""),
            account_id=known.get("account", ""),
            from_number=caller_in(known, "from"),
            to_number=known.get("to", ""),
            status=known.get("status", ""),
            digits=known.get("digits", ""),
        )

    def dial_over(self, fields: Mapping[str, str]) -> DialOver | None:
        return dial_outcome(fields.get("dial", ""), self.call_facts(fields))

    def dial_progress(self, fields: Mapping[str, str]) -> TransferStatus | None:
        return progress_of([fields.get("progress", "")])

    def has_signed(self, secret: str, request: SignedRequest) -> bool:
        given = request.headers.get(HEADER, "").encode("utf-8", "surrogateescape")
        return compare_digest(given, secret.encode())


def _document(say: str, *verbs: Mapping[str, object]) -> str:
    """A list of things to do, one after the other."""
    spoken = [{"do": "say", "say": say.strip()}] if say.strip() else []
    return json.dumps([*spoken, *({name: value for name, value in verb.items() if value} for verb in verbs)])
