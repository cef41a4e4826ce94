"""The documents that tell a carrier what to do with a call."""

from __future__ import annotations

import re
from xml.etree import ElementTree

_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 (section 2.2) has no way to express, not even escaped."""


def twilio_stream(connect_url: str, say: str) -> str:
    """TwiML: read `say` out, then open a bidirectional stream to `connect_url` (ws or wss, no query).

    Nothing comes after `<Connect>`: when the room ends the call, the call just ends. `<Say>` is left out when
    there is nothing to say. Characters that XML cannot carry are left out too.
    """
    response = ElementTree.Element("Response")
    spoken = _NOT_XML.sub("", say).strip()
    if spoken:
        ElementTree.SubElement(response, "Say").text = spoken
    connect = ElementTree.SubElement(response, "Connect")
    ElementTree.SubElement(connect, "Stream", url=_NOT_XML.sub("", connect_url))
    return _document(response)


def twilio_hangup() -> str:
    """TwiML: end the call."""
    response = ElementTree.Element("Response")
    ElementTree.SubElement(response, "Hangup")
    return _document(response)


def _document(root: ElementTree.Element) -> str:
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text.decode()
