"""Decides to which addresses a delivery may connect.

Anybody with a token can register a URL, and the connector runs inside the operator's network. Without this check, its
deliveries would reach internal hosts that outsiders cannot reach.
"""

from __future__ import annotations

import ipaddress

from yarl import URL

from connector.errors import InvalidArgument

MAX_URL_LENGTH = 2048

_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        # The IETF's own assignments; a cloud keeps its metadata service at 192.0.0.192.
        "192.0.0.0/24",
        # The 6to4 anycast address: the nearest relay answers there.
        "192.88.99.0/24",
        # Has the form of a public address, but inside Azure it is the platform's own service.
        "168.63.129.16/32",
    )
)
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_public(text: str) -> bool:
    """Whether a literal address (IPv6 with or without a zone) belongs to the public Internet's hosts."""
    return _is_public(ipaddress.ip_address(text.partition("%")[0]))


def _is_public(address: Address) -> bool:
    if isinstance(address, ipaddress.IPv6Address):
        inner = _ipv4_inside(address)
        if inner is not None:
            return _is_public(inner)
        if address.is_site_local:
            return False
    if any(address in network for network in _NOT_PUBLIC if network.version == address.version):
        return False
    return address.is_global and not address.is_multicast and not address.is_reserved


def _ipv4_inside(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address embedded in this IPv6 address, to which its packets really go; None without one."""
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    return ipaddress.IPv4Address(address.packed[-4:]) if address in _NAT64 else None


def check_url(text: str) -> str:
    """Check the URL of an endpoint and return it unchanged. InvalidArgument when no delivery to it could ever succeed.

    Names are not resolved here: their addresses are checked at the connection of each delivery.
    """
    if len(text) > MAX_URL_LENGTH:
        raise InvalidArgument("url", f"is longer than {MAX_URL_LENGTH} characters")
    if not text.isprintable() or " " in text:
        raise InvalidArgument("url", "has characters that a URL cannot have")
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError:
        raise InvalidArgument("url", "is not a URL") from None
    if url.scheme not in ("http", "https") or not host:
        raise InvalidArgument("url", "must be an absolute http or https URL")
    if host.replace(".", "").isdecimal() and not _is_address(host):
        raise InvalidArgument("url", "has an address in an obsolete form, such as 127.1")
    if port == 0:
        raise InvalidArgument("url", "has an invalid port")
    if url.user is not None or url.password is not None:
        raise InvalidArgument("url", "must not hold a user or password: deliveries are signed instead")
    return text


def check_public(text: str) -> None:
    """InvalidArgument when the host of a checked URL is written as an address that is not public."""
    host = URL(text).host or ""
    if not (is_public(host) if _is_address(host) else host.rstrip(".").lower() != "localhost"):
        raise InvalidArgument("url", "is not on the public Internet; CONNECTOR_WEBHOOK_ALLOW_PRIVATE allows that")


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
