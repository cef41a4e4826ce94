"""CallDependencies of carriers' XML documents. Text is escaped; characters that XML cannot carry are left out."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
"""Written by hand: the library's has its quotes single, unlike every example."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 (section 2.2) has no way to express, not even escaped."""

Element = ElementTree.Element


def response() -> Element:
    """The root of a document; all three carriers call it so."""
    return Element("Response")


def child(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    element = ElementTree.SubElement(parent, tag, {name: clean(value) for name, value in attributes.items()})
    if text is not None:
        element.text = clean(text)
    return element


def spoken(parent: Element, tag: str, text: str) -> None:
    """An element that has `text` read out; none where there is nothing to say."""
    text = clean(text).strip()
    if text:
        child(parent, tag, text)


def clean(text: str) -> str:
    return _NOT_XML.sub("", text)


def document(root: Element) -> str:
    """Indented by two blanks; to be sent as UTF-8."""
    ElementTree.indent(root)
    return f"{_HEAD}{ElementTree.tostring(root, encoding='unicode')}\n"
