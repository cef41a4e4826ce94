"""Plivo's signatures, version 3. https://www.plivo.com/docs/voice/concepts/signature-validation"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from hmac import compare_digest
from urllib.parse import parse_qsl

from connector.carriers.signatures import Form, url_candidates
from connector.carriers.url_spelling import spellings

HEADER = "X-Plivo-Signature-V3"
NONCE_HEADER = "X-Plivo-Signature-V3-Nonce"
MAIN_ACCOUNT_HEADER = "X-Plivo-Signature-Ma-V3"
"""Plivo signs a subaccount's requests with the tokens of both accounts, each in its own header."""


def plivo_signature_valid(
    auth_token: str,
    method: str,
    url: str,
    params: Form,
    nonce: str | None,
    signatures: str | None,
) -> bool:
    """Whether one of `signatures`, the X-Plivo-Signature-V3 header, was made with `auth_token`.

    `url` is the public URL that Plivo was given, with its query; `params` are the fields of the POST form. A WebSocket
    handshake is a GET. `nonce` is the X-Plivo-Signature-V3-Nonce header. As with Twilio, the signed URL may be with or
    without the default port and the trailing slash; a handshake may be signed as https or wss. Plivo signs the decoded
    query, so its encoding does not matter. Plivo's Java package signs it undecoded, so every encoding is accepted too.

    The `plivo` package computes the same. It is not used because it tries only one URL, does not compare in constant
    time, and corrupts non-ASCII characters in a query.
    ValueError for an empty `auth_token`. https://www.plivo.com/docs/voice/concepts/signature-validation
    """
    if not auth_token:
        raise ValueError("an empty auth token verifies nothing")
    given = [each.strip().encode("utf-8", "surrogatepass") for each in (signatures or "").split(",")]
    form = list(params.items()) if isinstance(params, Mapping) else list(params)
    valid = False
    for base in dict.fromkeys(base for each in _candidates(url) for base in _bases(method, each, form)):
        try:
            message = f"{base}.{nonce or ''}".encode()
        except UnicodeEncodeError:
            return False
        expected = b64encode(hmac.digest(auth_token.encode(), message, "sha256"))
        for each in given:
            valid |= compare_digest(expected, each)
    return valid and bool(nonce)


def _candidates(url: str) -> list[str]:
    other = {"wss": "https", "ws": "http"}
    scheme, separator, rest = url.partition("://")
    urls = [url] + ([f"{other[scheme]}{separator}{rest}"] if scheme in other else [])
    return [candidate for each in urls for candidate in url_candidates(each)]


def _bases(method: str, url: str, form: list[tuple[str, str]]) -> list[str]:
    """Returns the possible texts that are signed before the nonce: the URL with its sorted query, decoded or encoded,
    then the sorted form."""
    address, _, query = url.partition("#")[0].partition("?")
    decoded = sorted(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))
    queries = ["&".join(f"{name}={value}" for name, value in decoded)]
    queries += ["&".join(sorted(each.split("&"))) for each in spellings(query)]
    if method.upper() == "GET" or not form:
        return [f"{address}?{each}" if each else address for each in queries]
    # The question mark is present even without a query.
    fields = "".join(f"{name}{value}" for name, value in sorted(form))
    return [f"{address}?{each}.{fields}" if each else f"{address}?{fields}" for each in queries]
