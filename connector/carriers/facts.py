"""The facts about a call in a carrier's HTTP request, independent of the carrier's field names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from connector.numbers import WITHHELD, is_withheld

MAX_LEARNED = 128
"""Maximum characters of an id or number; longer values are cut. Real ones are much shorter."""
MAX_HEADER = 1024
_SIP_HEADER = "SipHeader_"


@dataclass(frozen=True, slots=True)
class CallFacts:
    """Fields that the request does not have are empty. `status` is one of the terms that the carriers share: queued,
    initiated, ringing, in-progress, completed, busy, failed, no-answer, canceled."""

    call_id: str = ""
    account_id: str = ""
    from_number: str = ""
    """`connector.numbers.WITHHELD` if the caller withholds the number."""
    to_number: str = ""
    status: str = ""
    from_country: str = ""
    """ISO 3166-1 alpha-2, if the carrier reports it."""
    digits: str = ""
    """The digits that the caller entered as a PIN."""
    report_number: int = 0
    """The carrier's sequence number of the status callback, if it has one: callbacks may arrive out of order."""


_STATUS_WORDS = {"timeout": "no-answer", "cancel": "canceled", "answered": "in-progress"}
"""Terms of single carriers -> common terms."""


def facts_of(fields: Mapping[str, str], *, call_id: str, account_id: str) -> CallFacts:
    """Reads the fields of a form or a query; each value is cut to MAX_LEARNED. `call_id` and `account_id`: the names
    of the two fields that differ among carriers."""

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
    """Returns the SIP headers of a call that reached the carrier over SIP; names in lower case, values cut.

    Carriers send them as fields: some `SipHeader_X-Account`, some `X-PH-Account`.
    """
    return {
        name.removeprefix(_SIP_HEADER).lower(): value[:MAX_HEADER]
        for name, value in fields.items()
        if name.startswith((_SIP_HEADER, "X-"))
    }


def caller_in(fields: Mapping[str, str], name: str) -> str:
    """Returns the caller's number in this field, or WITHHELD; empty if the field is missing."""
    text = fields.get(name, "")[:MAX_LEARNED]
    return "" if name not in fields else WITHHELD if is_withheld(text) else number_of(text)


def number_of(text: str) -> str:
    """Adds the plus sign of E.164, which some carriers omit."""
    return f"+{text}" if 8 <= len(text) <= 15 and text.isascii() and text.isdigit() and text[0] != "0" else text
