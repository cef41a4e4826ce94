"""What a carrier's HTTP request tells of a call: the same facts under each carrier's own names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson

from connector.model import Provider
from connector.numbers import WITHHELD, is_withheld

MAX_LEARNED = 128
"""Characters of an id or number that are kept; real ones are far shorter."""


MAX_HEADER = 1024
MAX_EVENT = 64
_SIP_HEADER = "SipHeader_"


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Empty where the request does not say. `status` is in the carriers' common words: queued, initiated, ringing,
    in-progress, completed, busy, failed, no-answer, canceled."""

    call_id: str = ""
    account_id: str = ""
    from_number: str = ""
    """`connector.numbers.WITHHELD` for a caller who has none for us."""
    to_number: str = ""
    status: str = ""
    from_country: str = ""
    """ISO 3166-1 alpha-2, where the carrier tells (Twilio)."""
    digits: str = ""
    """The keys that a caller pressed when asked for a PIN."""


@dataclass(frozen=True, slots=True)
class _Names:
    call_id: str
    account_id: str


_NAMES = {
    Provider.TWILIO: _Names("CallSid", "AccountSid"),
    Provider.TELNYX: _Names("CallSid", "AccountSid"),
    Provider.PLIVO: _Names("CallUUID", "ParentAuthID"),
}
_STATUS_WORDS = {"timeout": "no-answer", "cancel": "canceled", "answered": "in-progress"}
"""What Plivo says where the others say something else."""


def call_facts(provider: Provider, fields: Mapping[str, str]) -> CallFacts:
    """From the fields of a form or a query; each is cut to a length that can be kept."""
    names = _NAMES[provider]

    def field(name: str) -> str:
        return fields.get(name, "")[:MAX_LEARNED]

    status = field("CallStatus").lower()
    return CallFacts(
        call_id=field(names.call_id),
        account_id=field(names.account_id),
        from_number=_caller(field("From")) if "From" in fields else "",
        to_number=_number(field("To")),
        status=_STATUS_WORDS.get(status, status),
        from_country=field("FromCountry"),
        digits=field("Digits"),
    )


def voice_api_event(provider: Provider, body: bytes) -> str:
    """The name of the event, where the request is one of Telnyx's Voice API (`call.initiated`, …) and not of TeXML:
    the number is assigned to another kind of application. Empty for everything else."""
    if provider is not Provider.TELNYX or not body.lstrip().startswith(b"{"):
        return ""
    try:
        event = orjson.loads(body)["data"]["event_type"]
    except (ValueError, KeyError, TypeError):
        return ""
    return event[:MAX_EVENT] if isinstance(event, str) and event.isascii() and event.isprintable() else ""


def sip_headers(fields: Mapping[str, str]) -> dict[str, str]:
    """Headers of a call that reached the carrier over SIP, by their names in lower case; each is cut short.

    Twilio and Telnyx send `SipHeader_X-Account`, Plivo `X-PH-Account`.
    """
    return {
        name.removeprefix(_SIP_HEADER).lower(): value[:MAX_HEADER]
        for name, value in fields.items()
        if name.startswith((_SIP_HEADER, "X-"))
    }


def _caller(text: str) -> str:
    return WITHHELD if is_withheld(text) else _number(text)


def _number(text: str) -> str:
    """Plivo leaves the plus sign of E.164 out."""
    return f"+{text}" if 8 <= len(text) <= 15 and text.isascii() and text.isdigit() and text[0] != "0" else text
