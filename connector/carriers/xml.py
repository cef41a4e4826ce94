"""Building blocks of the carriers' XML documents. Text is escaped; characters that XML cannot express are removed."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
"""Not the library's declaration: that has single quotes, unlike the carriers' examples."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 (section 2.2) cannot express, not even escaped."""

Element = ElementTree.Element


def response() -> Element:
    """Returns the root of a document; it has the same name for all three carriers."""
    return Element("Response")


def child(parent: Element, tag: str, text: str | None = None, **attributes: str) -> Element:
    element = ElementTree.SubElement(parent, tag, {name: clean(value) for name, value in attributes.items()})
    if text is not None:
        element.text = clean(text)
    return element


def spoken(parent: Element, tag: str, text: str) -> None:
    """Adds an element that reads `text` aloud; no element if the text is empty."""
    text = clean(text).strip()
    if text:
        child(parent, tag, text)


def clean(text: str) -> str:
    return _NOT_XML.sub("", text)


def document(root: Element) -> str:
    """Returns the document, indented by two spaces; to be sent as UTF-8."""
    ElementTree.indent(root)
    return f"{_HEAD}{ElementTree.tostring(root, encoding='unicode')}\n"
