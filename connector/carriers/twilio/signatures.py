"""Twilio's signatures. https://www.twilio.com/docs/usage/security#validating-requests"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hmac import compare_digest

from connector.carriers.signatures import Form, url_candidates
from connector.carriers.spelling import spellings

HEADER = "X-Twilio-Signature"


def twilio_signature_valid(
    auth_token: str,
    url: str,
    params: Form,
    signature: str | None,
) -> bool:
    """Whether `signature`, the X-Twilio-Signature header, was made with `auth_token`.

    `url` is the public one that Twilio was given (with the query string, if any; `wss://` for a WebSocket
    handshake, which has no `params`); `params` are the fields of the POST form, as pairs where one may come
    twice.

    Twilio is not consistent about what it signs, so any of these counts: the URL as it is, without its port,
    or with its scheme's default port when it has none; each with and without the path's trailing slash, and with its
    query in another spelling of the same (`connector.carriers.spelling`). The `twilio` package's validator is not used:
    it takes 80 for the default port of wss, tries no slash and no spelling, and cuts IPv6 hosts and user names at
    their first colon.

    Takes the same time for every signature. ValueError for an empty `auth_token`, with which anybody could
    sign. https://www.twilio.com/docs/usage/security#validating-requests
    """
    if not auth_token:
        raise ValueError("an empty auth token verifies nothing")
    key, form = auth_token.encode(), _signed_form(params)
    given = (signature or "").encode("utf-8", "surrogatepass")
    valid = False
    for candidate in _spelled(url_candidates(url)):
        try:
            message = (candidate + form).encode()
        except UnicodeEncodeError:
            # Half of a surrogate pair: Twilio cannot have sent, and so not signed it.
            return False
        valid |= compare_digest(b64encode(hmac.digest(key, message, "sha1")), given)
    return valid


def _signed_form(params: Form) -> str:
    """Names and values, sorted by name; of a name that comes several times each value once, sorted."""
    pairs = params.items() if isinstance(params, Mapping) else params
    return "".join(name + value for name, value in sorted(set(pairs)))


def _spelled(urls: Sequence[str]) -> list[str]:
    """The same URLs in every spelling of their query."""
    found: list[str] = []
    for url in urls:
        address, mark, query = url.partition("?")
        found += [f"{address}?{each}" for each in spellings(query)] if mark else [url]
    return found
