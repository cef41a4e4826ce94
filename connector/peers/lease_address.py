"""The address at which a process answers the others, in the form of the lease.

A loopback address means another process on every machine, and in every container. So it carries the identity of the
network that it belongs to, as the URL's fragment.
"""

from __future__ import annotations

import hashlib
import os
import socket
from functools import cache
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urldefrag, urlsplit

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NETWORK = "/proc/self/ns/net"


def advertised(url: str) -> str:
    """The form for the lease."""
    return f"{url}#{network_id()}" if _is_loopback(url) else url


def reachable_from_here(address: str) -> str | None:
    """The URL of an address in a lease; None for a loopback address of another machine or container."""
    url, network = urldefrag(address)
    return url if network in ("", network_id()) else None


@cache
def network_id() -> str:
    """Identifies the loopback network of this process: equal in all processes that share it."""
    try:
        # The kernel's boot is not enough: all containers of a machine share it.
        seen = f"{_BOOT_ID.read_text().strip()} {os.readlink(_NETWORK)}"
    except OSError:
        seen = socket.gethostname()
    return hashlib.sha256(seen.encode()).hexdigest()[:16]


def _is_loopback(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
