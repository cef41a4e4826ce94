"""Reads a carrier's XML strictly: the part that all three carriers have in common. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final
from urllib.parse import urlsplit
from xml.etree import ElementTree

from carrier_simulator.faults import Fault, Refused
from carrier_simulator.verbs import Pause, Play, Say, Verb

Element = ElementTree.Element
Readers = Mapping[str, Callable[[Element], Verb]]
KEYS: Final = frozenset("0123456789*#")


def parse_document(body: bytes, content_type: str, content_types: frozenset[str], readers: Readers) -> tuple[Verb, ...]:
    """`content_type` as in the header; raise Refused as the carrier would log it."""
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in content_types:
        raise Refused(Fault.CONTENT_TYPE, f"content type {kind or 'missing'!r} is not XML")
    try:
        root = ElementTree.fromstring(body)
    except ElementTree.ParseError as error:
        raise Refused(Fault.DOCUMENT_PARSE, f"not well-formed XML: {error}") from error
    if root.tag != "Response":
        raise Refused(Fault.DOCUMENT_PARSE, f"the root element is {root.tag!r}, not 'Response'")
    no_text(root)
    return tuple(read_verb(element, readers) for element in root)


def read_verb(element: Element, readers: Readers) -> Verb:
    read = readers.get(element.tag)
    if read is None:
        raise wrong(f"verb {element.tag!r} does not exist here or is not simulated")
    return read(element)


def wrong(what: str) -> Refused:
    return Refused(Fault.SCHEMA, what)


def no_text(element: Element) -> None:
    if (element.text or "").strip() or any((child.tail or "").strip() for child in element):
        raise wrong(f"text between the children of {element.tag}")


def attributes(element: Element, *known: str) -> Mapping[str, str]:
    unknown = sorted(set(element.attrib) - set(known))
    if unknown:
        raise wrong(f"{element.tag} has no attribute {', '.join(unknown)}")
    return element.attrib


def is_web_url(url: str) -> bool:
    parts = urlsplit(url)
    return parts.scheme in ("http", "https") and bool(parts.hostname)


def leaf(element: Element) -> str:
    if len(element):
        raise wrong(f"{element.tag} may not hold {element[0].tag}")
    return (element.text or "").strip()


def empty(element: Element) -> None:
    if leaf(element):
        raise wrong(f"{element.tag} holds no text")


def only_child(element: Element, tag: str) -> Element:
    no_text(element)
    if len(element) != 1 or element[0].tag != tag:
        raise wrong(f"{element.tag} must hold exactly one {tag} (nothing else is simulated)")
    return element[0]


def prompts(element: Element, readers: Readers) -> tuple[Say | Pause | Play, ...]:
    """The verbs inside one that asks for digits."""
    no_text(element)
    found = tuple(read_verb(child, readers) for child in element)
    spoken = tuple(verb for verb in found if isinstance(verb, Say | Pause | Play))
    if len(spoken) != len(found):
        raise wrong(f"{element.tag} may contain only text to be spoken")
    return spoken


def one_of(given: Mapping[str, str], name: str, values: tuple[str, ...], default: str = "") -> str:
    value = given.get(name, default or values[0])
    if value not in values:
        raise wrong(f"{name} {value!r} is none of {', '.join(values)}")
    return value


def method_of(given: Mapping[str, str], name: str = "method") -> str:
    method = given.get(name, "POST").upper()
    if method not in ("GET", "POST"):
        raise wrong(f"{name} {method!r} is neither GET nor POST")
    return method


def boolean(given: Mapping[str, str], name: str, *, default: str = "false") -> bool:
    return one_of(given, name, ("true", "false"), default) == "true"


def whole(given: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    text = given.get(name, str(default))
    if not text.isdecimal() or not least <= int(text) <= most:
        raise wrong(f"{name} {text!r} is not a whole number from {least} to {most}")
    return int(text)


def finish_key(given: Mapping[str, str]) -> str:
    """One key, or none at all."""
    key = given.get("finishOnKey", "#")
    if key and key not in KEYS:
        raise wrong(f"finishOnKey {key!r} is not a keypad digit")
    return key
