"""Digest authentication as SIP uses it: RFC 3261, section 22, and RFC 2617 behind it. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from typing import Final

_HASHES: Final[Mapping[str, Callable[[bytes], hashlib._Hash]]] = {"MD5": hashlib.md5, "SHA-256": hashlib.sha256}
_PAIR = re.compile(r'\s*([\w-]+)\s*=\s*("(?:[^"\\]|\\.)*"|[^",\s]+)\s*(?:,|$)')


class ChallengeUnusable(ValueError):
    """Another scheme than Digest, an algorithm or a quality of protection that is not implemented."""


def parse_parameters(header: str) -> dict[str, str]:
    """The parameters of a Digest header, names in lower case, values without their quotes."""
    scheme, _, rest = header.strip().partition(" ")
    if scheme.lower() != "digest":
        raise ChallengeUnusable(f"the scheme is {scheme!r}, not Digest")
    return {name.lower(): value.strip('"') for name, value in _PAIR.findall(rest)}


def answer(challenge: str, username: str, password: str, method: str, uri: str, cnonce: str) -> str:
    """The value of Authorization or Proxy-Authorization for this value of WWW- or Proxy-Authenticate."""
    asked = parse_parameters(challenge)
    algorithm = asked.get("algorithm", "MD5")
    hasher = _HASHES.get(algorithm.upper())
    if hasher is None:
        raise ChallengeUnusable(f"the algorithm is {algorithm!r}")
    if "nonce" not in asked:
        raise ChallengeUnusable("no nonce")
    qop = [each.strip().lower() for each in asked.get("qop", "").split(",") if each.strip()]
    if qop and "auth" not in qop:
        raise ChallengeUnusable(f"the quality of protection is {asked['qop']!r}")

    def digest(text: str) -> str:
        return hasher(text.encode()).hexdigest()

    secret = digest(f"{username}:{asked.get('realm', '')}:{password}")
    request = digest(f"{method}:{uri}")
    fields = {"username": username, "realm": asked.get("realm", ""), "nonce": asked["nonce"], "uri": uri}
    bare = {"algorithm": algorithm}
    if qop:
        bare |= {"qop": "auth", "nc": "00000001"}
        fields["cnonce"] = cnonce
        fields["response"] = digest(f"{secret}:{asked['nonce']}:00000001:{cnonce}:auth:{request}")
    else:
        fields["response"] = digest(f"{secret}:{asked['nonce']}:{request}")
    if "opaque" in asked:
        fields["opaque"] = asked["opaque"]
    quoted = [f'{name}="{value}"' for name, value in fields.items()]
    return "Digest " + ", ".join([*quoted, *(f"{name}={value}" for name, value in bare.items())])
