"""What carriers' signatures have in common: a request as it was signed, and the ways its URL may have been written.

Each carrier signs its requests with a secret that it shares with us; how, is in its own package.
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
"""A host may hold a user's name and password, and an IPv6 address in brackets: both contain colons."""

Form = Mapping[str, str] | Sequence[tuple[str, str]]
"""The fields of a POST form; as pairs where one may come twice."""


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request of a carrier's: by HTTP, or a WebSocket's handshake."""

    method: str
    urls: Sequence[str]
    """The public URLs that the carrier may have been given for it, with their query; `wss://` for a handshake."""
    headers: Mapping[str, str]
    """Its names whatever their case."""
    form: Form = ()
    body: bytes = b""
    """As it came; empty for a GET."""
    now: float = 0.0
    """Our time, in Unix seconds."""


def url_candidates(url: str) -> list[str]:
    """Every URL that a carrier may have signed when it was given this one: as it is, without its port, or with its
    scheme's default port when it has none; each with and without the path's trailing slash.

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
