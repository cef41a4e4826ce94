"""SIP messages as text: as much of RFC 3261 as one call needs. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass

VERSION = "SIP/2.0"
MAX_DATAGRAM = 65_535
_COMPACT = {"v": "via", "f": "from", "t": "to", "i": "call-id", "m": "contact", "l": "content-length"} | {
    "c": "content-type",
    "k": "supported",
}
_STATUS = re.compile(r"SIP/2\.0 ([1-6][0-9]{2}) ?(.*)")
_REQUEST = re.compile(r"([A-Z]+) (\S+) SIP/2\.0")
_URI = re.compile(
    r"(?P<scheme>sips?):(?:(?P<user>[^@;?>]+)@)?(?P<host>\[[0-9A-Fa-f:.]+\]|[^:;?>@]+)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<parameters>(?:;[^;?>=]+(?:=[^;?>]*)?)*)(?:\?(?P<headers>[^>]*))?",
    re.IGNORECASE,
)


class SipMalformed(ValueError):
    """Not a SIP message, or not a SIP address."""


Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Message:
    """`first` is the request or status line, without its end."""

    first: str
    headers: Headers
    body: bytes = b""

    def get(self, name: str) -> str:
        """The first header of this name; empty when there is none."""
        return next(iter(self.all(name)), "")

    def all(self, name: str) -> list[str]:
        wanted = name.lower()
        return [value for key, value in self.headers if _COMPACT.get(key.lower(), key.lower()) == wanted]

    @property
    def status(self) -> int:
        """0 for a request."""
        match = _STATUS.fullmatch(self.first)
        return int(match[1]) if match else 0

    @property
    def reason(self) -> str:
        match = _STATUS.fullmatch(self.first)
        return match[2] if match else ""

    @property
    def method(self) -> str:
        """Of a request, or of the request that this answers."""
        match = _REQUEST.fullmatch(self.first)
        return match[1] if match else self.get("CSeq").partition(" ")[2].strip()

    @property
    def branch(self) -> str:
        return _parameter(self.get("Via"), "branch")

    @property
    def to_tag(self) -> str:
        return _parameter(self.get("To"), "tag")

    def encode(self) -> bytes:
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers)]
        lines.append(f"Content-Length: {len(self.body)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode() + self.body


def parse(datagram: bytes) -> Message:
    """Raises SipMalformed if the text is not exactly one message."""
    head, separator, body = datagram.partition(b"\r\n\r\n")
    try:
        first, *lines = head.decode().split("\r\n")
    except UnicodeDecodeError as error:
        raise SipMalformed("the header is not UTF-8") from error
    if not separator or not (_STATUS.fullmatch(first) or _REQUEST.fullmatch(first)):
        raise SipMalformed("no request or status line, or no end of the header")
    headers: list[tuple[str, str]] = []
    for line in lines:
        if line[:1] in (" ", "\t") and headers:
            headers[-1] = (headers[-1][0], f"{headers[-1][1]} {line.strip()}")
            continue
        name, colon, value = line.partition(":")
        if not colon:
            raise SipMalformed(f"a header line without a colon: {line[:40]!r}")
        headers.append((name.strip(), value.strip()))
    message = Message(first, tuple(headers), body)
    for needed in ("Via", "From", "To", "Call-ID", "CSeq"):
        if not message.get(needed):
            raise SipMalformed(f"no {needed}")
    length = message.get("Content-Length")
    if length and (not length.isdecimal() or int(length) > len(body)):
        raise SipMalformed("Content-Length is longer than the datagram")
    return Message(first, tuple(headers), body[: int(length)] if length else body)


@dataclass(frozen=True, slots=True)
class SipUri:
    user: str
    host: str
    """Without brackets."""
    port: int
    """0 when the address names none."""
    parameters: dict[str, str]
    headers: str
    """What stands after a question mark, as it is."""
    secure: bool = False


def parse_uri(text: str) -> SipUri:
    """Raises SipMalformed if the text is not a SIP URI."""
    match = _URI.fullmatch(text.strip())
    if match is None or int(match["port"] or 0) > 65535:
        raise SipMalformed(f"{text!r} is not a SIP address")
    parameters = {}
    for each in filter(None, match["parameters"].split(";")):
        name, _, value = each.partition("=")
        parameters[name.lower()] = value
    return SipUri(
        match["user"] or "",
        match["host"].strip("[]"),
        int(match["port"] or 0),
        parameters,
        match["headers"] or "",
        match["scheme"].lower() == "sips",
    )


def address_of(header: str) -> str:
    """The address inside a Contact, Route or To header."""
    inside = re.search(r"<([^>]+)>", header)
    return inside[1] if inside else header.partition(";")[0].strip()


def _parameter(header: str, name: str) -> str:
    found = re.search(rf";\s*{name}\s*=\s*([^;,\s]+)", header, re.IGNORECASE)
    return found[1] if found else ""
