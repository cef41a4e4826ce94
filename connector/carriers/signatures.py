"""Is it the carrier that speaks to us? Each carrier signs its requests with a secret it shares with us."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from hmac import compare_digest

from twilio.request_validator import RequestValidator

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
    or with its scheme's default port when it has none; each with and without the path's trailing slash. The
    `twilio` package's own `validate` is not used: it takes 80 for the default port of wss, tries no slash,
    cuts IPv6 hosts and user names at their first colon, and raises when there is no signature.

    Takes the same time for every signature. ValueError for an empty `auth_token`, with which anybody could
    sign. https://www.twilio.com/docs/usage/security#validating-requests
    """
    if not auth_token:
        raise ValueError("an empty auth token verifies nothing")
    validator = RequestValidator(auth_token)
    form = _form(params)
    given = (signature or "").encode("utf-8", "surrogatepass")
    valid = False
    for candidate in _candidates(url):
        try:
            expected: str = validator.compute_signature(candidate, form)
        except UnicodeEncodeError:
            # Half of a surrogate pair: Twilio cannot have sent, and so not signed it.
            return False
        valid |= compare_digest(expected.encode(), given)
    return valid


class _Form(dict[str, list[str]]):
    """Fields that may have several values, in the shape that the validator knows from web frameworks."""

    def getall(self, name: str) -> list[str]:
        return self[name]


def _form(params: Mapping[str, str] | Sequence[tuple[str, str]]) -> _Form:
    form = _Form()
    for name, value in params.items() if isinstance(params, Mapping) else params:
        form.setdefault(name, []).append(value)
    return form


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
