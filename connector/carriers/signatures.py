"""Common parts of signature checks: the signed request, and the URL variants that a carrier may have signed.

Each carrier signs its requests; the method is in the carrier's package.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

_DEFAULT_PORTS = {"https": 443, "wss": 443, "http": 80, "ws": 80}
_URL = re.compile(
    r"(?P<scheme>[^:/?#]+)://(?P<host>[^/?#]*?)(?P<port>:[0-9]+)?(?P<path>(?:/[^?#]*)?)(?P<query>(?:[?#].*)?)",
    re.DOTALL,
)
"""The host may contain a user name and password, or an IPv6 address in brackets: both contain colons."""

Form = Mapping[str, str] | Sequence[tuple[str, str]]
"""The fields of a POST form; pairs if a name can occur twice."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A carrier's request: HTTP, or a WebSocket handshake."""

    method: str
    urls: Sequence[str]
    """The public URLs, with query, that the carrier may have been given for this request; `wss://` for a handshake."""
    headers: Mapping[str, str]
    """Header names are case-insensitive."""
    form: Form = ()
    body: bytes = b""
    """The unmodified body; empty for a GET."""
    now: float = 0.0
    """Our time, in Unix seconds."""


def url_candidates(url: str) -> list[str]:
    """Returns all URLs that a carrier may have signed for this one: unchanged, without its port, or with the scheme's
    default port if it has none; each with and without a trailing slash in the path.

    A regular expression splits the URL, because parsing and rebuilding it could change its encoding.
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
