"""The ways in which one query may be spelled.

A carrier signs a URL before its HTTP client writes the request, and proxies and libraries write it once more, so the
query that arrives may be spelled otherwise than the one that was signed: with `:` or `%3A`, `+` or `%20`, `%2f` or
`%2F`. What Twilio itself is seen to sign, and what its packages try: https://github.com/twilio/twilio-node/pull/621,
https://github.com/twilio/twilio-node/issues/1059, https://github.com/twilio/twilio-node/issues/1183.

Every spelling here is one of the same names and values in the same order: a `%26` never becomes a `&`.
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

MOST = 64
"""Spellings of one query at most."""
LONGEST = 4096
"""Characters of a query past which only the spelling that came counts."""
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
_PLAIN = (
    "",  # RFC 3986, Python
    "*",  # Java, browsers' forms
    "!'()*",  # JavaScript's encodeURIComponent, Node's querystring
    ":@",  # Twilio of SIP addresses
    "!'()*:@,;/?$",  # every character that a query may have as it is (RFC 3986, 3.4) and that separates nothing
)
"""Characters that an encoder leaves as they are, beside letters, digits and `-._~`; by encoder."""
_ALSO_IN_VALUES = "="
"""The first `=` of a pair ends its name; the others mean themselves."""


def spellings(query: str) -> list[str]:
    """Without its `?`; the one that came is the first."""
    found = dict.fromkeys([query])
    if len(query) <= LONGEST and re.search(r"[^A-Za-z0-9_.=&-]", query):
        found |= dict.fromkeys(_lightly(query))
        pairs = [tuple(_decoded(part) for part in pair.split("=", 1)) for pair in query.split("&")]
        for plain in _PLAIN:
            for space in ("+", "%20"):
                for tilde in ("~", "%7E"):
                    upper = _encoded(pairs, plain, space).replace("~", tilde)
                    found |= dict.fromkeys([upper, _ESCAPED.sub(lambda match: match[0].lower(), upper)])
    return list(found)[:MOST]


def _lightly(query: str) -> list[str]:
    """As it came, but for one thing each."""
    return [
        re.sub("%3A", ":", re.sub("%40", "@", query), flags=re.IGNORECASE),
        query.replace("'", "%27"),
        re.sub("%27", "'", query),
        query.replace("+", "%20"),
        query.replace("%20", "+"),
        _ESCAPED.sub(lambda match: match[0].lower(), query),
        _ESCAPED.sub(lambda match: match[0].upper(), query),
    ]


def _decoded(text: str) -> bytes:
    return unquote_to_bytes(text.replace("+", " "))


def _encoded(pairs: list[tuple[bytes, ...]], plain: str, space: str) -> str:
    def part(index: int, text: bytes) -> str:
        also = _ALSO_IN_VALUES if index and plain == _PLAIN[-1] else ""
        return quote_from_bytes(text, safe=plain + also).replace("%20", space)

    return "&".join("=".join(part(index, text) for index, text in enumerate(pair)) for pair in pairs)
