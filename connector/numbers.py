"""Telephone numbers in ITU-T E.164 form: `+`, a country code that begins with 1 to 9, at most 15 digits. Also
recognises withheld numbers."""

from __future__ import annotations

import re

E164 = re.compile(r"\+[1-9][0-9]{1,14}")
"""The minimum requirement for a number that a carrier is asked to dial."""
SUBSCRIBER = re.compile(r"\+[1-9][0-9]{6,14}")
"""A subscriber's number; no subscriber number is shorter."""
IN_TEXT = re.compile(r"\+\d{6,15}")
"""A probable phone number inside other text."""

WITHHELD = "withheld"
"""Replaces the number if the caller withholds it or the network does not transmit it. Carriers use many different words
for this."""
_WITHHELD_WORDS = re.compile(
    "anonymous|anonymousinvalid|blocked|idunavailable|nocallerid|notavailable|outofarea|withheld"
    "|(?:private|restricted|unavailable|unknown)(?:number|caller)?|(?:number|caller)(?:unavailable|unknown|withheld)"
    # Twilio's codes: anonymous, restricted, unavailable, unknown and blocked, spelled on a telephone keypad.
    "|266696687|7378742833|86282452253|8656696|2562533"
)
_SIP_ADDRESS = re.compile(r"(?:sips?:)(?P<user>[^@;>?]*)(?:@(?P<host>[^;>?:]*))?", re.IGNORECASE)
_ANONYMOUS_HOST = "anonymous.invalid"
"""RFC 3323, 4.1.1.3."""
_BETWEEN_WORDS = re.compile(r"[\s_.\-]+")


def is_withheld(caller: str) -> bool:
    """Whether a carrier's caller field means that the number is not available: it is empty, one of the carriers' words
    or digit codes, or the anonymous SIP address."""
    text = caller.strip()
    found = _SIP_ADDRESS.search(text)
    if found is None and "@" in text:
        user, _, host = text.partition("@")
    else:
        user, host = (found["user"], found["host"] or "") if found else (text, "")
    if host.strip().lower().endswith(_ANONYMOUS_HOST):
        return True
    name = user.strip("\"'<> ")
    word = _BETWEEN_WORDS.sub("", name).lower().removeprefix("+")
    return not name or _WITHHELD_WORDS.fullmatch(word) is not None
