"""Reads a TwiML document into verbs; whatever Twilio would complain about is refused. Pure.

https://www.twilio.com/docs/voice/twiml
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from xml.etree import ElementTree

from connector.demo.carrier.faults import Fault, Refused

_XML_TYPES: Final = frozenset({"text/xml", "application/xml", "text/html"})


@dataclass(frozen=True, slots=True)
class Say:
    text: str


@dataclass(frozen=True, slots=True)
class Pause:
    seconds: float


@dataclass(frozen=True, slots=True)
class Play:
    url: str


@dataclass(frozen=True, slots=True)
class Hangup:
    pass


@dataclass(frozen=True, slots=True)
class Reject:
    reason: str


@dataclass(frozen=True, slots=True)
class Redirect:
    url: str
    method: str


@dataclass(frozen=True, slots=True)
class Stream:
    url: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Connect:
    stream: Stream
    action: str
    """Requested when the stream ends; empty: the document goes on."""
    method: str


Verb = Say | Pause | Play | Hangup | Reject | Redirect | Connect


def parse_twiml(body: bytes, content_type: str) -> tuple[Verb, ...]:
    """`content_type` as in the header; raise Refused as Twilio would log it."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in _XML_TYPES:
        raise Refused(Fault.CONTENT_TYPE, f"content type {kind or 'missing'!r} is not XML")
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise Refused(Fault.DOCUMENT_PARSE, f"not well-formed XML: {error}") from error
    if root.tag != "Response":
        raise Refused(Fault.DOCUMENT_PARSE, f"the root element is {root.tag!r}, not 'Response'")
    if (root.text or "").strip() or any((child.tail or "").strip() for child in root):
        raise Refused(Fault.SCHEMA, "text between the verbs")
    return tuple(_verb(element) for element in root)


def _verb(element: ElementTree.Element) -> Verb:
    read = _READERS.get(element.tag)
    if read is None:
        raise Refused(Fault.SCHEMA, f"verb {element.tag!r} does not exist or is not simulated")
    return read(element)


def _attributes(element: ElementTree.Element, *known: str) -> Mapping[str, str]:
    unknown = sorted(set(element.attrib) - set(known))
    if unknown:
        raise Refused(Fault.SCHEMA, f"{element.tag} has no attribute {', '.join(unknown)}")
    return element.attrib


def _leaf(element: ElementTree.Element) -> str:
    if len(element):
        raise Refused(Fault.SCHEMA, f"{element.tag} may not hold {element[0].tag}")
    return (element.text or "").strip()


def _method(attributes: Mapping[str, str]) -> str:
    method = attributes.get("method", "POST").upper()
    if method not in ("GET", "POST"):
        raise Refused(Fault.SCHEMA, f"method {method!r} is neither GET nor POST")
    return method


def _say(element: ElementTree.Element) -> Verb:
    _attributes(element, "voice", "language", "loop")
    text = _leaf(element)
    if not text:
        raise Refused(Fault.SCHEMA, "Say has nothing to say")
    return Say(text)


def _pause(element: ElementTree.Element) -> Verb:
    length = _attributes(element, "length").get("length", "1")
    _leaf(element)
    if not length.isdecimal():
        raise Refused(Fault.SCHEMA, f"Pause length {length!r} is not a whole number of seconds")
    return Pause(float(length))


def _play(element: ElementTree.Element) -> Verb:
    _attributes(element, "loop", "digits")
    return Play(_leaf(element))


def _hangup(element: ElementTree.Element) -> Verb:
    _attributes(element)
    _leaf(element)
    return Hangup()


def _reject(element: ElementTree.Element) -> Verb:
    reason = _attributes(element, "reason").get("reason", "rejected")
    _leaf(element)
    if reason not in ("rejected", "busy"):
        raise Refused(Fault.SCHEMA, f"Reject reason {reason!r} is neither rejected nor busy")
    return Reject(reason)


def _redirect(element: ElementTree.Element) -> Verb:
    method = _method(_attributes(element, "method"))
    return Redirect(_leaf(element), method)


def _connect(element: ElementTree.Element) -> Verb:
    attributes = _attributes(element, "action", "method")
    if len(element) != 1 or element[0].tag != "Stream":
        raise Refused(Fault.SCHEMA, "Connect must hold exactly one Stream (nothing else is simulated)")
    return Connect(_stream(element[0]), attributes.get("action", ""), _method(attributes))


def _stream(element: ElementTree.Element) -> Stream:
    attributes = _attributes(element, "url", "name", "track", "statusCallback", "statusCallbackMethod")
    if attributes.get("track", "inbound_track") != "inbound_track":
        raise Refused(Fault.SCHEMA, "a bidirectional Stream has only the inbound_track")
    if "url" not in attributes:
        raise Refused(Fault.SCHEMA, "Stream needs a url")
    parameters: dict[str, str] = {}
    for child in element:
        if child.tag != "Parameter":
            raise Refused(Fault.SCHEMA, f"Stream may not hold {child.tag}")
        given = _attributes(child, "name", "value")
        if not given.get("name") or "value" not in given:
            raise Refused(Fault.SCHEMA, "Parameter needs a name and a value")
        if len(given["name"]) + len(given["value"]) > 500:
            raise Refused(Fault.SCHEMA, "a Parameter's name and value may have 500 characters together")
        parameters[given["name"]] = given["value"]
    return Stream(attributes["url"], parameters)


_READERS: Final[Mapping[str, Callable[[ElementTree.Element], Verb]]] = {
    "Say": _say,
    "Pause": _pause,
    "Play": _play,
    "Hangup": _hangup,
    "Reject": _reject,
    "Redirect": _redirect,
    "Connect": _connect,
}
