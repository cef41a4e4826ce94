"""A carrier's document as text, in the form in which carriers print theirs."""

from __future__ import annotations

from xml.etree import ElementTree

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
"""Written by hand: the library's has its quotes single, unlike every example."""


def document(root: ElementTree.Element) -> str:
    """Indented by two blanks; to be sent as UTF-8."""
    ElementTree.indent(root)
    return f"{_HEAD}{ElementTree.tostring(root, encoding='unicode')}\n"
