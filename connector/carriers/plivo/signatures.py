"""Plivo's signatures, version 3. https://www.plivo.com/docs/voice/concepts/signature-validation"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from hmac import compare_digest
from urllib.parse import parse_qsl

from connector.carriers.signatures import Form, url_candidates
from connector.carriers.spelling import spellings

HEADER = "X-Plivo-Signature-V3"
NONCE_HEADER = "X-Plivo-Signature-V3-Nonce"
MAIN_ACCOUNT_HEADER = "X-Plivo-Signature-Ma-V3"
"""Plivo signs a subaccount's requests with the token of either account, each in a header of its own."""


def plivo_signature_valid(
    auth_token: str,
    method: str,
    url: str,
    params: Form,
    nonce: str | None,
    signatures: str | None,
) -> bool:
    """Whether one of `signatures`, the X-Plivo-Signature-V3 header, was made with `auth_token`.

    `url` is the public one that Plivo was given, with its query; `params` are the fields of the POST form. A
    WebSocket handshake is a GET. `nonce` is the X-Plivo-Signature-V3-Nonce header. As with Twilio, a default port
    may be there or not, and so may a slash at the end; and a handshake may be signed as https or as wss. The query is
    signed decoded, so that its spelling does not matter; Plivo's package for Java leaves it as it is, and so it counts
    in every spelling too.

    The `plivo` package computes the same; it is not used, since it stops at the first URL, compares in a time that
    tells how much was right, and garbles what is not ASCII in a query.
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
    """What is signed before the nonce: the URL with its query sorted, decoded or as it was written, then the form,
    sorted."""
    address, _, query = url.partition("#")[0].partition("?")
    decoded = sorted(parse_qsl(query, keep_blank_values=True, errors="surrogateescape"))
    queries = ["&".join(f"{name}={value}" for name, value in decoded)]
    queries += ["&".join(sorted(each.split("&"))) for each in spellings(query)]
    if method.upper() == "GET" or not form:
        return [f"{address}?{each}" if each else address for each in queries]
    # The question mark is there even when no query is.
    fields = "".join(f"{name}{value}" for name, value in sorted(form))
    return [f"{address}?{each}.{fields}" if each else f"{address}?{fields}" for each in queries]
