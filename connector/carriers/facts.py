"""What a carrier's HTTP request tells of a call: the same facts, whatever the names of the fields are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connector.numbers import WITHHELD, is_withheld

MAX_LEARNED = 128
"""Characters of an id or number that are kept; real ones are far shorter."""
MAX_HEADER = 1024
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
    """ISO 3166-1 alpha-2, where the carrier tells."""
    digits: str = ""
    """The keys that a caller pressed when asked for a PIN."""
    report_number: int = 0
    """Counts a call's status reports, where the carrier counts them: they may come out of order."""


_STATUS_WORDS = {"timeout": "no-answer", "cancel": "canceled", "answered": "in-progress"}
"""Words of some carriers, and the common ones."""


def facts_of(fields: Mapping[str, str], *, call_id: str, account_id: str) -> CallFacts:
    """From the fields of a form or a query; each is cut to a length that can be kept. `call_id` and `account_id` are
    the names of the two fields that differ among carriers."""

    def field(name: str) -> str:
        return fields.get(name, "")[:MAX_LEARNED]

    status, number = field("CallStatus").lower(), field("SequenceNumber")
    return CallFacts(
        call_id=field(call_id),
        account_id=field(account_id),
        from_number=caller_in(fields, "From"),
        to_number=number_of(field("To")),
        status=_STATUS_WORDS.get(status, status),
        from_country=field("FromCountry"),
        digits=field("Digits"),
        report_number=int(number) if number.isascii() and number.isdigit() else 0,
    )


def sip_headers(fields: Mapping[str, str]) -> dict[str, str]:
    """Headers of a call that reached the carrier over SIP, by their names in lower case; each is cut short.

    Carriers send them as fields: some `SipHeader_X-Account`, some `X-PH-Account`.
    """
    return {
        name.removeprefix(_SIP_HEADER).lower(): value[:MAX_HEADER]
        for name, value in fields.items()
        if name.startswith((_SIP_HEADER, "X-"))
    }


def caller_in(fields: Mapping[str, str], name: str) -> str:
    """The caller's number in this field, or the one word for a withheld one; empty where the field is missing."""
    text = fields.get(name, "")[:MAX_LEARNED]
    return "" if name not in fields else WITHHELD if is_withheld(text) else number_of(text)


def number_of(text: str) -> str:
    """Some carriers leave the plus sign of E.164 out."""
    return f"+{text}" if 8 <= len(text) <= 15 and text.isascii() and text.isdigit() and text[0] != "0" else text
