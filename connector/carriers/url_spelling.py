"""Different encodings of the same query.

A carrier signs a URL before its HTTP client writes the request; proxies and libraries may encode it again. So the
query that arrives may be encoded differently from the signed one: `:` or `%3A`, `+` or `%20`, `%2f` or `%2F`. The
variants that Twilio was observed to sign, and that its packages try: https://github.com/twilio/twilio-node/pull/621,
https://github.com/twilio/twilio-node/issues/1059, https://github.com/twilio/twilio-node/issues/1183.

Every variant has the same names and values in the same order: `%26` never becomes `&`.
"""

from __future__ import annotations

import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

MOST = 64
"""Maximum number of variants of one query."""
LONGEST = 4096
"""Characters. A longer query is checked only as it arrived."""
_ESCAPED = re.compile(r"%[0-9A-Fa-f]{2}")
_PLAIN = (
    "",  # RFC 3986, Python
    "*",  # Java, browsers' forms
    "!'()*",  # JavaScript's encodeURIComponent, Node's querystring
    ":@",  # Twilio, in SIP addresses
    "!'()*:@,;/?$",  # all characters that a query may contain unescaped (RFC 3986, 3.4), except separators
)
"""For each encoder, the characters that it does not escape, in addition to letters, digits and `-._~`."""
_ALSO_IN_VALUES = "="
"""The first `=` of a pair ends the name; later ones belong to the value."""


def spellings(query: str) -> list[str]:
    """Returns the variants of `query` (without its `?`), the original first."""
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
    """Variants that differ from the original in one respect each."""
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
