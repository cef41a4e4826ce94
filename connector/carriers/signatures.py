"""Is it the carrier that speaks to us? Each carrier signs its requests with a secret it shares with us."""

from __future__ import annotations

import hmac
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from hmac import compare_digest
from urllib.parse import parse_qsl

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from connector.carriers.spelling import spellings

TELNYX_TOLERANCE = 300
"""Seconds that a request's timestamp may differ from our clock, either way."""

_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_URL = re.compile(
    r"(?P<scheme>[^:/?#]+)://(?P<host>[^/?#]*?)(?P<port>:[0-9]+)?(?P<path>(?:/[^?#]*)?)(?P<query>(?:[?#].*)?)",
    re.DOTALL,
)
"""A host may hold a user's name and password, and an IPv6 address in brackets: both contain colons."""


def twilio_signature_valid(
    auth_token: str,
    url: str,
    params: Mapping[str, str] | Sequence[tuple[str, str]],
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
    for candidate in _spelled(_candidates(url)):
        try:
            message = (candidate + form).encode()
        except UnicodeEncodeError:
            # Half of a surrogate pair: Twilio cannot have sent, and so not signed it.
            return False
        valid |= compare_digest(b64encode(hmac.digest(key, message, "sha1")), given)
    return valid


def _signed_form(params: Mapping[str, str] | Sequence[tuple[str, str]]) -> str:
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


def _candidates(url: str) -> list[str]:
    """Every URL that Twilio may have signed when it was given this one.

    Cut from the text rather than parsed and put together again, which would change its spelling.
    """
    parts = _URL.fullmatch(url)
    if parts is None:
        return [url]
    scheme, host, port, path, query = parts.group("scheme", "host", "port", "path", "query")
    if port:
        hosts = [host + port, host]
    else:
        default = _DEFAULT_PORTS.get(scheme.lower())
        hosts = [host, f"{host}:{default}"] if default else [host]
    bare_path = path.removesuffix("/")
    paths = [path, bare_path + "/" if bare_path == path else bare_path]
    return [f"{scheme}://{host}{path}{query}" for host in hosts for path in paths]


def telnyx_public_key(text: str) -> Ed25519PublicKey:
    """The key that Telnyx's portal shows, in base64. ValueError when it is not one."""
    try:
        return Ed25519PublicKey.from_public_bytes(b64decode(text, validate=True))
    except ValueError as error:
        raise ValueError("not the base64 of a 32 byte Ed25519 key") from error


def telnyx_signature_valid(
    public_key: Ed25519PublicKey, timestamp: str | None, body: bytes, signature: str | None, now: float
) -> bool:
    """Whether `signature`, the telnyx-signature-ed25519 header, is Telnyx's for this body at this time.

    `timestamp` is the telnyx-timestamp header, in Unix seconds, and `body` what was posted, byte for byte (empty
    for a GET); `now` is ours, in Unix seconds. What was recorded can be played back for five minutes at most.
    https://developers.telnyx.com/docs/messaging/messages/receiving-webhooks#webhook-signing
    """
    if not timestamp or len(timestamp) > 20 or not timestamp.isascii() or not timestamp.isdigit():
        return False
    if abs(now - int(timestamp)) > TELNYX_TOLERANCE:
        return False
    try:
        public_key.verify(b64decode(signature or "", validate=True), timestamp.encode() + b"|" + body)
    except (ValueError, InvalidSignature):
        return False
    return True


def plivo_signature_valid(
    auth_token: str,
    method: str,
    url: str,
    params: Mapping[str, str] | Sequence[tuple[str, str]],
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
    for base in dict.fromkeys(base for each in _plivo_candidates(url) for base in _plivo_bases(method, each, form)):
        try:
            message = f"{base}.{nonce or ''}".encode()
        except UnicodeEncodeError:
            return False
        expected = b64encode(hmac.digest(auth_token.encode(), message, "sha256"))
        for each in given:
            valid |= compare_digest(expected, each)
    return valid and bool(nonce)


def _plivo_candidates(url: str) -> list[str]:
    other = {"wss": "https", "ws": "http"}
    scheme, separator, rest = url.partition("://")
    urls = [url] + ([f"{other[scheme]}{separator}{rest}"] if scheme in other else [])
    return [candidate for each in urls for candidate in _candidates(each)]


def _plivo_bases(method: str, url: str, form: list[tuple[str, str]]) -> list[str]:
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
