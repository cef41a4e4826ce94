"""Telephone numbers as ITU-T E.164 writes them: `+`, a country code that begins with 1 to 9, 15 digits at most; and
the callers who keep theirs to themselves."""

from __future__ import annotations

import re

E164 = re.compile(r"\+[1-9][0-9]{1,14}")
"""The least that a carrier is asked to dial."""
SUBSCRIBER = re.compile(r"\+[1-9][0-9]{6,14}")
"""Of a number that somebody owns: none is shorter."""
IN_TEXT = re.compile(r"\+\d{6,15}")
"""What looks like a number in the midst of something else."""

WITHHELD = "withheld"
"""In the place of a number that the caller withholds, or that the network does not tell: the one word for the many
that carriers have."""
_WITHHELD_WORDS = re.compile(
    "anonymous|anonymousinvalid|blocked|idunavailable|nocallerid|notavailable|outofarea|withheld"
    "|(?:private|restricted|unavailable|unknown)(?:number|caller)?|(?:number|caller)(?:unavailable|unknown|withheld)"
    # What Twilio sends: anonymous, restricted, unavailable, unknown and blocked on a telephone's keypad.
    "|266696687|7378742833|86282452253|8656696|2562533"
)
_SIP_ADDRESS = re.compile(r"(?:sips?:)(?P<user>[^@;>?]*)(?:@(?P<host>[^;>?:]*))?", re.IGNORECASE)
_ANONYMOUS_HOST = "anonymous.invalid"
"""RFC 3323, 4.1.1.3."""
_BETWEEN_WORDS = re.compile(r"[\s_.\-]+")


def is_withheld(caller: str) -> bool:
    """Whether this is what a carrier says of a caller who has no number for us: nothing, one of the words and digits of
    its own, or the anonymous address of SIP."""
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
