"""Checks the URLs of settings, and writes hosts as URLs need them."""

from __future__ import annotations

import re
from urllib.parse import urlsplit


def origin(value: str, schemes: set[str]) -> str:
    """Returns the origin without a slash at its end. Raises ValueError."""
    parts = urlsplit(value)
    if parts.scheme not in schemes or not parts.hostname:
        raise ValueError(f"must be a URL that starts with {' or '.join(sorted(s + '://' for s in schemes))}")
    if parts.query or parts.fragment or parts.username:
        raise ValueError("must be an origin: no user, query or fragment")
    parts.port  # noqa: B018 - reading it checks it
    return value.rstrip("/")


def redis_url(value: str) -> str:
    """Checks the URL and returns it unchanged. Raises ValueError; its message never quotes the URL: if the URL is split
    in the wrong place, any part of it may contain the password."""
    try:
        parts = urlsplit(value)
        is_whole = bool(parts.hostname) and parts.port != 0 and re.fullmatch(r"(/\d*)?", parts.path) is not None
    except ValueError:
        is_whole = False
    if not is_whole or parts.query or parts.fragment:
        raise ValueError(
            "must look like redis://user:password@host:6379/0, user, password, port and database as needed "
            "(rediss:// for TLS); in a password write / ? # @ : % [ ] as %2F %3F %23 %40 %3A %25 %5B %5D"
        )
    return value


def bracketed(host: str) -> str:
    """The host in the form that a URL needs: an IPv6 address gets brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host
