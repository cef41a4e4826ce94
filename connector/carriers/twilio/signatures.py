"""Twilio's signatures. https://www.twilio.com/docs/usage/security#validating-requests"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from hmac import compare_digest

from connector.carriers.signatures import Form, url_candidates
from connector.carriers.url_spelling import spellings

HEADER = "X-Twilio-Signature"


def twilio_signature_valid(
    auth_token: str,
    url: str,
    params: Form,
    signature: str | None,
) -> bool:
    """Whether `signature`, the X-Twilio-Signature header, was made with `auth_token`.

    `url` is the public URL that Twilio was given (with the query string, if any; `wss://` for a WebSocket handshake,
    which has no `params`); `params` are the fields of the POST form, as pairs if a name can occur twice.

    Twilio does not always sign the same form of a URL, so each of these is accepted: the URL unchanged, without its
    port, or with the scheme's default port if it has none; each with and without a trailing slash in the path, and
    with other encodings of the query (`connector.carriers.url_spelling`). The validator of the `twilio` package is not
    used: it assumes 80 as default port of wss, tries no trailing slash and no other encoding, and cuts IPv6 hosts and
    user names at the first colon.

    The comparison takes constant time. ValueError for an empty `auth_token`: with it, anybody could sign.
    https://www.twilio.com/docs/usage/security#validating-requests
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
            # Half of a surrogate pair: Twilio cannot have sent or signed it.
            return False
        valid |= compare_digest(b64encode(hmac.digest(key, message, "sha1")), given)
    return valid


def _signed_form(params: Form) -> str:
    """Names and values, sorted by name. If a name occurs several times: its distinct values, sorted."""
    pairs = params.items() if isinstance(params, Mapping) else params
    return "".join(name + value for name, value in sorted(set(pairs)))


def _spelled(urls: Sequence[str]) -> list[str]:
    """Returns the URLs with every encoding of their query."""
    found: list[str] = []
    for url in urls:
        address, mark, query = url.partition("?")
        found += [f"{address}?{each}" for each in spellings(query)] if mark else [url]
    return found
